"""Stores whose manifest names code, through every door: none of it is imported that the user has not named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from attacks.harness import Copy, Place, case
from memdb.format.documents import fingerprint

COMMAND = "touch {pwned}"
TRAIN = (
    "train --add 1",
    "train --add 1 --ray auto",
    "train --until-half-width .1 --max-time 1m",
    "train --add 1 --workers 1",
    "train --add 1 --recipe mlp",
)
DATA = ("train --add 1 --data-root {photos}", "train --add 1 --workers 1 --data-root {photos}")


def _named(copy: Copy, pwned: Path, *, recipe: str = "subprocess:Popen", name: str = "theirs") -> None:
    """Let a store name a program to start as its recipe."""
    options = {"args": ["sh", "-c", COMMAND.format(pwned=pwned)]}
    made: dict[str, Any] = {"name": name, "version": "1", "options": options, "import_path": recipe}
    made["fingerprint"] = fingerprint({key: made[key] for key in ("name", "version", "options")})
    copy.manifest["recipe"] = made
    for block in copy.blocks.values():
        block["recipe_fingerprint"] = made["fingerprint"]


def _asked(place: Place, words: str, store: Path) -> list[str]:
    return ["memdb", *words.format(photos=place.thesis.parent).split(), "--store", str(store)]


for _command in TRAIN:
    for _name, _path in {
        "a program": "subprocess:Popen",
        "a shell": "os:system",
        "a built-in name": "subprocess:Popen",
    }.items():

        @case("code", f"{_command}: {_name} as the recipe")
        def _(place: Place, words: str = _command, path: str = _path, kind: str = _name) -> list[str]:
            copy = place.growing("digits")
            _named(copy, place.here / "PWNED", recipe=path, name="mlp" if "built-in" in kind else "theirs")
            copy.seal()
            return _asked(place, words, copy.root)


for _command in DATA:

    @case("code", f"{_command.split(' --data-root')[0]}: shutil:rmtree as the data set")
    def _(place: Place, words: str = _command) -> list[str]:
        copy = place.growing("digits")
        copy.manifest["dataset"] = "shutil:rmtree"
        copy.seal()
        return _asked(place, words, copy.root)


@case("code", "publish --include thumbnails: shutil:rmtree as the data set")
def _(place: Place) -> list[str]:
    copy = place.growing("digits")
    copy.manifest["dataset"] = "shutil:rmtree"
    return [
        "memdb", "publish", str(place.folder / "out"), "--store", copy.seal(), "--include", "bits",
        "--include", "thumbnails", "--data-root", str(place.thesis.parent),
    ]  # fmt: skip


@case("code", "pull, then train")
def _(place: Place) -> list[str]:
    copy = place.hostile()
    copy.manifest["dataset"] = "digits"
    _named(copy, place.here / "PWNED")
    mine = place.folder / "mine"
    return ["sh", "-c", f"memdb pull {copy.seal()} {mine} --only bits && memdb train --add 1 --store {mine}"]


for _command in ("init --extend {theirs} --store {mine}", "merge {theirs} --store {mine}"):

    @case("code", _command.format(theirs="THEIRS", mine="MINE"), exits=(0, 1))
    def _(place: Place, words: str = _command) -> list[str]:
        copy = place.growing("digits")
        _named(copy, place.here / "PWNED")
        return ["memdb", *words.format(theirs=copy.seal(), mine=place.folder / "mine").split()]


@case("code", "a store copied over one's own")
def _(place: Place) -> list[str]:
    mine = place.folder / "mine"
    copy = place.growing("digits")
    _named(copy, place.here / "PWNED")
    theirs = copy.seal()
    made = f"memdb init --dataset digits --recipe mlp --store {mine}"
    return [
        "sh",
        "-c",
        f"{made} && rm -r {mine} && cp -r {theirs} {mine} && memdb train --add 1 --store {mine}",
    ]


@case("code", "a memory of what was named that is damaged", exits=(1,))
def _(place: Place) -> list[str]:
    copy = place.growing("digits")
    _named(copy, place.here / "PWNED")
    folder = place.folder / "home/.cache/memdb"
    folder.mkdir(parents=True)
    (folder / "code").write_bytes(b"\xff")
    return _asked(place, "train --add 1", Path(copy.seal()))


@case("code", "Python: train, score and examples of a stranger's store", says="UnnamedCodeError")
def _(place: Place) -> list[str]:
    copy = place.growing("digits")
    _named(copy, place.here / "PWNED")
    return place.script(
        "import memdb, sys\n"
        f"db = memdb.open({copy.seal()!r})\n"
        "try:\n    db.train(add=1)\n"
        "except memdb.MemdbError as error:\n    print(type(error).__name__)\n    sys.exit(1)\n"
    )


@case("code", "a module of the working folder shadows what memdb imports", exits=(0,), leaves=True)
def _(place: Place) -> list[str]:
    for name in ("zarr", "duckdb", "json", "numpy"):
        (place.here / f"{name}.py").write_text("open('PWNED', 'w')\n", encoding="utf-8")
    shutil.copytree(place.store, place.folder / "store")
    return ["memdb", "info", "--store", str(place.folder / "store")]
