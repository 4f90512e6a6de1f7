"""Columns as arrays."""

import numpy as np
import pyarrow as pa
import pytest

from memdb.query.arrow import values_of


def test_what_lies_under_a_null_is_not_read():
    under = pa.py_buffer(np.array([1, -7, 3], dtype=np.int32))
    column = pa.Array.from_buffers(pa.int32(), 3, [pa.py_buffer(bytes([0b101])), under])
    assert values_of(column).tolist() == [1, 0, 3]
    assert values_of(pa.chunked_array([column, column[1:]])).tolist() == [1, 0, 3, 0, 3]


@pytest.mark.parametrize("validity", [0b000, 0b010])
def test_booleans_under_a_null_are_false(validity):
    buffers = [pa.py_buffer(bytes([validity])), pa.py_buffer(bytes([0b111]))]
    column = pa.Array.from_buffers(pa.bool_(), 3, buffers)
    assert values_of(column).tolist() == [value is True for value in column.to_pylist()]
