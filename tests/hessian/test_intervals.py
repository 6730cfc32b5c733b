"""Intervals keep 95 %, stopped or not, however skewed the probes."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian import DenseOperator, frobenius_norm, hutchinson_trace
from lgn_analysis.hessian.results.intervals import (
    form_critical_value,
    interim_analyses,
    mean_interval,
    paired_ratio_interval,
    ratio_interval,
)
from tests.hessian.cases import symmetric

SPREAD = [3.0, -1.0, 2.0, 0.5] + [0.1] * 26
RANK_ONE = [1.0] + [0.0] * 59  # probes are χ² with one degree of freedom: as skewed as it gets
NEGATIVE = [-1.0] + [0.05] * 60


def test_symmetric_samples_have_the_t_interval():
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
    half = stats.t.ppf(0.975, 4) * float(values.std()) / math.sqrt(5)
    assert mean_interval(values) == pytest.approx((-half, half))
    assert mean_interval(torch.ones(3, dtype=torch.float64)) == (1, 1)
    with pytest.raises(InvalidInputError, match="at least 2"):
        mean_interval(values[:1])


def test_the_reach_is_students_and_wider_for_few_probes():
    assert form_critical_value(10**6) == pytest.approx(stats.norm.ppf(0.975), rel=1e-5)
    assert form_critical_value(128, 0.03) == pytest.approx(stats.t.ppf(0.985, 127), rel=2e-3)
    assert form_critical_value(8) > 1.25 * stats.t.ppf(0.975, 7)
    with pytest.raises(InvalidInputError, match="at least 2"):
        form_critical_value(1)


def test_eight_to_sixteen_signs_cover_a_form_of_two_values():
    # Exactly, by the binomial distribution; the t interval covers 92.9 and 92.3 %.
    for n in (6, 7, 8, 9, 10, 12, 16):
        plus = np.arange(n + 1)
        mean = (2 * plus - n) / n
        deviation = np.sqrt((1 - mean**2) * n / (n - 1) / n)
        missed = np.abs(mean) > form_critical_value(n) * deviation + 1e-12
        assert stats.binom.pmf(plus, n, 0.5)[missed].sum() < 0.06


def test_looks_grow_by_half_and_end_where_they_must():
    assert interim_analyses(32, 100) == [32, 48, 72, 100]
    assert interim_analyses(32, 32) == [32]


@pytest.mark.parametrize(
    ("spectrum", "options"),
    [(SPREAD, {"rtol": 0.25}), (RANK_ONE, {"rtol": 0.35}), (NEGATIVE, {"rtol": None, "atol": 0.4})],
    ids=["spread", "one", "minus"],
)
def test_a_stopped_interval_covers(spectrum, options):
    # 400 repeats: the standard error of a share of 95 % is 1.1 %; 3.7 of them below is 91 %, a
    # false-alarm rate of 1e-4 where the coverage is 95 %.
    operator, exact = DenseOperator(symmetric(spectrum)), sum(spectrum)
    ends = [hutchinson_trace(operator, seed=seed, **options).ci for seed in range(400)]
    assert sum(low <= exact <= high for low, high in ends) / 400 > 0.91


def test_the_frobenius_norm_is_covered():
    operator, exact = DenseOperator(symmetric(SPREAD)), math.hypot(*SPREAD)
    results = [frobenius_norm(operator, rtol=0.1, seed=seed) for seed in range(200)]
    assert all(result.converged for result in results)
    # The standard error of the share is 1.5 %; 90 % is 3.3 below 95 %: false-alarm rate 5e-4.
    assert sum(result.ci[0] <= exact <= result.ci[1] for result in results) / 200 > 0.90


def test_a_ratio_of_symmetric_intervals_is_fiellers():
    (a, da), (b, db) = (2.0, 0.5), (4.0, 1.0)
    low, high = ratio_interval((a, a - da, a + da), (b, b - db, b + db))
    for end in (low, high):  # Fieller's ends solve (a − r·b)² = da² + r²·db²
        assert (a - end * b) ** 2 == pytest.approx(da**2 + end**2 * db**2)
    assert low < a / b < high
    assert ratio_interval((-a, -a - da, -a + da), (-b, -b - db, -b + db)) == (low, high)
    assert ratio_interval((a, 1, 3), (0.1, -1, 1)) == (-math.inf, math.inf)


def test_the_ends_of_a_paired_ratio_are_those_that_students_test_just_allows():
    generator = torch.Generator().manual_seed(0)
    top, bottom = torch.randn(2, 9, generator=generator, dtype=torch.float64) + torch.tensor(
        [[0.5], [4.0]], dtype=torch.float64
    )
    low, high = paired_ratio_interval(top, bottom)
    assert low < float(top.mean() / bottom.mean()) < high
    for end in (low, high):
        assert stats.ttest_1samp(top - end * bottom, 0.0).pvalue == pytest.approx(0.05)
    # Gradients deep in a network have squares of 1e-26.
    assert paired_ratio_interval(1e-90 * top, 1e-90 * bottom) == pytest.approx((low, high))
    assert paired_ratio_interval(top, bottom - bottom.mean()) == (-math.inf, math.inf)
    with pytest.raises(InvalidInputError, match="at least 2"):
        paired_ratio_interval(top[:1], bottom[:1])
