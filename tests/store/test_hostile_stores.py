"""Stores and servers of strangers: every read has a bound before it starts, and ends in a sentence."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import os
import shutil
import struct
import threading
import tracemalloc

import google_crc32c
import numpy as np
import pytest
from support.stores import small_database

import memdb
from memdb.errors import DamagedError, InvalidInputError, MemdbError, WrongFormatError
from memdb.format import documents
from memdb.format.documents import MAX_DOCUMENT, canonical_json, group_metadata, sealed
from memdb.storage import open_storage
from memdb.store.encoding import ArrayData, BandEncoder, ChunkEncoder, describe, encode_group
from memdb.store.read_arrays import GroupReader
from memdb.store.stated import Stated, stated

MIB = 1 << 20
ZEROS = 64 * MIB  # what small bombs become


@pytest.fixture(scope="module")
def copy_of_all(trained, tmp_path_factory):
    """The folder of a published copy; look, do not touch."""
    place = tmp_path_factory.mktemp("copies") / "copy"
    with memdb.open(str(trained)) as db:
        db.publish(str(place))
    return place


@pytest.fixture
def copy(copy_of_all, tmp_path):
    """A published copy to do with as one likes."""
    return shutil.copytree(copy_of_all, tmp_path / "copy")


@pytest.fixture
def peak():
    """Measure what was taken at most, in bytes, since it was called first."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


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


def documents_info(size):
    from memdb.format.manifest import ObjectInfo

    return ObjectInfo(size, "0" * 64)


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


JSON = {
    "nested deep": b"[" * 100_000 + b"]" * 100_000,
    "nested some": b"[" * 900 + b"]" * 900,
    "a number of 10,000 digits": b"9" * 10_000,
    "NaN": b"NaN",
    "infinite": b"-Infinity",
    "1e999": b"1e999",
    "half a surrogate pair": b'"\\ud800"',
    "no UTF-8": b'"\xff"',
    "UTF-16": "{}".encode("utf-16"),
    "a key twice": b'1,"format":1',
    "nothing": b"",
}


@pytest.mark.parametrize("value", JSON.values(), ids=JSON)
@pytest.mark.parametrize("name", ["published.json", "zarr.json", "snapshots/1.json"])
def test_json_that_is_none_is_refused_in_a_sentence(copy, name, value):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data.replace(b'"format":1', b'"format":' + value, 1))
    with pytest.raises((WrongFormatError, DamagedError), match=name):
        memdb.open(str(copy)).info()


def test_a_document_has_a_bound(copy, peak):
    with (copy / "published.json").open("r+b") as file:
        file.truncate(1 << 40)  # a hole: nothing is written
    with pytest.raises(
        DamagedError, match="published.json has more than the 16,777,216 bytes that it may have"
    ):
        memdb.open(str(copy))
    assert peak() < 4 * MAX_DOCUMENT


def test_a_snapshot_of_a_hundred_thousand_models_is_read(copy):
    document = json.loads((copy / "snapshots/1.json").read_bytes())
    document["segments"] = [f"20260101T{n:09d}Z-{n:012x}" for n in range(100_000)]
    document["retracted"] = [f"{n:032x}" for n in range(100_000)]
    data = canonical_json(sealed(document))
    assert len(documents.parse_plain_document(data, "here")["segments"]) == 100_000
    assert len(data) < MAX_DOCUMENT / 2


def resealed(root, *, blocks=None, published=True, **changes):
    """Change the snapshot of a copy by functions of its document, and seal it as its owner can."""
    path = root / "snapshots/1.json"
    document = json.loads(path.read_bytes())
    for change in changes.values():
        change(document)
    data = canonical_json(sealed(document))
    path.write_bytes(data)
    root_document = json.loads((root / "published.json").read_bytes())
    root_document["snapshot"] |= {
        "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "n_models": document["n_models"]
    }  # fmt: skip
    (root / "published.json").write_bytes(canonical_json(sealed(root_document)))


CLAIMS = {
    "models without end": (lambda d: d.update(n_models=10**18), "counts 1,000,000,000,000,000,000 models"),
    "models beyond any number": (lambda d: d.update(n_models=10**30), r"n_models is 1000"),
    "a block of many": (lambda d: d["blocks"][0].update(n_models=2**20), "1,048,576 models in the"),
    "a block twice": (lambda d: d.update(blocks=d["blocks"] * 2), "names a block twice"),
    "pairs without end": (lambda d: d["derived"].update(listed=10**9), "more than its 23 training examples"),
    "ranked without end": (lambda d: d["derived"].update(n_in=[[3, 10**9]]), "more than its 23 training examples"),
    "of models without end": (lambda d: d["derived"].update(n_in=[[10**9, 1]]), "more than its 23 training examples"),
    "a time beyond all": (
        lambda d: d["derived"]["models"].update(seconds_per_model=10**400), "seconds_per_model is 1000",
    ),
    "metadata nested": (lambda d: d["derived"]["stats"].update(metadata={"a": nested(40)}), "metadata is"),
}  # fmt: skip


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(("change", "problem"), CLAIMS.values(), ids=CLAIMS)
def test_a_snapshot_claims_no_more_than_it_can_hold(copy, change, problem):
    resealed(copy, change=change)
    with pytest.raises((WrongFormatError, DamagedError), match=problem):
        memdb.open(str(copy)).top_influence(test_id=1)


MANIFESTS = {
    "examples without end": (
        lambda d: d["sets"][0].update(n_examples=200_000_000), "200,000,000 train examples, and hashes of fewer",
    ),
    "a seed of digits": (lambda d: d.update(seed="9" * 100_000), "seed is"),
    "an outcome of any type": (lambda d: d["outcomes"][0].update(dtype="U100000000"), 'dtype is "U100000000"'),
    "an object beyond any number": (lambda d: d["objects"].update({"train/key/c.0": [2**70, "0" * 64]}), "bad entry"),
    "an object without end": (lambda d: d["objects"].update({"train/key/c.0": [2**50, "0" * 64]}), "1,125,899,906,842"),
    "problems without end": (
        lambda d: d.update(outcomes=[7] * 100_000), r"outcomes\[1\] is not an object.* and more",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "problem"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_claims_no_more_than_it_can_hold(database, change, problem):
    from pathlib import Path

    path = Path(database.url) / "zarr.json"
    document = json.loads(path.read_bytes())["attributes"]["memdb"]
    change(document)
    path.write_bytes(group_metadata(sealed(document)))
    with pytest.raises((WrongFormatError, DamagedError), match=problem) as caught:
        memdb.open(database.url).top_memorized().fetchall()
    assert len(str(caught.value)) < 5000


def test_class_names_are_texts(database):
    from pathlib import Path

    root = Path(database.url)
    path = root / "dataset/train/label/zarr.json"
    metadata = json.loads(path.read_bytes())
    metadata["attributes"]["class_names"] = 5
    data = canonical_json(metadata)
    path.write_bytes(data)
    document = json.loads((root / "zarr.json").read_bytes())["attributes"]["memdb"]
    document["objects"]["train/label/zarr.json"] = [len(data), hashlib.sha256(data).hexdigest()]
    (root / "zarr.json").write_bytes(group_metadata(sealed(document)))
    with pytest.raises(DamagedError, match="class names that are not texts"):
        memdb.open(database.url).top_memorized(class_name="ant").fetchall()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["published.json", "zarr.json"])
def test_a_pipe_in_place_of_a_document_is_not_waited_for(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(WrongFormatError, match=f"{name} is not a file"):
        memdb.open(str(copy))


class Sending(http.server.BaseHTTPRequestHandler):
    """Answers every request with a beginning and then a piece again and again, counting what it could send."""

    headers_sent: dict[str, str] = {}  # noqa: RUF012 - of a class made for one test
    beginning, piece, n_sent = b"", bytes(MIB), 0

    def log_message(self, *_):
        pass

    def do_GET(self):
        kind = type(self)
        kind.asked = self.headers.get("Accept-Encoding")
        try:
            self.send_response(200)
            for name, value in self.headers_sent.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(self.beginning)
            while kind.n_sent < 400 and self.piece:
                self.wfile.write(self.piece)
                kind.n_sent += 1
        except ConnectionError:
            pass


@pytest.fixture
def sending():
    """Serve such answers: call it with what they are like; get the URL and the class that counts."""
    servers = []

    def serve(**like):
        kind = type("Own", (Sending,), {**like, "n_sent": 0})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", kind

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_answer_without_end_is_left_at_its_bound(sending, peak):
    url, server = sending()
    storage = open_storage(url)
    with pytest.raises(DamagedError, match="has more than the 1,000 bytes that it may have"):
        storage.read("a", most=1000)
    with pytest.raises(DamagedError, match="has more than the 1,000 bytes"):
        storage.read("a", 10, 20, most=1000)  # a server that ignores ranges
    assert server.n_sent < 100
    assert peak() < 16 * MIB


def test_an_object_that_goes_on_is_damaged(sending, peak):
    url, _ = sending()
    from memdb.store.read_arrays import read_object

    with pytest.raises(DamagedError, match="has more than the 1,000 bytes that it may have"):
        read_object(open_storage(url), "a", documents_info(1000))
    assert peak() < 16 * MIB


def test_answers_are_asked_for_as_they_are_and_packed_ones_refused(sending, peak):
    packed = gzip.compress(bytes(MIB)) * 64
    url, server = sending(headers_sent={"Content-Encoding": "gzip"}, beginning=packed, piece=b"")
    with pytest.raises(MemdbError, match="came encoded as gzip, which was not asked for"):
        open_storage(url).read("published.json")
    assert server.asked == "identity"
    assert peak() < ZEROS // 2


def test_a_range_of_a_file_is_bounded(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(100)))
    storage = open_storage(str(tmp_path))
    assert storage.read("a", 10, 20) == bytes(range(10, 20))
    assert storage.read("a", 20, 10) == b""
    assert storage.read("a", 90) == bytes(range(90, 100))
    assert storage.read("a", most=100) == bytes(range(100))
    for part in ((), (0, 100), (1,)):
        with pytest.raises(DamagedError, match="more than the 98 bytes"):
            storage.read("a", *part, most=98)


def test_objects_in_a_bucket_are_asked_for_with_a_bound(s3, tmp_path):
    storage = open_storage(f"s3://bucket/{tmp_path.name}", s3)
    storage.write_all({"a": bytes(range(100)), "empty": b""})
    assert storage.read("a") == storage.read("a", most=100) == bytes(range(100))
    assert storage.read("empty") == b""
    assert storage.read("a", 90) == bytes(range(90, 100))
    with pytest.raises(DamagedError, match="more than the 98 bytes"):
        storage.read("a", most=98)


@pytest.mark.parametrize("place", ["made", "blocks/made", "segments/x/y"])
def test_no_store_is_made_inside_another(database, trained, tmp_path, place):
    inside = f"{database.url}/{place}"
    attempts = {
        "init": lambda: small_database(inside),
        "publish": lambda: database.publish(inside),
        "extend": lambda: memdb.extend(inside, str(trained)),
        "merge": lambda: memdb.merge(inside, [database]),
        "pull": lambda: memdb.pull(str(trained), inside, only="bits"),
        "export": lambda: database.export(f"{inside}.npz", "models"),
    }
    for attempt in attempts.values():
        with pytest.raises(InvalidInputError, match=rf"is inside the store {database.url}"):
            attempt()
    assert not (tmp_path / "store.zarr" / place).exists()


def test_no_store_is_made_inside_another_in_a_bucket(s3, tmp_path):
    url = f"s3://bucket/{tmp_path.name}/s.zarr"
    small_database(url, storage_options=s3).close()
    with pytest.raises(InvalidInputError, match=rf"is inside the store {url}"):
        small_database(f"{url}/blocks/x", storage_options=s3)
    small_database(f"{url}2", storage_options=s3).close()
