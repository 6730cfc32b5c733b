"""Where there is nothing, a claim is supported no more often than the level allows."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lgn_analysis.experiments import verdicts
from lgn_analysis.experiments.claims import depth_gap, gap, parts, st_ablation, where_it_pays
from lgn_analysis.experiments.verdicts import Claim, decide, decide_some
from tests.experiments.synthetic import N_TEST, gap_rows, rows

TRIALS = 120
RATE = 0.05
# Each test below lets through what 120 trials at the allowed rate exceed once in 10 000.
MOST = int(stats.binom.ppf(1 - 1e-4, TRIALS, RATE))


def gap_null(noise):
    return pd.DataFrame(gap_rows({"soft": 0.02, "gumbel-st": 0.02}, noise=noise))


def depth_null(noise):
    made = []
    for depth in (2, 4, 6):
        made += gap_rows({"soft": 0.02, "gumbel-st": 0.02}, noise=noise, depth=depth)
    return pd.DataFrame(made)


def parts_null(noise):
    flips = dict.fromkeys(parts.SQUARE, 0.05)
    return pd.DataFrame(gap_rows(flips, noise=noise)).assign(reference_tau=1.0)


def map_null(noise):
    made = []
    for depth in (2, 4, 6):
        for row in rows(["pair"], depth=depth):
            for comparison in ("steps", "seconds"):
                dlgn, glgn = 0.95 + 0.02 * noise.normal(size=2)
                made.append(
                    {**row, "n": N_TEST, "comparison": comparison, "dlgn": dlgn, "glgn": glgn}
                )
    return pd.DataFrame(made).assign(glgn_steps=100)


@pytest.mark.parametrize(
    ("module", "null", "claim"),
    [
        (gap, gap_null, "C2 gap"),
        (depth_gap, depth_null, "C4 gap"),
        (parts, parts_null, "C12 which"),
        (where_it_pays, map_null, "C13 steps"),
    ],
)
def test_a_null_rarely_holds(module, null: Callable, claim):
    noise = np.random.default_rng(7)
    held = 0
    for _ in range(TRIALS):
        found = {v.claim.id: v.outcome for v in module.verdicts(null(noise))}
        held += found[claim] == "supported"
    assert held <= MOST


def test_without_a_reduction_no_share_of_it_is_claimed():
    # Both ends equal, soft Gumbel above: the contrast is positive and means nothing.
    noise = np.random.default_rng(3)
    held = 0
    for _ in range(TRIALS):
        gaps = {"soft": 0.02, "gumbel-soft": 0.06, "gumbel-st": 0.02}
        frame = pd.DataFrame(gap_rows(gaps, noise=noise))
        table = st_ablation._shares(frame.assign(value=frame["gap_loss"].abs()))
        named = table.assign(setting="digits", claim=st_ablation.SHARE.id)
        decided = decide(st_ablation.SHARE, named, scale="", source="")
        held += decided.outcome == "supported"
    assert held <= MOST


def test_bounds_keep_their_level_whatever_was_censored():
    # The true effect is zero; each pair is censored at random, on either side.
    noise = np.random.default_rng(11)
    claim = Claim(id="C0", title="", paper="", metric="", smallest=0.0)
    held = 0
    for _ in range(1000):
        true = noise.normal(size=6)
        cut = noise.random(6)
        lower = np.where(cut < 0.2, true - noise.random(6), true)
        upper = np.where(cut > 0.8, np.inf, true)
        table = pd.DataFrame({"effect": lower, "lower": lower, "upper": upper, "counts": True})
        held += decide(claim, table, scale="", source="").outcome == "supported"
    # 25 of 1000 are allowed; 4 standard deviations more is 45.
    assert held <= 45


def test_the_best_of_many_cells_keeps_the_level():
    noise = np.random.default_rng(5)
    claim = Claim(id="C0", title="", paper="", metric="", smallest=0.0)
    held = 0
    for _ in range(300):
        table = pd.DataFrame(
            {"cell": np.repeat(range(8), 6), "effect": noise.normal(size=48), "counts": True}
        )
        verdict = decide_some(claim, table, by=["cell"], scale="", source="")
        held += verdict.outcome == "supported"
    # 2.5 % of 300 are 7.5; 4 standard deviations more is 18.
    assert held <= 18


def test_fewer_seeds_than_the_least_decide_nothing():
    few = range(verdicts.MIN_SEEDS - 1)
    made = [row for row in gap_rows({"soft": 0.05, "gumbel-st": 0.0}) if row["seed"] in few]
    found = {v.claim.id: v.outcome for v in gap.verdicts(pd.DataFrame(made))}
    assert set(found.values()) == {"inconclusive"}
