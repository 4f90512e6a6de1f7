"""Malformed JSON, impossible numbers, stores inside stores, and files to import."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from attacks.harness import BYTES, CRC, N_TRAIN, Place, case, info

# ---------------------------------------------------------------- documents: malformed JSON


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


# ---------------------------------------------------------------- impossible shapes and counts

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
