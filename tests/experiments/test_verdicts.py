"""Verdicts follow from effects: a planted effect is found, a null is not."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lgn_analysis.experiments.effects import each_setting, label, paired
from lgn_analysis.experiments.verdicts import (
    MIN_SEEDS,
    Claim,
    decide,
    decide_some,
    outcome_of,
    t_interval,
)

CLAIM = Claim(id="C0", title="t", paper="p", metric="m", smallest=0.5)


def effects(values, counts=None):
    return pd.DataFrame(
        {"effect": values, "counts": [True] * len(values) if counts is None else counts}
    )


def verdict_on(values, counts=None, level=0.95):
    return decide(CLAIM, effects(values, counts), scale="s", source="x.csv", level=level)


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ([1.0, 1.1, 0.9, 1.0, 1.1], "holds"),
        ([-1.0, -1.1, -0.9, -1.0, -1.1], "fails"),
        ([0.01, -0.01, 0.02, 0.0, 0.01], "fails"),
        ([0.2, 0.21, 0.22, 0.2, 0.21], "fails"),
        ([2.0, -1.0, 0.5, 1.5, -2.0], "inconclusive"),
        ([0.45, 0.2, 0.6, 0.45, 0.4], "inconclusive"),
    ],
)
def test_planted_effects_are_found_and_nulls_are_not(values, outcome):
    assert verdict_on(values).outcome == outcome


def test_the_interval_is_that_of_scipy():
    values = [0.3, 1.2, -0.4, 2.0, 0.9]
    mean, low, high = t_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx(expected)
    assert mean == pytest.approx(np.mean(values))


def test_a_null_is_called_an_effect_no_more_often_than_the_level_says():
    # 2000 nulls: a rate of 2.5 % above; 4 sigma is 1.4 %. False-alarm rate of this test: 3e-5.
    generator = np.random.default_rng(0)
    holds = 0
    for _ in range(2000):
        _, low, _ = t_interval(generator.normal(size=5))
        holds += low > 0
    assert holds / 2000 == pytest.approx(0.025, abs=0.014)


def test_seeds_that_were_not_trained_do_not_count_and_are_named():
    verdict = verdict_on([1.0, 1.1, -50.0], [True, True, False])
    assert verdict.n == 2
    assert verdict.effect == pytest.approx(1.05)
    assert "1 of 3 seeds not trained" in verdict.reason


@pytest.mark.parametrize("n", [0, 1, 2, MIN_SEEDS - 1])
def test_fewer_seeds_than_the_least_decide_nothing(n):
    assert verdict_on([5.0] * n).outcome == "inconclusive"
    assert verdict_on([5.0] * MIN_SEEDS, [False] * MIN_SEEDS).outcome == "inconclusive"


def test_bounds_widen_the_interval_and_open_it_where_there_is_none():
    values = [1.0, 1.1, 0.9, 1.0, 1.1]
    table = effects(values).assign(lower=values, upper=[*values[:-1], math.inf])
    verdict = decide(CLAIM, table, scale="s", source="x.csv")
    assert verdict.low == pytest.approx(t_interval(values)[1])
    assert verdict.high == math.inf
    assert verdict.outcome == "holds"
    both = table.assign(lower=[-math.inf, *values[1:]])
    assert decide(CLAIM, both, scale="s", source="x.csv").outcome == "inconclusive"


def test_some_cell_is_enough_and_every_cell_must_fail():
    def table(*cells):
        parts = [effects([v + d for d in (-0.1, 0, 0.1, 0, 0.05)]).assign(cell=v) for v in cells]
        return pd.concat(parts)

    def outcome(*cells):
        found = decide_some(CLAIM, table(*cells), by=["cell"], scale="s", source="x.csv")
        return found.outcome, found.scale

    assert outcome(-3.0, 2.0, 0.0) == ("holds", "s; best cell 2")
    assert outcome(-3.0, -2.0)[0] == "fails"
    assert outcome(-3.0, 0.45)[0] == "inconclusive"


def test_the_name_of_a_claim_says_its_setting_where_there_are_several():
    assert label(CLAIM, "digits", ["digits"]) == "C0"
    assert label(CLAIM, "digits", ["digits", "mnist5k"]) == "C0 (digits)"


def test_an_experiment_without_runs_is_untested():
    (verdict,) = each_setting([CLAIM], pd.DataFrame(), pd.DataFrame(), source="x.csv")
    assert verdict.outcome == "untested"


def test_a_higher_level_widens_the_interval():
    narrow, wide = verdict_on([1.0, 1.4, 0.9]), verdict_on([1.0, 1.4, 0.9], level=0.99)
    assert wide.high - wide.low > narrow.high - narrow.low
    assert wide.level == 0.99


def test_an_effect_below_the_smallest_that_counts_never_holds():
    assert outcome_of(0.45, 0.4, 0.6, smallest=0.5)[0] == "inconclusive"
    assert outcome_of(0.45, 0.41, 0.49, smallest=0.5)[0] == "fails"


def test_pairing_needs_both_methods_above_the_floor():
    frame = pd.DataFrame(
        {
            "relaxation": ["soft", "gumbel-st"] * 2,
            "seed": [0, 0, 1, 1],
            "discrete_accuracy": [0.95, 0.92, 0.95, 0.5],
            "floor": 0.9,
            "value": [3.0, 1.0, 4.0, 1.0],
        }
    )
    table = paired(frame, "value")
    assert table["counts"].to_list() == [True, False]
    assert (table["dlgn"] - table["glgn"]).to_list() == [2.0, 3.0]


def test_a_row_of_the_ledger_holds_claim_and_numbers():
    row = verdict_on([1.0, 1.1, 0.9, 1.0, 1.0]).to_row()
    assert row["id"] == "C0"
    assert row["outcome"] == "holds"
    assert math.isclose(row["effect"], 1.0)
