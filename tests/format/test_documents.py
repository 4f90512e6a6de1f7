from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memdb.errors import DamagedError, MemdbError, WrongFormatError
from memdb.format.documents import canonical_json, group_metadata, parse_group_metadata, sealed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(min_size=1), JSON, max_size=4))
def test_a_sealed_document_comes_back_as_it_was(document):
    found = parse_group_metadata(group_metadata(sealed(document)), "here")
    assert found == sealed(document)


def test_canonical_json_sorts_keys_and_has_no_white_space():
    assert canonical_json({"b": [1, 2.5], "a": "ä"}) == '{"a":"ä","b":[1,2.5]}'.encode()


def test_every_single_altered_byte_is_noticed():
    data = group_metadata(sealed({"format": 1, "name": "ant", "size": 12.5, "list": [1, None, True]}))
    for position in range(len(data)):
        for flip in (1, 32, 128):
            altered = bytearray(data)
            altered[position] ^= flip
            with pytest.raises(MemdbError):
                parse_group_metadata(bytes(altered), "here")


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"[]", b"{}", b'{"attributes":{}}', b'{"attributes":{"memdb":3}}', b"\xff"]
)
def test_what_is_no_document_of_ours_is_refused_by_name(data):
    what = {b"": "empty", b"<html>": "a web page, not a memdb document"}.get(data, "not a memdb document")
    with pytest.raises(WrongFormatError, match=f"there/zarr.json is {what}"):
        parse_group_metadata(data, "there/zarr.json")


def test_reformatting_counts_as_altering():
    data = json.dumps(json.loads(group_metadata(sealed({"a": 1}))), indent=1).encode()
    with pytest.raises(DamagedError):
        parse_group_metadata(data, "here")
