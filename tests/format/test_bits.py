from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memdb.format import bits

MODELS = st.integers(1, 40)


def bools(n_models, n_examples):
    return hnp.arrays(np.bool_, (n_models, n_examples))


@given(st.data(), MODELS, st.integers(1, 9))
def test_unpacking_gives_back_what_was_packed(data, n_models, n_examples):
    values = data.draw(bools(n_models, n_examples))
    packed = bits.pack(values)
    assert packed.shape == (n_examples, bits.n_bytes(n_models))
    assert (bits.unpack(packed, n_models) == values).all()


def test_bit_k_of_a_row_is_model_k():
    values = np.zeros((11, 1), dtype=np.bool_)
    values[[0, 9]] = True
    assert bits.pack(values).tolist() == [[0b00000001, 0b00000010]]


@given(st.data(), st.lists(MODELS, max_size=5), st.integers(1, 5))
def test_joined_parts_are_the_models_one_after_the_other(data, sizes, n_examples):
    parts = [data.draw(bools(size, n_examples)) for size in sizes]
    joined = bits.concatenate([(bits.pack(part), len(part)) for part in parts], n_examples)
    expected = np.concatenate([np.zeros((0, n_examples), np.bool_), *parts])
    assert (bits.unpack(joined, sum(sizes)) == expected).all()
    assert joined.shape == (n_examples, bits.n_bytes(sum(sizes)))
    assert bits.count(bits.words(joined)).tolist() == expected.sum(axis=0).tolist()  # padding bits are 0


@given(st.data(), MODELS, st.integers(1, 6))
def test_counts_are_those_of_a_loop(data, n_models, n_examples):
    left, right = data.draw(bools(n_models, n_examples)), data.draw(bools(n_models, n_examples))
    found = bits.count_and(bits.words(bits.pack(left)), bits.words(bits.pack(right)))
    expected = [
        sum(bool(a and b) for a, b in zip(left[:, i], right[:, i], strict=True)) for i in range(n_examples)
    ]
    assert found.tolist() == expected
