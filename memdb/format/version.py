"""Which documents this memdb can read."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from memdb.environment import DISTRIBUTION
from memdb.errors import WrongFormatError
from memdb.format import layout


def require_format(document: Mapping[str, Any], place: str, known: Sequence[str] = ()) -> None:
    """Refuse what this memdb cannot read.

    Raises:
        WrongFormatError: another format number, or required features unknown here.
    """
    version = document.get("format")
    if version != layout.FORMAT or isinstance(version, bool):
        raise WrongFormatError(
            f"{place} has format {reprlib.repr(version)}; this memdb reads format {layout.FORMAT}",
            hint=f"upgrade with `pip install --upgrade {DISTRIBUTION}`, in a clone with `git pull`",
        )
    features = document.get("required_features", [])
    if not isinstance(features, list) or any(name not in known for name in features):
        raise WrongFormatError(
            f"{place} needs features that this memdb does not know: {reprlib.repr(features)}",
            hint=f"upgrade with `pip install --upgrade {DISTRIBUTION}`, in a clone with `git pull`",
        )
