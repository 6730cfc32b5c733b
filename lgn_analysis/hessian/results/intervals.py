"""Confidence intervals for means that are neither normal nor of a size known beforehand, and when they
are narrow enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from scipy.special import stdtrit
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import real

ALPHA: Final = 0.05
"""Error rate of every interval that is reported: 95 %."""

STOPPED_ALPHA: Final = 0.03
"""Nominal error rate of an interval that also decided when to stop, so that 95 % remain.

A run tends to stop where its spread happens to look small, or its estimate large. Stops anywhere
from 32 to 1500 probes, at interim analyses of 32, 48, 72, …, over Hessians and spectra down to rank one, leave at
least 95 % of these intervals covering the truth, and at a nominal 5 % at least 93.5 %: see
``benchmarks/trace_coverage.py``.
"""

LARGEST_RTOL: Final = 0.5
"""The largest relative tolerance that a run may stop on.

``rtol=1`` stops as soon as the interval leaves zero out, which over many interim analyses it will do by chance
where the truth is zero: a quarter of such intervals would miss it.
"""

GROWTH: Final = 1.5
"""Ratio of one interim analysis's sample size to the one before."""


def mean_interval(values: Tensor, *, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the interval of ``E[values]`` at level 1 - alpha, corrected for skewness.

    Student's t interval seen through Hall's monotone cubic, which removes the first term of
    skewness; without skewness it is the t interval.

    Args:
        values: independent samples, float64 [n], n >= 2.
        alpha: error rate.

    Source: Hall, *On the removal of skewness by transformation*, J. R. Stat. Soc. B 54 (1992), p. 221.

    >>> import torch
    >>> [round(end, 3) for end in mean_interval(torch.tensor([1.0, 2.0, 3.0]).double())]
    [-0.484, 4.484]
    """
    n = values.numel()
    if n < 2:
        raise InvalidInputError(f"an interval needs at least 2 samples, got {n}")
    mean = float(values.mean())
    centred = values - mean
    spread = math.sqrt(float(centred.square().sum()) / (n - 1))
    if spread == 0.0:
        return mean, mean
    skewness = float(centred.pow(3).mean()) / spread**3
    critical_value = float(stdtrit(n - 1, 1 - alpha / 2)) / math.sqrt(n)

    def untransform(w: float) -> float:
        if abs(skewness) < 1e-6:
            return w
        return 3 * (math.cbrt(1 + skewness * (w - skewness / (6 * n))) - 1) / skewness

    return mean - spread * untransform(critical_value), mean - spread * untransform(-critical_value)


def form_critical_value(n: int, alpha: float = ALPHA) -> float:
    """Return how many standard errors the interval of a mean of n quadratic forms reaches.

    Student's quantile, widened for few probes by ``1 + 18/n²``: forms can be discrete (two equally
    likely values, for one pair of entries off the diagonal), and no estimate of their variance
    sees that. 8 probes then cover 99 % of such means, not 93 %.

    >>> round(form_critical_value(8), 2), round(form_critical_value(128), 3)
    (3.03, 1.981)
    """
    if n < 2:
        raise InvalidInputError(f"an interval needs at least 2 probes, got {n}")
    return float(stdtrit(n - 1, 1 - alpha / 2)) * (1 + 18 / n**2)


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of float64 [n], n >= 2."""
    return float(values.std()) / math.sqrt(values.numel())


def ratio_interval(
    top: tuple[float, float, float], bottom: tuple[float, float, float]
) -> tuple[float, float]:
    """Return the interval of the ratio of two independent estimates, each (estimate, low, high).

    MOVER-R; for symmetric intervals it is Fieller's. The whole line where the interval of the
    denominator holds zero.

    Source: Newcombe, *MOVER-R confidence intervals for ratios and products of two independently
    estimated quantities*, Stat. Methods Med. Res. 25 (2016), p. 1774.
    """
    if bottom[1] <= 0.0 <= bottom[2]:
        return -math.inf, math.inf
    if bottom[0] < 0.0:
        top = (-top[0], -top[2], -top[1])
        bottom = (-bottom[0], -bottom[2], -bottom[1])

    product = top[0] * bottom[0]

    def parts(numerator_end: float, denominator_end: float) -> tuple[float, float, float]:
        leading = denominator_end * (2 * bottom[0] - denominator_end)
        constant = numerator_end * (2 * top[0] - numerator_end)
        return leading, constant, math.sqrt(max(product**2 - constant * leading, 0.0))

    leading, _, root = parts(top[2], bottom[1])
    high = (product + root) / leading
    leading, constant, root = parts(top[1], bottom[2])
    if product > 0:
        # The same root of the quadratic, without cancellation where ``leading`` nears zero.
        return constant / (product + root), high
    return ((product - root) / leading if leading > 0 else -math.inf), high


def paired_ratio_interval(
    top: Tensor, bottom: Tensor, *, alpha: float = ALPHA
) -> tuple[float, float]:
    """Return the interval of ``E[top] / E[bottom]`` at level 1 - alpha, from pairs of samples.

    Fieller's: the ratios ρ for which ``top − ρ·bottom`` may have the mean zero by Student's test. The
    whole line where the mean of ``bottom`` may be zero.

    Args:
        top: independent samples, float64 [n], n >= 2.
        bottom: each one's partner, [n].
        alpha: error rate.

    Source: Fieller, *Some problems in interval estimation*, J. R. Stat. Soc. B 16 (1954), p. 175.
    """
    n = top.numel()
    if n < 2:
        raise InvalidInputError(f"an interval needs at least 2 samples, got {n}")
    scale = float(bottom.abs().max()) or 1.0  # whose fourth powers may be no number
    pair = torch.stack([top, bottom]) / scale
    mean = pair.mean(1)
    allowed = float(stdtrit(n - 1, 1 - alpha / 2)) ** 2 / n
    form = torch.outer(mean, mean) - allowed * torch.cov(pair)
    constant, linear, leading = float(form[0, 0]), float(form[0, 1]), float(form[1, 1])
    if leading <= 0.0:
        return -math.inf, math.inf
    root = math.sqrt(max(linear**2 - constant * leading, 0.0))
    return (linear - root) / leading, (linear + root) / leading


def interim_analyses(smallest: int, largest: int) -> list[int]:
    """Return the sample sizes at which a run may stop: geometric, the last one ``largest``.

    >>> interim_analyses(32, 200)
    [32, 48, 72, 108, 162, 200]
    """
    sizes = []
    size = smallest
    while size < largest:
        sizes.append(size)
        size = math.ceil(GROWTH * size)
    return [*sizes, largest]


@dataclass(frozen=True)
class Tolerances:
    """Any one of these suffices: half-width at most rtol·|estimate|, atol, or ftol·‖H‖_F."""

    rtol: float | None = None
    atol: float | None = None
    ftol: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (math.isfinite(real(name, value)) and value >= 0):
                raise InvalidInputError(f"{name} must be finite and not below zero, got {value}")
        if self.rtol is not None and self.rtol > LARGEST_RTOL:
            raise InvalidInputError(
                f"rtol={self.rtol:g} would stop a run by chance where the trace is near zero; give "
                f"at most {LARGEST_RTOL}, or atol or ftol"
            )

    def __bool__(self) -> bool:
        return any(value is not None for value in vars(self).values())

    def allowed(self, estimate: float, frobenius: float | None) -> tuple[float, str]:
        """Return the half-width that is allowed, and the name of the tolerance that allows it."""
        options = []
        if self.rtol is not None:
            options.append((self.rtol * abs(estimate), "rtol"))
        if self.atol is not None:
            options.append((self.atol, "atol"))
        if self.ftol is not None:
            if frobenius is None:
                raise InvalidInputError("these probes do not tell ‖H‖_F; give atol instead of ftol")
            options.append((self.ftol * frobenius, "ftol"))
        return max(options)
