"""Arrays of strangers: what their chunks become has a bound, and what they say of themselves is checked."""

from __future__ import annotations

import json
import struct

import google_crc32c
import numpy as np
import pytest
from support.bombs import ZEROS, documents_info

from memdb.errors import DamagedError
from memdb.storage import open_storage
from memdb.store.encoding import ArrayData, BandEncoder, ChunkEncoder, describe, encode_group
from memdb.store.read_arrays import GroupReader
from memdb.store.stated import Stated, stated


def checked(data):
    return data + google_crc32c.value(data).to_bytes(4, "little")


def frame(n_bytes, *, states=-1):
    """A zstd frame of n_bytes zeros that states this size, another one, or none."""
    step = 128 << 10
    states = n_bytes if states == -1 else states
    head = b"\x28\xb5\x2f\xfd" + (b"\x00\x38" if states is None else b"\xe0" + struct.pack("<Q", states))
    last = n_bytes // step - 1
    return head + b"".join(
        struct.pack("<I", step << 3 | 2 | (n == last))[:3] + b"\0" for n in range(last + 1)
    )


def written(folder, objects):
    storage = open_storage(str(folder))
    storage.write_all({f"group/{name}": data for name, data in objects.items()})
    return GroupReader(storage, "group", describe(objects))


SHAPE = (1024, 512)  # of float32: 2 MiB, one chunk
VALUES = np.arange(1024 * 512, dtype=np.float32).reshape(SHAPE)
RIGHT = VALUES.nbytes
BOMBS = {
    "it says so": frame(ZEROS),
    "it says something smaller": frame(ZEROS, states=RIGHT),
    "it does not say": frame(ZEROS, states=None),
    "a second frame": frame(RIGHT) + frame(ZEROS),
    "too little": frame(RIGHT // 2),
    "too little, which it denies": frame(RIGHT // 2, states=RIGHT),
    "a frame to skip": b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + frame(RIGHT),
    "nothing": b"",
    "noise": bytes(range(200)),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_chunk_of_zstd_becomes_what_its_array_says_or_nothing(tmp_path, peak, bomb):
    objects = encode_group({"values": ArrayData(VALUES)})
    reader = written(tmp_path, {**objects, "values/c.0.0": checked(bomb)})
    with pytest.raises(DamagedError, match=r"group/values cannot be decoded"):
        reader.read("values", SHAPE, "float32")
    assert peak() < ZEROS // 2


@pytest.mark.parametrize(("at", "value"), [(4, ZEROS), (4, 2**32 - 1), (4, RIGHT // 2), (8, 1), (12, 5)])
def test_a_chunk_of_blosc_becomes_what_its_array_says_or_nothing(tmp_path, peak, at, value):
    numbers = np.arange(1024 * 512, dtype=np.int32).reshape(SHAPE)
    encoder = ChunkEncoder("values", SHAPE, "int32", 1024)
    data = bytearray(encoder.encode(0, numbers)[:-4])
    data[at : at + 4] = struct.pack("<I", value)
    reader = written(tmp_path, {**encoder.metadata, "values/c.0.0": checked(bytes(data))})
    with pytest.raises(DamagedError, match=r"group/values cannot be decoded"):
        reader.read("values", SHAPE, "int32")
    assert peak() < ZEROS // 2


def test_a_chunk_inside_a_shard_has_its_bound_too(tmp_path, peak):
    shape = (4096, 64)
    encoder = BandEncoder("values", shape, "float16", sharded=True)
    (objects,) = encoder.encode(0, np.zeros(shape, dtype=np.float16))
    ((name, shard),) = objects.items()
    n_inner = len(np.frombuffer(shard[-68:-4], "<u8")) // 2
    bomb = checked(frame(ZEROS, states=128 << 10))
    index = b"".join(struct.pack("<QQ", 0, len(bomb)) for _ in range(n_inner))
    reader = written(tmp_path, {**encoder.metadata, name: bomb + checked(index)})
    for rows in (None, (0, 3)):
        with pytest.raises(DamagedError, match="cannot be decoded"):
            reader.read("values", shape, "float16", rows)
    assert peak() < ZEROS // 2


def test_what_memdb_writes_decodes_to_itself(tmp_path):
    shape = (4096, 64)
    band, counts = (
        BandEncoder("band", shape, "float16", sharded=True),
        ChunkEncoder("counts", shape, "int32", 100),
    )
    halves = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    numbers = np.arange(4096 * 64, dtype=np.int32).reshape(shape)
    objects = {
        **band.metadata,
        **counts.metadata,
        **encode_group({"bytes": ArrayData(numbers.astype(np.uint8))}),
    }
    for some in band.encode(0, halves):
        objects |= some
    for start in range(0, 4096, 100):
        objects[counts.name(start)] = counts.encode(start, numbers[start : start + 100])
    reader = written(tmp_path, objects)
    assert (reader.read("band", shape, "float16") == halves).all()
    assert (reader.read("band", shape, "float16", (1000, 1010)) == halves[1000:1010]).all()
    assert (reader.read("counts", shape, "int32", (90, 210)) == numbers[90:210]).all()
    assert (reader.read("bytes", (None, 64), "uint8") == numbers.astype(np.uint8)).all()


BYTES, CRC, ZSTD = {"name": "bytes"}, {"name": "crc32c"}, {"name": "zstd"}
LIMITLESS = {"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 1], "codecs": [BYTES, CRC],
                                                            "index_codecs": [BYTES, ZSTD, CRC]}}  # fmt: skip
STATEMENTS = [
    {"shape": [-1, 2]}, {"shape": [2**63, 2]}, {"shape": [True, 2]}, {"shape": [1.0, 2]}, {"shape": []}, {"shape": 5},
    {"data_type": "O"}, {"data_type": "U100000000"}, {"data_type": {"name": "struct"}}, {"zarr_format": 2},
    {"node_type": "group"}, {"chunk_key_encoding": {"name": "v2"}}, {"chunk_grid": None}, {"codecs": None},
    {"codecs": []}, {"codecs": [BYTES]}, {"codecs": [BYTES, ZSTD]}, {"codecs": [BYTES, CRC, ZSTD]}, {"codecs": [[]]},
    {"codecs": [BYTES, ZSTD, ZSTD, CRC]}, {"codecs": [BYTES, {"name": "gzip"}]}, {"codecs": [LIMITLESS]},
    {"codecs": [{"name": "sharding_indexed"}]}, {"codecs": [{"name": "transpose"}, BYTES, CRC]},
]  # fmt: skip
CHUNKS = [
    [0, 2],
    [-1, 2],
    [2**63, 2],
    [2**62, 2**62],
    [1.5, 2],
    [True, 2],
    [3],
    [3, 2, 1],
    [],
    [2**20, 2**20],
]


@pytest.mark.parametrize(
    "change",
    [
        *STATEMENTS,
        *({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": c}}} for c in CHUNKS),
    ],
    ids=str,
)
def test_an_array_is_as_memdb_writes_it_or_damaged(change):
    (data,) = (
        v for k, v in encode_group({"a": ArrayData(np.zeros((3, 2), np.uint8))}).items() if "zarr" in k
    )
    metadata = json.loads(data)
    assert stated(metadata, "here").shape == (3, 2)
    with pytest.raises(DamagedError, match="here "):
        stated({**metadata, **change}, "here")


def array(shape, chunk, dtype="int32", inner=None):
    return Stated("here", shape, np.dtype(dtype), chunk, inner, ("bytes", "zstd", "crc32c"))


def listed(*sizes):
    return {f"a/c.{place}.0": documents_info(size) for place, size in enumerate(sizes)}


@pytest.mark.parametrize(
    ("item", "sizes", "problem"),
    [
        (array((2**40, 1), (1, 1)), [100], "has 1,099,511,627,776 chunks, of which 1 are listed"),
        (array((100, 10), (100, 10)), [10_000], "an object of 10,000 bytes for chunks of 4,000"),
        (
            array((2**14, 2**11), (2**14, 2**11)),
            [1000],
            "takes 134,217,728 bytes, and its objects have 1,000",
        ),
        (
            array((2**12, 2**13), (2**10, 2**13)),
            [9, 9, 9, 9],
            "takes 134,217,728 bytes, and its objects have 36",
        ),
        (array((2**14, 1), (2**14, 1), inner=(1, 1)), [10**5], "has shards of 16,384 chunks"),
    ],
)
def test_an_array_takes_what_its_objects_can_hold(item, sizes, problem):
    with pytest.raises(DamagedError, match=problem):
        item.require_held("a", listed(*sizes), 0, None)


def test_sorted_labels_may_compress_as_they_like_where_the_keys_tell_how_many_they_are():
    labels = array((2**24, 1), (2**20, 1))
    with pytest.raises(DamagedError, match="takes 67,108,864 bytes"):
        labels.require_held("a", listed(*[200] * 16), 0, None)
    labels.require_held("a", listed(*[200] * 16), 2**24, None)
