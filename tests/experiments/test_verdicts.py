"""Verdicts follow from effects: a planted effect is found, a null is not."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lgn_analysis.experiments.effects import each_setting, label, paired
from lgn_analysis.experiments.verdicts import (
    MIN_SEEDS,
    Claim,
    corrected,
    decide,
    decide_some,
    holm,
    outcome_of,
    t_interval,
)
from lgn_analysis.report.wording import format_effect, format_smallest

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
        ([1.0, 1.1, 0.9, 1.0, 1.1], "supported"),
        ([-1.0, -1.1, -0.9, -1.0, -1.1], "reversed"),
        ([0.01, -0.01, 0.02, 0.0, 0.01], "negligible"),
        ([0.2, 0.21, 0.22, 0.2, 0.21], "negligible"),
        ([-0.2, -0.21, -0.22, -0.2, -0.21], "negligible"),
        ([0.9, 0.3, 0.8, 0.3, 0.9], "inconclusive"),
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


def test_a_premise_is_met_by_most_seeds_and_then_all_of_them_enter():
    values = [1.0, 1.1, 1.0, 0.9, 0.0]
    verdict = verdict_on(values, [True, True, True, False, False])
    assert (verdict.n, verdict.effect) == (5, pytest.approx(0.8))
    assert "2 of 5 seeds lack the premise, and are not left out" in verdict.reason
    absent = verdict_on(values, [True, True, False, False, False])
    assert (absent.outcome, absent.n) == ("not testable here", 5)
    assert math.isnan(absent.p)


def test_a_seed_without_an_effect_opens_the_interval():
    verdict = verdict_on([1.0, 1.1, 1.0, 0.9, 1.0, math.nan])
    assert (verdict.outcome, verdict.low, verdict.high) == ("inconclusive", -math.inf, math.inf)
    assert verdict.effect == pytest.approx(1.0)


def test_the_choice_of_test_samples_widens_an_interval_however_many_seeds_there_are():
    # Seeds that agree: what is left is the standard error of the test samples, 0.3.
    values = [1.0 + 1e-9 * i for i in range(40)]
    table = effects(values).assign(test_variance=0.09)
    verdict = decide(CLAIM, table, scale="s", source="x.csv")
    assert verdict.high - verdict.low == pytest.approx(2 * 1.96 * 0.3, rel=1e-3)
    assert verdict.outcome == "inconclusive"
    assert verdict.p == pytest.approx(2 * stats.norm.sf(0.5 / 0.3), rel=1e-3)


def test_degrees_of_freedom_are_those_of_welch_and_satterthwaite():
    values = [0.3, 1.2, -0.4, 2.0, 0.9]
    own = np.var(values, ddof=1) / 5
    whole = own + 0.05
    half = stats.t.ppf(0.975, 4 * (whole / own) ** 2) * math.sqrt(whole)
    table = effects(values).assign(test_variance=0.05)
    verdict = decide(CLAIM, table, scale="s", source="x.csv")
    assert (verdict.high - verdict.low) / 2 == pytest.approx(half)


def test_p_values_agree_with_the_interval_and_with_scipy():
    values = [0.9, 1.2, 0.8, 1.4, 0.9]
    expected = stats.ttest_1samp(values, CLAIM.smallest).pvalue
    assert verdict_on(values).p == pytest.approx(expected)
    assert verdict_on([-v for v in values]).p == pytest.approx(expected)
    on_the_edge = verdict_on(values, level=1 - expected)
    assert on_the_edge.low == pytest.approx(CLAIM.smallest)


def test_holm_leaves_the_strongest_and_demotes_what_many_claims_would_give_by_chance():
    strong, weak = [5.0, 5.1, 4.9, 5.0, 5.1], [1.0, 1.6, 0.7, 1.4, 1.1]
    found = corrected([verdict_on(strong), *[verdict_on(weak)] * 4])
    assert [verdict.outcome for verdict in found] == ["supported", *["inconclusive"] * 4]
    assert "by itself, and not beside 4 other" in found[1].reason
    assert [verdict.alone for verdict in found] == ["", *["supported"] * 4]
    secondary = replace(verdict_on(weak), claim=replace(CLAIM, primary=False))
    alone, kept = corrected([verdict_on(weak), secondary])
    assert alone.outcome == kept.outcome == "supported"
    assert math.isnan(kept.p_corrected)


def test_holm_agrees_with_its_definition():
    p = [0.001, 0.2, 0.01, 0.03, 0.5]
    # sorted .001 .01 .03 .2 .5 times 5 4 3 2 1, never falling
    assert holm(p) == pytest.approx([0.005, 0.4, 0.04, 0.09, 0.5])
    assert holm([]) == []


def test_a_claim_on_the_most_is_shown_by_what_was_measured():
    claim = replace(CLAIM, smallest=0.0, most=10.0, unit="%")
    costs = np.array([3.0, 3.2, 2.8, 3.0, 3.1])
    verdict = decide(claim, effects(10.0 - costs), scale="s", source="x.csv")
    assert verdict.outcome == "supported"
    assert format_effect(verdict).startswith("3.02 % [2.8")
    assert format_smallest(verdict) == "≤ 10 %"


@pytest.mark.parametrize("n", [1, 2, MIN_SEEDS - 1])
def test_fewer_seeds_than_the_least_decide_nothing(n):
    assert verdict_on([5.0] * n).outcome == "inconclusive"
    assert verdict_on([]).outcome == "not testable here"


def test_bounds_widen_the_interval_and_open_it_where_there_is_none():
    values = [1.0, 1.1, 0.9, 1.0, 1.1]
    table = effects(values).assign(lower=values, upper=[*values[:-1], math.inf])
    verdict = decide(CLAIM, table, scale="s", source="x.csv")
    assert verdict.low == pytest.approx(t_interval(values)[1])
    assert verdict.high == math.inf
    assert verdict.outcome == "supported"
    both = table.assign(lower=[-math.inf, *values[1:]])
    assert decide(CLAIM, both, scale="s", source="x.csv").outcome == "inconclusive"


def test_some_cell_is_enough_and_every_cell_must_deny_it():
    def table(*cells):
        parts = [effects([v + d for d in (-0.1, 0, 0.1, 0, 0.05)]).assign(cell=v) for v in cells]
        return pd.concat(parts)

    def outcome(*cells):
        found = decide_some(CLAIM, table(*cells), by=["cell"], scale="s", source="x.csv")
        return found.outcome, found.scale

    assert outcome(-3.0, 2.0, 0.0) == ("supported", "s; best cell 2")
    assert outcome(-3.0, -2.0)[0] == "reversed"
    assert outcome(-3.0, 0.0)[0] == "negligible"
    assert outcome(-3.0, 0.45)[0] == "inconclusive"


def test_the_name_of_a_claim_says_its_setting_where_there_are_several():
    assert label(CLAIM, "digits", ["digits"]) == "C0"
    assert label(CLAIM, "digits", ["digits", "mnist5k"]) == "C0 (digits)"


def test_an_experiment_without_runs_is_untested():
    (verdict,) = each_setting([CLAIM], pd.DataFrame(), pd.DataFrame(), source="x.csv")
    assert verdict.outcome == "not testable here"


def test_a_higher_level_widens_the_interval():
    narrow, wide = verdict_on([1.0, 1.4, 0.9]), verdict_on([1.0, 1.4, 0.9], level=0.99)
    assert wide.high - wide.low > narrow.high - narrow.low
    assert wide.level == 0.99


def test_an_effect_below_the_smallest_that_counts_is_never_supported():
    assert outcome_of(0.4, 0.6, smallest=0.5)[0] == "inconclusive"
    assert outcome_of(0.41, 0.49, smallest=0.5)[0] == "negligible"
    assert outcome_of(-0.6, -0.4, smallest=0.5)[0] == "inconclusive"


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
    assert row["outcome"] == "supported"
    assert math.isclose(row["effect"], 1.0)
