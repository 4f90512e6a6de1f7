"""Stores, files and servers that would take a machine's memory."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import struct
from typing import Any

import numpy as np

from attacks.harness import BYTES, CRC, N_TEST, N_TRAIN, ZSTD, Answer, Place, case, checked, frame, info
from memdb.format.documents import canonical_json, sealed
from memdb.store.encoding import ArrayData, encode_group

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
