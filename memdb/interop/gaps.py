"""Files that are missing from a series, by the numbers in the names of those that are there."""

from __future__ import annotations

import re
from collections.abc import Sequence

OUT_OF = re.compile(r"[-_]of[-_]$", re.IGNORECASE)  # as in runs-00001-of-00003


def missing_note(names: Sequence[str], *, with_total: bool = False) -> tuple[str, ...]:
    """Return a note on what a series lacks; none if names are not a series, or if most of it is missing.

    Names are a series if one number in them goes up and all else is the same. One behind ``of`` says how many
    there are, as does the next one if names are ``with_total``, as ``experiment-3_16`` is.
    """
    parts = [re.split(r"(\d+)", name) for name in names]
    if len(parts) < 2 or len({tuple(each[::2]) for each in parts}) > 1:
        return ()
    varying = [at for at in range(1, len(parts[0]), 2) if len({each[at] for each in parts}) > 1]
    if len(varying) != 1:
        return ()
    at, first = varying[0], parts[0]
    there = {int(each[at]) for each in parts}
    start, stop = min(*there, 1), max(there) + 1
    if len(first) > at + 2 and (with_total or OUT_OF.search(first[at + 1])):
        stop = max(stop, int(first[at + 2]) + start)
    absent = [number for number in range(start, min(stop, start + 2 * len(there))) if number not in there]
    if not absent or stop - start > 2 * len(there):
        return ()
    width = len(first[at]) if first[at].startswith("0") else 0
    shown = ["".join([*first[:at], f"{number:0{width}}", *first[at + 1 :]]) for number in absent[:3]]
    more = f" and {len(absent) - 3:,} more" if len(absent) > 3 else ""
    return (f"Not there, by their numbers: {', '.join(shown)}{more}.",)
