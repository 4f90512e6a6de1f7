"""All pairs at once, judged by nested loops over models."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import oracle
from support.random_pairs import as_bits, random_bits

from memdb.errors import InvalidInputError
from memdb.format import bits
from memdb.query.pairs import kernel, popcount
from memdb.query.pairs import search as pairs
from memdb.query.pairs.kernel import Z_BINS, Z_STEP, CpuKernel
from memdb.query.pairs.search import PairSearch
from memdb.query.pairs.types import PairChoice

DIRECTIONS = {"helps": lambda score: score, "hurts": lambda score: -score, "both": abs}


def found_by(search):
    return [
        (int(test), int(train), int(k_in))
        for block in search.blocks()
        for test, train, k_in in zip(block.test_id, block.train_id, block.sums, strict=True)
    ]


def expected(made, choice):
    """Pairs from the strongest to the weakest for each test example, and how many were ranked."""
    masks, right, on_train, train_labels, test_labels = (part.tolist() for part in made)
    strength_of = DIRECTIONS[choice.direction]
    rows, n_ranked = [], 0
    for test in range(len(test_labels)):
        ranked = []
        for train in range(len(train_labels)):
            n_in, n_out, k_in, k_out = oracle.counts(masks, right, train, test)
            score = oracle.score(n_in, n_out, k_in, k_out)
            memorization = oracle.score(*oracle.counts(masks, on_train, train, train))
            if score is None or (choice.same_class and train_labels[train] != test_labels[test]):
                continue
            if choice.min_memorization is not None and memorization < choice.min_memorization:
                continue
            n_ranked += 1
            if choice.min_influence is None or strength_of(score) >= choice.min_influence:
                ranked.append((-strength_of(score), train, k_in))
        rows += [(test, train, k_in) for _, train, k_in in sorted(ranked)[: choice.top]]
    return rows, n_ranked


choices = st.builds(
    PairChoice,
    top=st.sampled_from([1, 3, 8, 100]),
    min_influence=st.sampled_from([None, -0.1, 0.0, 0.15]),
    min_memorization=st.sampled_from([None, 0.2]),
    same_class=st.booleans(),
    direction=st.sampled_from(sorted(DIRECTIONS)),
)


@given(
    seed=st.integers(0, 10**6),
    n_models=st.sampled_from([1, 2, 7, 8, 9, 20, 63, 64, 65, 100]),
    shape=st.sampled_from([(1, 1), (9, 5), (30, 12)]),
    choice=choices,
)
def test_pairs_are_those_of_the_oracle(seed, n_models, shape, choice):
    made = random_bits(seed, n_models, *shape)
    search = PairSearch(as_bits(*made), choice)
    rows, n_ranked = expected(made, choice)
    assert found_by(search) == rows
    assert search.n_ranked == n_ranked


@pytest.mark.parametrize("direction", sorted(DIRECTIONS))
@pytest.mark.parametrize("same_class", [False, True])
@pytest.mark.parametrize(("block", "rows", "columns"), [(4, 2, 5), (5, 3, 7), (512, 64, 2048)])
def test_pairs_are_the_same_however_they_are_cut(monkeypatch, direction, same_class, block, rows, columns):
    made = random_bits(5, 45, 40, 23)
    for choice in (
        PairChoice(top=6, same_class=same_class, direction=direction),
        PairChoice(min_influence=0.1, same_class=same_class, direction=direction),
    ):
        monkeypatch.setattr(pairs, "BLOCK", block)
        monkeypatch.setattr(kernel, "ROWS", rows)
        monkeypatch.setattr(CpuKernel, "columns", columns)
        for threads in (1, 3):
            search = PairSearch(as_bits(*made), choice, threads=threads)
            assert search.n_blocks == -(-23 // block)
            assert found_by(search) == expected(made, choice)[0]


def test_pairs_without_number_are_looked_through_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(pairs, "MAX_WAITING", 50)
    monkeypatch.setattr(CpuKernel, "columns", 8)
    made = random_bits(6, 9, 60, 10)  # nine models: hardly any score that others do not share
    choice = PairChoice(top=4)
    assert found_by(PairSearch(as_bits(*made), choice)) == expected(made, choice)[0]


def test_a_threshold_that_lets_too_many_pass_is_refused(monkeypatch):
    monkeypatch.setattr(pairs, "MAX_KEPT", 100)
    with pytest.raises(InvalidInputError, match="more than 100 pairs"):
        found_by(PairSearch(as_bits(*random_bits(6, 9, 60, 10)), PairChoice(min_influence=-1)))


def test_a_score_at_the_threshold_passes_and_one_rounding_below_does_not():
    """float32 cannot tell these apart: 7/10 - 1/10 is 0.6, or as floats 0.6 and a bit less."""
    masks = np.array([[True]] * 10 + [[False]] * 10)
    right = np.array([[True]] * 7 + [[False]] * 3 + [[True]] + [[False]] * 9)
    made = as_bits(masks, right, right, np.zeros(1), np.zeros(1))
    score = 7 / 10 - 1 / 10
    at, above = (PairChoice(min_influence=value) for value in (score, math.nextafter(score, 1)))
    assert found_by(PairSearch(made, at)) == [(0, 0, 7)]
    assert found_by(PairSearch(made, above)) == []


def test_more_models_than_float32_counts_exactly_are_no_different(monkeypatch):
    made = random_bits(7, 50, 40, 20)
    choice = PairChoice(top=5)
    plain = found_by(PairSearch(as_bits(*made), choice))
    monkeypatch.setattr(kernel, "EXACT_MODELS", 10)
    assert found_by(PairSearch(as_bits(*made), choice)) == plain


def z_histogram(made, choice):
    """The statistics counted in the same bins, by loops; the second result excludes those at a bin's edge."""
    masks, right, _, train_labels, test_labels = (part.tolist() for part in made)
    found = np.zeros((2, Z_BINS), dtype=int)
    for train in range(len(train_labels)):
        for test in range(len(test_labels)):
            n_in, n_out, k_in, k_out = oracle.counts(masks, right, train, test)
            same = train_labels[train] == test_labels[test]
            if not n_in or not n_out or (choice.same_class and not same):
                continue
            error = np.std([1] * (k_in + k_out) + [0] * (n_in - k_in + n_out - k_out), ddof=1)
            error *= math.sqrt(1 / n_in + 1 / n_out)
            if error > 0:
                place = math.floor((k_in / n_in - k_out / n_out) / error / Z_STEP + 0.5) + Z_BINS // 2
                found[int(same), min(max(place, 0), Z_BINS - 1)] += 1
    return found


@pytest.mark.parametrize("same_class", [False, True])
def test_z_statistics_of_all_ranked_pairs_are_counted(same_class):
    made = random_bits(8, 150, 60, 30)
    choice = PairChoice(top=2, same_class=same_class)
    total = sum(block.z_histogram for block in PairSearch(as_bits(*made), choice, tally=True).blocks())
    right = z_histogram(made, choice)
    assert total.sum(axis=1).tolist() == right.sum(axis=1).tolist()
    moved = np.abs(np.cumsum(total - right, axis=1))  # float32 may fall on the other side of a bin's edge
    assert moved.max() <= 1


def test_blocks_that_are_done_are_passed_over(monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK", 4)
    search = PairSearch(as_bits(*random_bits(5, 45, 40, 23)), PairChoice(top=6))
    every = list(search.blocks())
    heard = []
    rest = list(search.blocks(frozenset({0, 3}), lambda done, total: heard.append((done, total))))
    assert [block.number for block in rest] == [1, 2, 4, 5]
    assert all((block.train_id == every[block.number].train_id).all() for block in rest)
    assert heard[-1] == (search.n_ranked, search.n_ranked)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_a_search_stops_where_it_is_told(monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK", 4)
    search = PairSearch(as_bits(*random_bits(5, 45, 40, 23)), PairChoice(top=6), threads=1)
    found = []
    found.extend(block.number for block in search.blocks(stop_requested=lambda: len(found) >= 2))
    assert found == [0, 1]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "neither a smallest influence"),
        ({"top": 0}, "top 0"),
        ({"top": 10**6}, "from 1 to"),
        ({"min_influence": 1.5}, "min_influence 1.5"),
        ({"min_influence": float("nan")}, "min_influence nan"),
        ({"top": 3, "min_memorization": -2}, "min_memorization -2"),
        ({"top": 3, "direction": "up"}, "unknown direction 'up'"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(values, said):
    with pytest.raises(InvalidInputError, match=said):
        PairChoice(**values)


@pytest.mark.parametrize("n_models", [1, 8, 63, 64, 65, 513])
def test_products_are_exact_counts(n_models):
    rng = np.random.default_rng(n_models)
    left, right = (bits.words(bits.pack(rng.random((n_models, n)) < 0.6)) for n in (7, 12))
    product = popcount.Products()
    for rows in (slice(0, 7), slice(2, 3), slice(0, 7)):
        found = product.counts(left[rows], popcount.packed(right))
        assert found.tolist() == [[int(bits.count_and(a, b)) for b in right] for a in left[rows]]


@pytest.mark.parametrize("direction", sorted(DIRECTIONS))
@pytest.mark.parametrize("same_class", [False, True])
def test_torch_finds_the_same_pairs(direction, same_class):
    torch_finds_the_same("cpu", PairChoice(top=5, same_class=same_class, direction=direction))
    torch_finds_the_same("cpu", PairChoice(min_influence=0.1, same_class=same_class, direction=direction))


@pytest.mark.gpu
@pytest.mark.parametrize("n_models", [37, 300, 5000])
def test_a_gpu_finds_the_same_pairs(n_models, cuda):
    for choice in (PairChoice(top=5), PairChoice(min_influence=0.1, direction="both")):
        torch_finds_the_same("cuda", choice, n_models)


def torch_finds_the_same(device, choice, n_models=45):
    from memdb.query.pairs.kernel_torch import kernel_on

    cpu = PairSearch(as_bits(*random_bits(9, n_models, 70, 40)), choice, tally=True)
    other = replace(cpu, kernel=kernel_on(device))
    assert found_by(other) == found_by(cpu)
    totals = [sum(block.z_histogram for block in search.blocks()) for search in (cpu, other)]
    assert totals[0].sum(axis=1).tolist() == totals[1].sum(axis=1).tolist()
    assert np.abs(np.cumsum(totals[0] - totals[1], axis=1)).max() <= 2
