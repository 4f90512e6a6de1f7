"""Building hostile stores and surroundings, running memdb against them in a child, and judging what came of it."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

import memdb
from memdb.format.documents import canonical_json, group_metadata, sealed

ADDRESS_SPACE = 14 << 30  # bytes: what is broken is to be seen, not to take the machine down
N_TRAIN, N_TEST = 40, 12
SIGNS = ("Traceback (most recent call last)", "exception was never retrieved", "Exception in thread")
RUN = """
import json, resource, subprocess, sys, time
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
PROGRAM = """#!{python}
import sys
sys.path[:0] = {version!r}
from memdb.cli import program
program()
"""


@dataclass(frozen=True)
class Case:
    """Something hostile or unlucky, and what memdb may take and say before it refuses it."""

    heading: str
    name: str
    build: Callable[[Place], list[str]]
    exits: tuple[int, ...] = (1,)
    seconds: float = 60.0
    most: int = 1000  # MB
    says: str = ""  # a part of what is printed
    leaves: bool = False  # files in the working folder


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
    version: list[str]  # the folder of another version of the package, or nothing
    servers: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def here(self) -> Path:
        """The working folder of the command: what a command leaves there is seen."""
        return self.folder / "here"

    @property
    def thesis(self) -> Path:
        """A file that the user would miss."""
        return self.folder / "photos/thesis.txt"

    def hostile(self) -> Copy:
        """Return a copy of the published copy, to be altered and sealed again."""
        shutil.copytree(self.copy, self.folder / "copy")
        return Copy(self.folder / "copy")

    def growing(self, name: str = "store") -> Copy:
        """Return a copy of the store itself, or of the one of digits."""
        shutil.copytree(self.store.with_name(name), self.folder / "store")
        return Copy(self.folder / "store")

    def script(self, text: str) -> list[str]:
        """Return the command that runs a Python program of the user's."""
        path = self.folder / "script.py"
        path.write_text(f"import sys\nsys.path[:0] = {self.version!r}\n{text}", encoding="utf-8")
        return ["python", str(path)]

    def served(self, folder: Path, answers: Mapping[str, Callable[[Answer], None]]) -> str:
        """Serve a folder over HTTP, some paths in a way of their own; return its URL."""
        handler = type("Hostile", (Answer,), {"root": str(folder), "answers": answers})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
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
        """Send without end, or until the client is gone."""
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(beginning)
        while True:
            self.wfile.write(piece)


class Copy:
    """A store whose documents are altered and sealed again, as its creator can."""

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
    """Return a zstd frame of n_bytes zeros that states this size, another one, or (None) none."""
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


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    case: Case
    code: int | None
    seconds: float
    peak: int  # MB
    said: str
    done: str  # to the user's files

    @property
    def problem(self) -> str:
        """What broke; nothing where it held."""
        found = (
            (self.done, bool(self.done)),
            ("traceback", any(sign in self.said for sign in SIGNS)),
            ("time", self.code is None or self.seconds > self.case.seconds),
            ("memory", self.peak > self.case.most),
            (f"exit {self.code}", self.code not in self.case.exits),
            (f"does not say {self.case.says}", self.case.says not in self.said),
        )
        return next((name for name, is_so in found if is_so), "")


def attack(tried: Case, folder: Path, version: str) -> Outcome:
    """Build a case and run its command in a child, in an empty folder and with an empty home."""
    place = Place(
        Path(tempfile.mkdtemp(dir=folder)), folder / "store", folder / "copy", [version] if version else []
    )
    for path in (place.here, place.folder / "home", place.folder / "bin", place.thesis.parent):
        path.mkdir()
    place.thesis.write_text("years of work", encoding="utf-8")
    program = place.folder / "bin/memdb"
    program.write_text(PROGRAM.format(python=sys.executable, version=place.version), encoding="utf-8")
    program.chmod(0o755)
    (place.folder / "bin/python").symlink_to(sys.executable)
    with place.servers:
        command = tried.build(place)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MEMDB_")},
            "PATH": f"{place.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(place.folder / "home"),
            "MEMDB_CACHE_DIR": str(place.folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }
        # the interpreter by its whole path: a symbolic link would lose its environment
        command = [sys.executable if command[0] == "python" else command[0], *command[1:]]
        arguments = [
            json.dumps(command),
            str(ADDRESS_SPACE),
            str(tried.seconds + 5),
            str(place.folder / "said"),
        ]
        found = subprocess.run([sys.executable, "-P", "-S", "-c", RUN, *arguments], env=environment, cwd=place.here,
                               capture_output=True, check=True, text=True)  # fmt: skip
        code, seconds, peak = json.loads(found.stdout)
        text = (place.folder / "said").read_text(errors="replace")
    done = _done(place, tried)
    shutil.rmtree(place.folder)
    return Outcome(tried, code, seconds, peak >> 20, text, done)


def _done(place: Place, tried: Case) -> str:
    """Return what happened to the user's files."""
    if list(place.folder.rglob("PWNED")):
        return "its code ran"
    if not place.thesis.is_file():
        return "files deleted"
    left = sorted(path.name for path in place.here.rglob("*") if path.is_file())
    return f"left {left[0]}" if left and not tried.leaves else ""


def coin(data: Any, _masks: Any, seeds: Any, run: Any) -> dict[str, Any]:
    """Stand for a recipe: outcomes that are a function of the seeds."""
    run.progress(1, 1)
    return {f"{name}/correct": np.stack([np.random.default_rng(int(seed)).random(len(examples)) < 0.7 for seed in seeds])
            for name, examples in data.sets.items()}  # fmt: skip


def make(folder: Path) -> None:
    """Make a small store, a published copy of it, a store of digits, and one of imported scores."""
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
    with memdb.init(
        str(folder / "digits"), "digits", coin, recipe_version="1", outcomes=["correct"], seed=7
    ) as db:
        db.train(seeds=range(2))
        db.compact()
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
