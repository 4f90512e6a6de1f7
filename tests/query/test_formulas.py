"""The formulas in NumPy are the macros of schemas/statistics.sql."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest

from memdb.query import arrow, formulas
from memdb.query.intervals import KINDS, IntervalSpec
from memdb.query.templates import template

NAMES = ("s_in", "q_in", "n_in", "s_out", "q_out", "n_out")


@pytest.fixture(scope="module")
def con():
    with duckdb.connect() as connection:
        connection.execute(template("statistics.sql"))
        yield connection


def arms(*, soft):
    """Arms of any size, some empty, some of which all models are right or wrong."""
    rng = np.random.default_rng(0)
    n_in, n_out = (rng.integers(0, rng.choice([3, 400], 20_000)).astype(np.int32) for _ in range(2))
    p = rng.choice([0.0, 0.3, 0.99, 1.0], 20_000)
    if soft:
        q = rng.random(20_000)
        return formulas.Arms(
            n_in * p, n_in * p * (p + 1) / 2, n_in, n_out * q, n_out * q * (q + 1) / 2, n_out
        )
    k_in, k_out = rng.binomial(n_in, p).astype(np.int32), rng.binomial(n_out, p).astype(np.int32)
    return formulas.Arms(k_in, k_in, n_in, k_out, k_out, n_out)


@pytest.mark.parametrize("soft", [False, True])
def test_scores_intervals_and_errors_are_those_of_the_macros(con, soft):
    some = arms(soft=soft)
    con.register("arms", arrow.table({name: getattr(some, name) for name in NAMES}))
    given = ", ".join(NAMES)
    asked = {
        "score": "score(s_in, n_in, s_out, n_out)",
        "lo": f"ac_lo({given}, 3.7)",
        "hi": f"ac_hi({given}, 3.7)",
        **{name: f"{name}({given})" for name in ("effect_se", "ac_z", "null_se")},
    }
    found = con.sql(f"SELECT {', '.join(asked.values())} FROM arms").fetchnumpy()  # noqa: S608 - our words
    lo, hi = formulas.bounds(some, 3.7)
    ours = {"lo": lo, "hi": hi} | {
        name: getattr(formulas, name)(some) for name in ("score", "effect_se", "ac_z", "null_se")
    }
    filled = some.are_filled
    assert 0.1 < filled.mean() < 1
    for name, theirs in zip(asked, found.values(), strict=True):
        expected = np.ma.filled(theirs.astype(np.float64), np.nan)[filled]
        np.testing.assert_allclose(ours[name][filled], expected, rtol=1e-12, atol=1e-12, err_msg=name)
        same = (ours[name][filled] == expected) | np.isnan(expected)
        assert same.mean() > 0.99, name  # squares are rounded otherwise by pow, now and then
        assert name == "ac_z" or np.isnan(ours[name][~filled]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_models", [0, 1, 30, 4000])
def test_multipliers_are_those_of_the_macro_to_the_last_bit(con, kind, n_models):
    interval = IntervalSpec(kind, 0.9).of_list(20, 50_000)
    sql = "SELECT interval_z($interval, $alpha, $fixed_z, $n_models, $n_shown, $n_ranked)"
    ((expected,),) = con.execute(sql, {**interval.parameters(), "n_models": n_models}).fetchall()
    assert formulas.interval_z(interval, n_models) == expected
