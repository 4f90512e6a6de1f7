"""Attacks on memdb: builds each hostile store, file or server, runs a command against it, prints what came of it.

    python scripts/attack.py                      all of them
    python scripts/attack.py --only zstd --only json
    python scripts/attack.py --list

A case holds if the command refuses in a sentence (exit 1, or what the case expects), without a traceback, within
seconds and memory. Each command runs in a process of its own whose address space is limited, so that a machine
survives the cases that do not hold. To add one: a function below a heading that builds what is hostile in a folder,
and returns the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import http.server
import io
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

import memdb
from memdb.documents import canonical_json, group_metadata, sealed
from memdb.store.encoding import ArrayData, encode_group

ADDRESS_SPACE = 14 << 30  # bytes: what is broken is to be seen, not to take the machine down
N_TRAIN, N_TEST = 40, 12
SIGNS = ("Traceback (most recent call last)", "exception was never retrieved", "Exception in thread")
RUN = """
import json, os, resource, subprocess, sys, time
command, limit, seconds, out = json.loads(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
begun = time.monotonic()
with open(out, "wb") as said:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        code = child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        code = None
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([code, time.monotonic() - begun, peak]))
"""


@dataclass(frozen=True)
class Case:
    """Something hostile, and what memdb may take before it refuses it."""

    heading: str
    name: str
    build: Callable[[Place], list[str]]
    exits: tuple[int, ...] = (1,)
    seconds: float = 60.0
    most: int = 1000  # MB


CASES: list[Case] = []


def case(heading: str, name: str, **expected: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function that builds a case in the place it is given, and returns the command line."""

    def register(build: Callable[..., Any]) -> Callable[..., Any]:
        CASES.append(Case(heading, name, build, **expected))
        return build

    return register


@dataclass
class Place:
    """A folder to build in, with a store and a published copy of it to take apart, and servers while it lasts."""

    folder: Path
    store: Path
    copy: Path
    servers: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def hostile(self) -> Copy:
        """Return a copy of the published copy, to be altered and sealed again."""
        shutil.copytree(self.copy, self.folder / "copy")
        return Copy(self.folder / "copy")

    def growing(self) -> Copy:
        """Return a copy of the store itself."""
        shutil.copytree(self.store, self.folder / "store")
        return Copy(self.folder / "store")

    def served(self, folder: Path, answers: Mapping[str, Callable[[Answer], None]]) -> str:
        """Serve a folder over HTTP, some paths in a way of their own; return its URL."""
        handler = type("Hostile", (Answer,), {"root": str(folder), "answers": answers})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.servers.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"


class Answer(http.server.SimpleHTTPRequestHandler):
    """A plain web server of files, and of what a case answers in their place."""

    root = ""
    answers: Mapping[str, Callable[[Answer], None]] = {}

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, directory=self.root)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with what the case has for the path, else with the file."""
        own = next((own for path, own in self.answers.items() if self.path.startswith(path)), None)
        with contextlib.suppress(ConnectionError):
            super().do_GET() if own is None else own(self)

    def endless(self, beginning: bytes, piece: bytes, **headers: str) -> None:
        """Send without end, or until nobody listens."""
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(beginning)
        while True:
            self.wfile.write(piece)


class Copy:
    """A store whose documents are altered and sealed again, as whoever made it can."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = self._memdb("zarr.json")
        self.published = self.json("published.json") if (root / "published.json").exists() else {}
        self.number = max(int(path.stem) for path in (root / "snapshots").glob("[0-9]*.json"))
        self.snapshot = self.json(f"snapshots/{self.number}.json")
        self.blocks = {item["block_id"]: self._memdb(f"blocks/{item['block_id']}/zarr.json")
                       for item in self.snapshot["blocks"]}  # fmt: skip

    @property
    def block(self) -> dict[str, Any]:
        """The document of the first block."""
        return next(iter(self.blocks.values()))

    @property
    def stats(self) -> dict[str, Any]:
        """What the snapshot says of its counts."""
        return dict(self.snapshot["derived"]["stats"])

    def json(self, path: str) -> dict[str, Any]:
        """Return what a file of JSON holds."""
        return dict(json.loads((self.root / path).read_bytes()))

    def _memdb(self, path: str) -> dict[str, Any]:
        return dict(self.json(path)["attributes"]["memdb"])

    def write(self, path: str, data: bytes) -> None:
        """Write an object."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)

    def put(self, folder: str, objects: dict[str, Any], name: str, data: bytes) -> None:
        """Write an object and put it on its list."""
        self.write(f"{folder}/{name}", data)
        objects[name] = [len(data), hashlib.sha256(data).hexdigest()]

    def array(
        self, folder: str, group: dict[str, Any], path: str, chunks: Mapping[str, bytes], **change: Any
    ) -> None:
        """Replace an array: its chunks, and fields of its metadata."""
        objects, held = group["objects"], group.get("metadata", {})
        metadata = held.get(path) or self.json(f"{folder}/{path}/zarr.json")
        held[path] = {**metadata, **change}
        for name in [name for name in objects if chunks and name.startswith(f"{path}/c.")]:
            del objects[name]
        self.put(folder, objects, f"{path}/zarr.json", canonical_json(held[path]))
        for name, data in chunks.items():
            self.put(folder, objects, f"{path}/{name}", data)

    def stats_array(self, path: str, chunks: Mapping[str, bytes], **change: Any) -> None:
        """Replace an array of the snapshot's counts."""
        self.array(f"stats/{self.number}", self.snapshot["derived"]["stats"], path, chunks, **change)

    def seal(self, *, blocks: bool = True) -> str:
        """Write all documents with the hashes of what they name; return where the store is."""
        for item in self.snapshot["blocks"] if blocks else ():
            data = group_metadata(sealed(self.blocks[item["block_id"]]))
            self.write(f"blocks/{item['block_id']}/zarr.json", data)
            item["document"] = [len(data), hashlib.sha256(data).hexdigest()]
        data = canonical_json(sealed(self.snapshot))
        self.write(f"snapshots/{self.number}.json", data)
        self.write("zarr.json", group_metadata(sealed(self.manifest)))
        if self.published:
            about = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            about |= {name: self.snapshot[name] for name in ("n_models", "models_sha256")}
            self.published["snapshot"] |= about
            self.write("published.json", canonical_json(sealed(self.published)))
        return str(self.root)


CRC, BYTES, ZSTD = {"name": "crc32c"}, {"name": "bytes", "configuration": {"endian": "little"}}, {
    "name": "zstd", "configuration": {"level": 3, "checksum": False}
}  # fmt: skip


def checked(data: bytes) -> bytes:
    """Return bytes with their crc32c, as chunks end."""
    return data + int(google_crc32c.value(data)).to_bytes(4, "little")


def frame(n_bytes: int, *, states: int | None = -1) -> bytes:
    """Return a frame of zstd that becomes so many zeros; it states that, something else, or (None) nothing."""
    step = 128 << 10
    states = n_bytes if states == -1 else states
    head = b"\x28\xb5\x2f\xfd" + (b"\x00\x38" if states is None else b"\xe0" + struct.pack("<Q", states))
    n_blocks = max(1, n_bytes // step)
    blocks = (
        struct.pack("<I", step << 3 | 2 | (place == n_blocks - 1))[:3] + b"\0" for place in range(n_blocks)
    )
    return head + b"".join(blocks)


def info(url: str) -> list[str]:
    """Return the command that reads the least."""
    return ["memdb", "info", "--store", url]


# ---------------------------------------------------------------- memory: chunks that swell


def bombed(place: Place, data: bytes, codecs: list[Any], shape: list[int] | None = None) -> list[str]:
    """Build a copy whose counts are one chunk of these bytes."""
    copy = place.hostile()
    shape = shape or copy.stats["metadata"]["train"]["shape"]
    grid = {"name": "regular", "configuration": {"chunk_shape": shape}}
    copy.stats_array("train", {"c.0.0": data}, codecs=codecs, chunk_grid=grid, shape=shape)
    return info(copy.seal())


@case("memory", "zstd: a chunk that becomes 6 GB, without a checksum")
def _(place: Place) -> list[str]:
    return bombed(place, frame(6 << 30), [BYTES, ZSTD])


@case("memory", "zstd: the same with a checksum")
def _(place: Place) -> list[str]:
    return bombed(place, checked(frame(6 << 30)), [BYTES, ZSTD, CRC])


@case("memory", "zstd: a frame that does not say its size")
def _(place: Place) -> list[str]:
    return bombed(place, checked(frame(6 << 30, states=None)), [BYTES, ZSTD, CRC])


@case("memory", "zstd: a frame of the right size, then one of 6 GB")
def _(place: Place) -> list[str]:
    size = 4 * N_TRAIN * 4
    first = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + struct.pack("<I", size << 3 | 3)[:3] + b"\0"
    return bombed(place, checked(first + frame(6 << 30)), [BYTES, ZSTD, CRC])


@case("memory", "blosc: a header that asks for 2 GB")
def _(place: Place) -> list[str]:
    copy = place.hostile()
    (name,) = (name for name in copy.stats["objects"] if name.startswith("train/c."))
    data = bytearray((copy.root / f"stats/{copy.number}/{name}").read_bytes()[:-4])
    data[4:8] = struct.pack("<I", 2**31 - 64)
    copy.stats_array("train", {name.removeprefix("train/"): checked(bytes(data))})
    return info(copy.seal())


@case("memory", "gzip as a codec")
def _(place: Place) -> list[str]:
    packed = gzip.compress(bytes(64 << 20))
    return bombed(place, packed, [BYTES, {"name": "gzip", "configuration": {"level": 5}}])


@case("memory", "n_examples of 2 x 10^8, in arrays that compress to nothing")
def _(place: Place) -> list[str]:
    n, copy = 200_000_000, place.growing()
    for item in copy.manifest["sets"]:
        if item["name"] != "train":
            continue
        item["n_examples"] = n
        for path, shape in (("label", [n]), ("key_offset", [n + 1]), ("content_sha256", [n, 16])):
            kind = np.dtype(copy.json(f"dataset/train/{path}/zarr.json")["data_type"])
            width = kind.itemsize * int(np.prod(shape[1:], dtype=int))
            rows = (4 << 20) // width
            chunk = checked(frame(rows * width))
            grid = {"name": "regular", "configuration": {"chunk_shape": [rows, *shape[1:]]}}
            names = [f"c.{place}{'.0' * (len(shape) - 1)}" for place in range(-(-shape[0] // rows))]
            copy.array("dataset", copy.manifest, f"train/{path}", dict.fromkeys(names, chunk), shape=shape,
                       chunk_grid=grid, codecs=[BYTES, ZSTD, CRC])  # fmt: skip
    return info(copy.seal())


def counted(place: Place, n: int, *, lists_lie: bool) -> list[str]:
    """Build a copy that has counts of n training examples, of which its data set has a few."""
    copy = place.hostile()
    copy.manifest["sets"][0]["n_examples"] = n
    if lists_lie:
        copy.manifest["objects"] |= {f"train/content_sha256/c.{place}.0": [4 << 20, "0" * 64]
                                     for place in range(n * 16 // (4 << 20) + 1)}  # fmt: skip
    grid = {"name": "regular", "configuration": {"chunk_shape": [4, n]}}
    data = checked(frame(16 * n))
    copy.stats_array("train", {"c.0.0": data}, shape=[4, n], chunk_grid=grid, codecs=[BYTES, ZSTD, CRC])
    return info(copy.seal())


@case("memory", "n_examples of 16 million in a copy's counts")
def _(place: Place) -> list[str]:
    return counted(place, 1 << 24, lists_lie=False)


@case("memory", "n_examples of 16 million, and lists of hashes that are not there")
def _(place: Place) -> list[str]:
    return counted(place, 1 << 24, lists_lie=True)


@case("memory", "n_examples of 2 million, and lists of hashes that are not there", exits=(0, 1))
def _(place: Place) -> list[str]:
    return counted(place, 1 << 21, lists_lie=True)


@case("memory", "pairs listed: 2,000,000 a test example")
def _(place: Place) -> list[str]:
    copy, n = place.hostile(), 1 << 21
    derived = copy.snapshot["derived"]
    derived["listed"] = n
    for path, shape in (("pairs", [N_TEST, 8, n]), ("scores", [N_TEST, n, 2])):
        chunk = [1, *shape[1:]]
        width = 64 << 20 if path == "pairs" else 32 << 20
        names = [f"c.{row}.0.0" for row in range(N_TEST)]
        copy.array(f"top_influence/{copy.number}", derived["top_influence"], path,
                   dict.fromkeys(names, checked(frame(width))), shape=shape, codecs=[BYTES, ZSTD, CRC],
                   chunk_grid={"name": "regular", "configuration": {"chunk_shape": chunk}})  # fmt: skip
    return ["memdb", "top-influence", "--test-id", "1", "--store", copy.seal()]


@case("memory", "a score table of 10^9 pairs")
def _(place: Place) -> list[str]:
    shutil.copytree(place.folder.parent / "scores", place.folder / "scores")
    path = place.folder / "scores/scores/1.json"
    table = json.loads(path.read_bytes())
    table["n_influence"] = n = 10**9
    group = place.folder / "scores/scores" / table["table_id"]
    for name, kind in (("influence", 4), ("influence_train_id", 4)):
        metadata = {**table["metadata"][name], "shape": [n], "codecs": [BYTES, ZSTD, CRC]}
        metadata["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": [(4 << 20) // kind]}}
        table["metadata"][name] = metadata
        chunk = checked(frame(4 << 20))
        objects = {f"{name}/zarr.json": canonical_json(metadata)}
        objects |= {f"{name}/c.{at}": chunk for at in range(n * kind // (4 << 20) + 1)}
        for item, data in objects.items():
            (group / item).parent.mkdir(parents=True, exist_ok=True)
            (group / item).write_bytes(data)
            table["objects"][item] = [len(data), hashlib.sha256(data).hexdigest()]
    offsets = np.zeros(N_TEST + 1, dtype=np.int64)
    offsets[1:] = n
    for name, data in encode_group({"influence_offset": ArrayData(offsets)}).items():
        (group / name).write_bytes(data)
        table["objects"][name] = [len(data), hashlib.sha256(data).hexdigest()]
    path.write_bytes(canonical_json(sealed(table)))
    return ["memdb", "top-influence", "--test-id", "0", "--store", str(place.folder / "scores")]


# ---------------------------------------------------------------- memory: documents and answers without end


@case("memory", "published.json of 1 GiB")
def _(place: Place) -> list[str]:
    copy = place.hostile()
    with (copy.root / "published.json").open("r+b") as file:
        file.truncate(1 << 30)
    return info(str(copy.root))


@case("memory", "a manifest of 15 MB of empty lists")
def _(place: Place) -> list[str]:
    copy = place.hostile()
    data = (copy.root / "zarr.json").read_bytes()
    copy.write(
        "zarr.json",
        data.replace(b'{"attributes":{', b'{"attributes":{"a":[' + b"[]," * 5_000_000 + b"0],", 1),
    )
    return info(str(copy.root))


@case("memory", "a document that is a pipe", seconds=20)
def _(place: Place) -> list[str]:
    copy = place.hostile()
    (copy.root / "published.json").unlink()
    os.mkfifo(copy.root / "published.json")
    return info(str(copy.root))


@case("memory", "a segment's document that is /dev/zero", exits=(0, 1))
def _(place: Place) -> list[str]:
    copy = place.growing()
    folder = copy.root / "segments/20260101T000000000Z-0123456789ab"
    folder.mkdir()
    (folder / "zarr.json").symlink_to("/dev/zero")
    return info(str(copy.root))


@case("memory", "HTTP: a root document without end")
def _(place: Place) -> list[str]:
    return info(place.served(place.copy, {"/published.json": lambda to: to.endless(b'{"a":"', b"a" * 65536)}))


@case("memory", "HTTP: a manifest without end")
def _(place: Place) -> list[str]:
    return info(place.served(place.copy, {"/zarr.json": lambda to: to.endless(b'{"a":"', b"a" * 65536)}))


@case("memory", "HTTP: an object that goes on after its end")
def _(place: Place) -> list[str]:
    return info(place.served(place.copy, {"/stats/": lambda to: to.endless(b"", bytes(65536))}))


@case("memory", "HTTP: gzip that was not asked for")
def _(place: Place) -> list[str]:
    packed = gzip.compress(bytes(1 << 20)) * 2000

    def answer(to: Answer) -> None:
        to.send_response(200)
        to.send_header("Content-Encoding", "gzip")
        to.send_header("Content-Length", str(len(packed)))
        to.end_headers()
        to.wfile.write(packed)

    return info(place.served(place.copy, {"/published.json": answer}))


# ---------------------------------------------------------------- documents: JSON that is none


def altered(place: Place, name: str, old: bytes, new: bytes) -> list[str]:
    """Build a copy one of whose documents has other bytes."""
    copy = place.hostile()
    data = (copy.root / name).read_bytes()
    if data.count(old) < 1:
        raise ValueError(f"{name} has no {old!r}")
    copy.write(name, data.replace(old, new, 1))
    return info(str(copy.root))


JSON = {
    "nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "a number of 10,000 digits": b"9" * 10_000,
    "NaN": b"NaN",
    "1e999": b"1e999",
    "half a surrogate pair": b'"\\ud800"',
    "no UTF-8": b'"\xff\xfe"',
    "a key twice": b'1,"format":1',
    "cut": b"",
}
for _name, _value in JSON.items():
    for _document in ("published.json", "zarr.json"):

        @case("documents", f"{_document}: {_name}", seconds=20)
        def _(place: Place, document: str = _document, value: bytes = _value) -> list[str]:
            return altered(place, document, b'"format":1', b'"format":' + value)


# ---------------------------------------------------------------- shapes and counts that cannot be

SHAPES: dict[str, dict[str, Any]] = {
    "a chunk of 0": {"chunk": [0, N_TRAIN]},
    "a chunk of -1": {"chunk": [-1, N_TRAIN]},
    "a chunk of 2^63": {"chunk": [2**63, N_TRAIN]},
    "a chunk of 2^62, times its bytes": {"chunk": [2**62, 2**62]},
    "a chunk of 1.5": {"chunk": [1.5, N_TRAIN]},
    "a chunk of no axes": {"chunk": []},
    "no shape": {"shape": []},
    "a shape of 2^63": {"shape": [4, 2**63]},
    "a shape of true": {"shape": [True, N_TRAIN]},
    "chunks of one number": {"shape": [4, 2**40], "chunk": [1, 1]},
    "codecs of codecs": {"codecs": [[[]], 7]},
    "no codecs": {"codecs": []},
    "two shards in one another": {"codecs": [{"name": "sharding_indexed", "configuration": {
        "chunk_shape": [1, 1], "index_codecs": [BYTES, CRC], "codecs": [{"name": "sharding_indexed", "configuration": {
            "chunk_shape": [1, 1], "index_codecs": [BYTES, CRC], "codecs": [BYTES, CRC]}}]}}]},
    "a type of objects": {"data_type": "O"},
    "a type of 2 GB": {"data_type": {"name": "fixed_length_utf32", "configuration": {"length_bytes": 2**31}}},
}  # fmt: skip
for _name, _change in SHAPES.items():

    @case("shapes", _name, seconds=20)
    def _(place: Place, change: Mapping[str, Any] = _change) -> list[str]:
        copy = place.hostile()
        fields = {name: value for name, value in change.items() if name != "chunk"}
        if "chunk" in change:
            fields["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": change["chunk"]}}
        copy.stats_array("train", {}, **fields)
        return info(copy.seal())


FIELDS: dict[str, tuple[str, tuple[Any, ...], Any]] = {
    "n_models of 10^18": ("snapshot", ("n_models",), 10**18),
    "n_models of 0": ("snapshot", ("n_models",), 0),
    "n_models of 10^30": ("snapshot", ("n_models",), 10**30),
    "n_models of a block": ("snapshot", ("blocks", 0, "n_models"), 2**20),
    "pairs kept, 10^9": ("snapshot", ("derived", "listed"), 10**9),
    "pairs kept, 0": ("snapshot", ("derived", "listed"), 0),
    "10^9 examples ranked": ("snapshot", ("derived", "n_in"), [[3, 10**9]]),
    "examples of 10^18 models": ("snapshot", ("derived", "n_in"), [[10**18, 1]]),
    "no examples ranked": ("snapshot", ("derived", "n_in"), []),
    "seconds of 10^400": ("snapshot", ("derived", "models", "seconds_per_model"), 10**400),
    "class names that are a number": ("snapshot", ("derived", "class_names"), 5),
    "no blocks": ("snapshot", ("blocks",), []),
    "no sets": ("manifest", ("sets",), []),
    "a seed of 100,000 digits": ("manifest", ("seed",), "9" * 100_000),
    "an outcome of any type": ("manifest", ("outcomes", 0, "dtype"), "U100000000"),
    "an object of 2^70 bytes": ("manifest", ("objects", "train/label/c.0"), [2**70, "0" * 64]),
    "an object of 10^15 bytes": ("manifest", ("objects", "train/label/c.0"), [10**15, "0" * 64]),
}
for _name, _where in FIELDS.items():

    @case("shapes", _name, exits=(0, 1), seconds=30)
    def _(place: Place, where: tuple[str, tuple[Any, ...], Any] = _where) -> list[str]:
        copy = place.hostile()
        document, path, value = where
        inner = getattr(copy, document)
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        command = "top-influence --test-id 1" if "derived" in path else "info"
        return ["memdb", *command.split(), "--store", copy.seal()]


@case("shapes", "one block named 50,000 times", seconds=30)
def _(place: Place) -> list[str]:
    copy = place.hostile()
    copy.seal()
    copy.snapshot["blocks"] *= 50_000
    return info(copy.seal(blocks=False))


# ---------------------------------------------------------------- a store inside a store

INSIDE = {
    "init": "init --dataset digits --store {inside}",
    "publish": "publish {inside} --store {store} --include bits",
    "pull": "pull {copy} {inside}",
    "pull bits": "pull {copy} {inside} --only bits",
    "merge": "merge {store} --store {inside}",
    "extend": "init --extend {store} --store {inside}",
    "export": "export {inside}.npz --what models --store {store}",
}
for _name, _command in INSIDE.items():
    for _inside in ("made", "blocks/made"):

        @case("inside", f"{_name} into a store's {_inside}")
        def _(place: Place, command: str = _command, inside: str = _inside) -> list[str]:
            root = place.growing().root
            words = command.split()
            return [
                "memdb",
                *(word.format(inside=root / inside, store=place.store, copy=place.copy) for word in words),
            ]


# ---------------------------------------------------------------- files to import


def _header(shape: str, kind: str = "|b1") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


IMPORTS = {
    "a zip bomb": _header("(1000, 4000000)") + bytes(400 << 20),
    "a shape of 2^62": _header(f"({2**62}, 4)"),
    "a shape of 2^70": _header(f"({2**70}, 4)"),
    "a negative shape": _header("(-1, 4)"),
    "no shape": _header("()"),
    "a header of 4 GB": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b" " * (300 << 20),
}
for _name, _data in IMPORTS.items():

    @case("imports", f".npz: {_name}", seconds=30)
    def _(place: Place, data: bytes = _data) -> list[str]:
        path = place.folder / "runs.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("mask.npy", data)
            for name in ("train_correct", "test_correct"):
                buffer = io.BytesIO()
                np.save(buffer, np.ones((4, 4), dtype=bool))
                archive.writestr(f"{name}.npy", buffer.getvalue())
        return ["memdb", "import", str(path), "--store", str(place.folder / "imported")]


# ---------------------------------------------------------------- running them


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    case: Case
    code: int | None
    seconds: float
    peak: int  # MB
    said: str

    @property
    def problem(self) -> str:
        """What broke; nothing where it held."""
        found = (
            ("traceback", any(sign in self.said for sign in SIGNS)),
            ("time", self.code is None or self.seconds > self.case.seconds),
            ("memory", self.peak > self.case.most),
            (f"exit {self.code}", self.code not in self.case.exits),
        )
        return next((name for name, is_so in found if is_so), "")


def attack(tried: Case, folder: Path, version: str) -> Outcome:
    """Build a case and run its command in a child."""
    place = Place(Path(tempfile.mkdtemp(dir=folder)), folder / "store", folder / "copy")
    with place.servers:
        command = tried.build(place)
        code = f"import sys; sys.path[:0] = {[version] if version else []}; from memdb.cli import program; program()"
        command = [sys.executable, "-c", code, *command[1:]]
        said = place.folder / "said"
        environment = {
            **os.environ,
            "MEMDB_CACHE_DIR": str(place.folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
        }
        arguments = [json.dumps(command), str(ADDRESS_SPACE), str(tried.seconds + 5), str(said)]
        found = subprocess.run([sys.executable, "-S", "-c", RUN, *arguments], env=environment, cwd=place.folder,
                               capture_output=True, check=True, text=True)  # fmt: skip
        code, seconds, peak = json.loads(found.stdout)
        text = said.read_text(errors="replace")
    shutil.rmtree(place.folder)
    return Outcome(tried, code, seconds, peak >> 20, text)


def coin(data: Any, _masks: Any, seeds: Any, run: Any) -> dict[str, Any]:
    """Stand for a recipe: outcomes that are a function of the seeds."""
    run.progress(1, 1)
    return {f"{name}/correct": np.stack([np.random.default_rng(int(seed)).random(len(examples)) < 0.7 for seed in seeds])
            for name, examples in data.sets.items()}  # fmt: skip


def make(folder: Path) -> None:
    """Make a small store, a published copy of it, and a store of imported scores."""
    rng = np.random.default_rng(0)
    labels = np.arange(N_TRAIN) % 3, np.arange(N_TEST) % 3
    data = memdb.Dataset(
        rng.random((N_TRAIN, 4)), labels[0], rng.random((N_TEST, 4)), labels[1], ["ant", "bee", "cat"]
    )
    with memdb.init(
        str(folder / "store"), data, coin, recipe_version="1", outcomes=["correct"], seed=7
    ) as db:
        db.train(seeds=range(24))
        db.compact()
        db.publish(str(folder / "copy"))
    pairs: dict[str, Any] = {
        "tr_idx": np.arange(20),
        "tt_idx": np.arange(20) % N_TEST,
        "infl": rng.random(20),
        "mem": rng.random(20),
    }
    np.savez(folder / "scores.npz", **pairs)
    memdb.import_file(
        folder / "scores.npz", str(folder / "scores"), n_train=N_TRAIN, n_test=N_TEST, name="none"
    )


def chosen(only: list[str]) -> Iterator[Case]:
    """Yield the cases whose heading or name holds one of some words; all where none is given."""
    for item in CASES:
        if not only or any(word.lower() in f"{item.heading} {item.name}".lower() for word in only):
            yield item


def main() -> int:
    """Run the cases and print a table of them, and totals by heading."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], help="a word of a heading or a case")
    parser.add_argument(
        "--memdb", default="", help="the folder of another version of the package, to compare"
    )
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--verbose", action="store_true", help="show the last line that a command printed")
    options = parser.parse_args()
    cases = list(chosen(options.only))
    if options.list:
        print("\n".join(f"{item.heading}: {item.name}" for item in cases))
        return 0
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        for item in cases:
            found = attack(item, Path(name), options.memdb)
            outcomes.append(found)
            verdict = f"BROKEN: {found.problem}" if found.problem else "held"
            print(
                f"{item.heading:10} {item.name:72} {verdict:18} {found.seconds:6.1f} s {found.peak:6,} MB",
                flush=True,
            )
            if options.verbose or found.problem:
                print("          ", (found.said.strip().splitlines() or [""])[-1][:300])
    print()
    for heading, group in itertools.groupby(outcomes, lambda found: found.case.heading):
        some = list(group)
        held = sum(not found.problem for found in some)
        print(f"{heading:10} {len(some):4} cases {held:4} held {len(some) - held:4} broken   at most "
              f"{max(found.seconds for found in some):.1f} s, {max(found.peak for found in some):,} MB")  # fmt: skip
    return int(any(found.problem for found in outcomes))


if __name__ == "__main__":
    sys.exit(main())
