"""The macros in schemas/statistics.sql against golden values, statsmodels and the oracle."""

from __future__ import annotations

import json
import math

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import DATA, oracle

from memdb.errors import InvalidInputError
from memdb.query.intervals import KINDS, fixed_z, require_level
from memdb.query.templates import template

GOLDEN = json.loads((DATA / "golden-statistics.json").read_text())


@pytest.fixture(scope="module")
def con():
    connection = duckdb.connect()
    connection.execute(template("statistics.sql"))
    yield connection
    connection.close()


def value(con, expression, **parameters):
    return con.sql(f"SELECT {expression}", params=parameters or None).fetchall()[0][0]


def interval(con, row, z):
    n_in, n_out, k_in, k_out = row
    arguments = {"k_in": k_in, "n_in": n_in, "k_out": k_out, "n_out": n_out, "z": z}
    call = "($k_in, $n_in, $k_out, $n_out, $z)"
    return con.sql(f"SELECT score_lo{call}, score_hi{call}", params=arguments).fetchall()[0]


def row_of(case):
    return case["n_in"], case["n_out"], case["k_in"], case["k_out"]


@pytest.mark.parametrize(
    "case", GOLDEN["intervals"], ids=lambda c: f"{c['k_in']}/{c['n_in']},{c['k_out']}/{c['n_out']}"
)
def test_intervals_are_the_golden_ones(con, case):
    row = row_of(case)
    assert value(
        con, f"score({case['k_in']}, {case['n_in']}, {case['k_out']}, {case['n_out']})"
    ) == pytest.approx(case["score"], abs=1e-15)
    for name, z in (("z_1.96", fixed_z(0.95)), ("z_2", 2.0), ("z_4.8916", oracle.fixed_z(0.05 / 50_000))):
        if case[name] is not None:
            assert interval(con, row, z) == pytest.approx(case[name], abs=1e-9)
    t = case["n_in"] + case["n_out"]
    assert interval(con, row, value(con, f"anytime_z({t}, 0.05)")) == pytest.approx(case["anytime"], abs=1e-9)


@pytest.mark.parametrize("case", GOLDEN["intervals"][:10], ids=str)
def test_at_z_2_it_is_the_agresti_caffo_interval_of_statsmodels(con, case):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    alpha = 2 * (1 - 0.9772498680518208)
    lo, hi = proportion.confint_proportions_2indep(
        case["k_in"], case["n_in"], case["k_out"], case["n_out"], method="agresti-caffo", alpha=alpha
    )
    expected = (max(lo, -1.0), min(hi, 1.0))
    assert interval(con, row_of(case), 2.0) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("n_models", "z"), GOLDEN["anytime_z"].items())
def test_the_anytime_multiplier_is_the_golden_one(con, n_models, z):
    assert value(con, f"anytime_z({n_models}, 0.05)") == pytest.approx(z, rel=1e-12)


COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60)).flatmap(
    lambda n: st.tuples(st.just(n[0]), st.just(n[1]), st.integers(0, n[0]), st.integers(0, n[1]))
)
Z = st.floats(0.5, 8)


@given(COUNTS, Z)
def test_intervals_are_those_of_the_oracle_and_hold_the_score(con, row, z):
    lo, hi = interval(con, row, z)
    expected = oracle.interval(*row, z)
    if expected == (None, None):
        assert (lo, hi) == (None, None)
    else:
        assert (lo, hi) == pytest.approx(expected, abs=1e-12)
        assert -1 <= lo <= oracle.score(*row) <= hi <= 1


@given(COUNTS, Z)
def test_wrong_for_right_flips_the_interval_and_swapped_arms_too(con, row, z):
    n_in, n_out, k_in, k_out = row
    lo, hi = interval(con, row, z)
    if lo is not None:
        flipped = (-hi, -lo)
        assert interval(con, (n_in, n_out, n_in - k_in, n_out - k_out), z) == pytest.approx(
            flipped, abs=1e-12
        )
        assert interval(con, (n_out, n_in, k_out, k_in), z) == pytest.approx(flipped, abs=1e-12)


@given(COUNTS, Z)
def test_a_real_outcome_of_zeros_and_ones_has_the_interval_of_bits(con, row, z):
    n_in, n_out, k_in, k_out = row
    arguments = f"{k_in}::DOUBLE, {k_in}::DOUBLE, {n_in}, {k_out}::DOUBLE, {k_out}::DOUBLE, {n_out}, {z!r}"
    both = con.sql(f"SELECT ac_lo({arguments}), ac_hi({arguments})").fetchall()[0]
    assert both == interval(con, row, z)


def test_four_times_the_models_halve_the_width(con):
    small, large = interval(con, (280, 120, 140, 36), 1.96), interval(con, (1120, 480, 560, 144), 1.96)
    assert (large[1] - large[0]) / (small[1] - small[0]) == pytest.approx(0.5, rel=0.01)


def test_one_more_model_may_widen_an_interval(con):
    (k1, n1, k0, n0, before), (k1b, n1b, k0b, n0b, after) = (
        GOLDEN["widening"]["before"],
        GOLDEN["widening"]["after"],
    )
    assert interval(con, (n1, n0, k1, k0), fixed_z(0.95)) == pytest.approx(before, abs=1e-9)
    assert interval(con, (n1b, n0b, k1b, k0b), fixed_z(0.95)) == pytest.approx(after, abs=1e-9)
    assert after[1] - after[0] > before[1] - before[0]


@pytest.mark.parametrize(
    ("kind", "share"), [("anytime", 1), ("selected", 20 / 1000), ("simultaneous", 1 / 1000)]
)
def test_kinds_of_interval_differ_only_in_the_share_of_alpha(con, kind, share):
    found = value(con, "interval_z($kind, 0.05, 1.96, 300, 20, 1000)", kind=kind)
    assert found == pytest.approx(oracle.anytime_z(300, 0.05 * share), rel=1e-12)
    assert value(con, "interval_z('fixed', 0.05, 1.96, 300, 20, 1000)") == 1.96


def test_nothing_is_asked_of_no_models(con):
    assert value(con, "anytime_z(0, 0.05)") is None
    assert interval(con, (0, 0, 0, 0), 1.96) == (None, None)
    assert value(con, "score(0, 0, 3, 5)") is None


def test_levels_are_probabilities():
    assert fixed_z(0.95) == pytest.approx(1.959963984540054, abs=1e-15)
    for level in (0.0, 1.0, -1.0, 95.0, math.nan, 1 - 1e-18):
        with pytest.raises(InvalidInputError, match="is not between 0 and 1"):
            require_level(level)
    with pytest.raises(InvalidInputError, match=r"the level 0.3 is below 0.5"):
        require_level(0.3)


def test_a_higher_level_has_a_wider_interval(con):
    for t in (30, 100, 1000, 10_000):
        found = [value(con, f"anytime_z({t}, {1 - level})") for level in (0.8, 0.9, 0.95, 0.99, 0.999)]
        assert found == sorted(found)
        assert value(con, f"anytime_z({t}, 0.5)") > oracle.fixed_z(0.5)


@pytest.mark.parametrize(("p_in", "p_out"), [(1, 0), (1, 0.95), (0.98, 0.02), (0.9, 0.5), (0.5, 0.5)])
def test_simulated_fixed_intervals_hold_the_truth_as_often_as_they_say(con, p_in, p_out):
    rows = con.sql(  # 20,000 stores of 100 models, drawn inside DuckDB
        """SELECT avg((score_lo(k_in, n_in, k_out, 100 - n_in, 1.959963984540054e0) <= d
                       AND d <= score_hi(k_in, n_in, k_out, 100 - n_in, 1.959963984540054e0))::INT)
           FROM (SELECT n_in, $p_in::DOUBLE - $p_out::DOUBLE AS d,
                        list_sum(list_transform(range(n_in), lambda x: (random() < $p_in)::INT)) AS k_in,
                        list_sum(list_transform(range(100 - n_in), lambda x: (random() < $p_out)::INT)) AS k_out
                 FROM (SELECT 55 + (random() * 31)::INT AS n_in FROM range(20000)))""",
        params={"p_in": p_in, "p_out": p_out},
    ).fetchall()
    assert rows[0][0] >= 0.925


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_interval_has_its_multiplier_in_sql(con, kind):
    assert value(con, f"interval_z('{kind}', 0.05, {fixed_z(0.95)}, 400, 3, 40)") >= fixed_z(0.95)
