"""One file that shows a store in any browser, without a network: the page, its numbers and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from memdb.errors import InvalidInputError
from memdb.files import writing
from memdb.look.contents import MOST_PICTURES, Contents, contents_of, lists_of
from memdb.look.document import base64_of, document_around_data, inert, inert_json
from memdb.query.intervals import require_level
from memdb.query.relations import Relations
from memdb.render.sheets import TILES, ShownOf, sheets

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written: its size in bytes, how many pictures it has, or why it has none."""

    path: Path
    size: int
    n_pictures: int
    without_pictures: str = ""


def write_report(
    path: Path,
    relations: Relations,
    level: float,
    pictures: Mapping[str, ShownOf],
    progress: Progress,
) -> WrittenReport:
    """Write a report of the models of ``relations``, with the pictures or words of some sets.

    Raises:
        InvalidInputError: the level is not a probability, or the path does not end in .html.
        StorageError: the file could not be written.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise InvalidInputError(f"{path} does not end in .html", hint="name one, such as report.html")
    require_level(level)
    contents = contents_of(relations, level, pictures, MOST_PICTURES)
    every = contents.every_array()
    lists = lists_of(relations, contents.orders, every["pairs"], progress)
    contents = contents.with_lists(lists)
    arrays = {**every, **contents.arrays, **{f"{name}/partners": one.found for name, one in lists.items()}}
    n_all = sum(contents.facts["pictures"][name]["n"] for name in pictures)
    done = 0
    with writing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        before, after = document_around_data(contents.facts["dataset"], "file")
        file.write(before)
        file.write(inert_json("facts", contents.facts) + inert_json("keys", contents.keys))
        file.writelines(inert(name, f"{a.dtype.name} {base64_of(a.tobytes())}") for name, a in arrays.items())
        for name, those in pictures.items():
            for number, sheet in enumerate(_sheets(contents, name, those)):
                file.write(inert(f"{name}/sheet/{number}", base64_of(sheet)))
                done = min(done + TILES, n_all)
                progress(done, n_all)
        file.write(after)
    return WrittenReport(path, path.stat().st_size, n_all)


def _sheets(contents: Contents, name: str, pictures: ShownOf) -> Iterator[bytes]:
    """Yield the first sheets of a set: those that a published copy has, or new ones."""
    if pictures.sheet is None:
        yield from sheets(pictures, contents.orders[name][:MOST_PICTURES].tolist())
    else:
        n_pictures = contents.facts["pictures"][name]["n"]
        yield from map(pictures.sheet, range(-(-n_pictures // TILES)))
