"""Wrong and empty values, malformed addresses, full disks and odd terminals."""

from __future__ import annotations

import shlex
from pathlib import Path

from attacks.harness import Place, case

WRONG = {
    "no number": "top-memorized -k many",
    "no whole number": "top-memorized -k 1.5",
    "a number below all": "top-memorized -k -1",
    "a number beyond all": "top-memorized -k 99999999999999999999999",
    "not a number": "plan --half-width nan",
    "infinity": "plan --n-ranked inf",
    "beyond integers": "plan --n-ranked 1e26",
    "an unknown outcome": "top-memorized --outcome no",
    "an unknown format": "info --format xml",
    "a fraction below 0": "top-memorized --assume-fraction -1",
    "a format and another suffix": "top-memorized -o x.csv -f json",
    "no such example": "score --train-id 99999 --test-id 0",
    "a size without a unit": "sql 'SELECT 1' --memory lots",
    "no seconds": "sql 'SELECT 1' --timeout soon",
    "seconds below 0": "sql 'SELECT 1' --timeout -1",
    "a cache for a folder": "info --cache-size 1GB",
    "an endpoint for a folder": "info --endpoint-url http://127.0.0.1:9",
    "a time that is a word": "train --add 1 --max-time soon",
    "models below 0": "train --add -1",
    "an output in no folder": "classes -o no/such/x.csv",
    "a test example that is not there": "top-influence --test-id 99",
}
ADDRESSES = ("http://[::1", "~nouser/x", "ftp://127.0.0.1:9/x", "http://a b/c", "s3://", "http://", "http://x:99999/y",
             "file://elsewhere/x", "gs://", "a\x01b", "x" * 5000, "http://127.0.0.1:9/x", "http://%zz/x", "//")  # fmt: skip
DOORS = ("info --store {}", "publish {} --store {store}", "pull {store} {}", "pull {} mine", "compare {store} {}",
         "merge {} --store mine", "init --extend {} --store mine", "train --add 1 --store {}")  # fmt: skip
EMPTY = ("info --store ''", "compare {store} ''", "pull '' mine", "pull {copy} ''", "publish '' --store {store}",
         "merge '' --store mine", "init --store ''", "train --add 1 --store ''", "top-memorized --store {store} -o ''",
         "info --store {store} --cache-dir ''", "init --dataset '' --store mine", "init --recipe '' --store mine",
         "import '' --store mine", "export '' --what models --store {store}", "sql '' --store {store}",
         "train --add 1 --data-root '' --store {store}", "info --store {store} --format ''")  # fmt: skip
UNSET = ("MEMDB_STORE", "MEMDB_CACHE_DIR", "MEMDB_CACHE_SIZE")
STREAMS = {
    "stdout closed": "{} >&-",
    "stdout and stderr closed": "{} >&- 2>&-",
    "stdout full": "{} >/dev/full",
    "both full": "{} >/dev/full 2>/dev/full",
    "stdin closed": "{} <&-",
    "ASCII": "PYTHONIOENCODING=ascii {}",
    "cp1252": "PYTHONIOENCODING=cp1252 {}",
    "no locale": "LC_ALL=C LANG= {}",
    "a terminal of 1 column": "COLUMNS=1 {}",
    "a terminal of no columns": "COLUMNS=0 {}",
    "columns that are no number": "COLUMNS=x {}",
    "a pipe that closes": "{} | head -c 1",
    "HOME unset": "env -u HOME {}",
    "HOME that is a file": "HOME=/dev/null {}",
}
FULL = {
    "info": "--help",
    "sql": "sql 'SELECT * FROM train' --store {store}",
    "csv": "top-memorized -f csv --store {store}",
}


def _shell(place: Place, words: str) -> list[str]:
    """Return a shell's command line."""
    return ["sh", "-c", words.replace("{store}", str(place.store)).replace("{copy}", str(place.copy))]


for _name, _words in WRONG.items():

    @case("cli", f"{_name}: {_words}", exits=(1, 2), seconds=30)
    def _(place: Place, words: str = _words) -> list[str]:
        return ["memdb", *shlex.split(words), "--store", str(place.store)]


for _at, _address in enumerate(ADDRESSES):
    for _door in (*DOORS, *DOORS)[_at % len(DOORS) :][:3]:

        @case("cli", f"{_door.format('URL', store='STORE')}: {_address[:20]!r}", exits=(1, 2), seconds=40)
        def _(place: Place, door: str = _door, address: str = _address) -> list[str]:
            store = str(place.growing().root)
            return ["memdb", *(word.format(address, store=store) for word in door.split())]


for _words in EMPTY:

    @case("cli", _words, exits=(1, 2), seconds=30)
    def _(place: Place, words: str = _words) -> list[str]:
        return _shell(place, f"memdb {words}")


for _variable in UNSET:

    @case("cli", f"{_variable} is empty", exits=(0, 1, 2), seconds=30)
    def _(place: Place, variable: str = _variable) -> list[str]:
        return _shell(place, f"{variable}= memdb info --store {{store}}")


for _name, _how in STREAMS.items():
    for _what, _words in {"info": "info --store {store}", **FULL}.items():

        @case("cli", f"{_name}: {_what}", exits=(0, 1, 141), seconds=30)
        def _(place: Place, how: str = _how, words: str = _words) -> list[str]:
            return _shell(place, how.replace("{}", f"memdb {words}"))


@case("cli", "train where nothing is, into a place that was named", exits=(1,), seconds=30)
def _(place: Place) -> list[str]:
    return ["memdb", "train", "--add", "1", "--store", str(place.folder / "nothing")]


@case("cli", "export of models to a full disk", exits=(1,), seconds=30)
def _(place: Place) -> list[str]:
    _ = place.here
    return _shell(place, "memdb export /dev/full --what models --store {store}")


@case("cli", "a store that is a symbolic link to itself", exits=(1,), seconds=30)
def _(place: Place) -> list[str]:
    loop = Path(place.folder / "loop")
    loop.symlink_to(loop)
    return ["memdb", "info", "--store", str(loop)]


@case("cli", "a store that may not be read", exits=(0, 1), seconds=30)
def _(place: Place) -> list[str]:
    root = place.growing().root
    (root / "zarr.json").chmod(0)
    return ["memdb", "info", "--store", str(root)]
