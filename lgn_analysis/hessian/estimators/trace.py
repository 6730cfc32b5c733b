"""tr(H) and ‖H‖_F by Hutchinson's estimator, stopped on an interval."""

from __future__ import annotations

import copy
import math
from typing import Final, Self

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import seed_number, whole
from lgn_analysis.hessian.estimators.quadratic_forms import (
    QuadraticForms,
    block_size,
    check_probes,
    draw,
    multiply,
    split,
)
from lgn_analysis.hessian.estimators.stopping import MAX_MATVECS, Advance, run
from lgn_analysis.hessian.operators.linear import MAX_BYTES, SymmetricOperator
from lgn_analysis.hessian.results.intervals import (
    ALPHA,
    STOPPED_ALPHA,
    form_critical_value,
    interim_analyses,
)
from lgn_analysis.hessian.results.tolerances import Tolerances
from lgn_analysis.hessian.results.trace import FrobeniusResult, TraceResult

SMALLEST: Final = 32
"""Probes of the first interim analysis."""


def hutchinson_trace(
    operator: SymmetricOperator,
    *,
    rtol: float | None = 0.01,
    atol: float | None = None,
    ftol: float | None = None,
    n_probes: int | None = None,
    min_probes: int = SMALLEST,
    max_matvecs: int = MAX_MATVECS,
    probes: str = "rademacher",
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
    progress: bool = False,
) -> TraceResult:
    """Return tr(H) = E[zᵀ H z] with its 95 % interval.

    Looks at 32, 48, 72, … probes and stops at the first interval that is narrow enough. The variance
    is that of a quadratic form (:mod:`lgn_analysis.hessian.estimators.quadratic_forms`), and an interval that decided when
    to stop is taken a little wide; ``benchmarks/trace_coverage.py`` measures what they cover. Fewer than
    8 probes give an error, but where H has few entries off the diagonal no interval that holds.

    Args:
        operator: the operator.
        rtol: half-width at most ``rtol·|estimate|``, at most 0.5.
        atol: half-width at most this.
        ftol: half-width at most ``ftol·‖H‖_F``, from the same probes. Any one tolerance suffices:
            the trace is a difference of large parts and may be near zero.
        n_probes: exactly so many probes, at least 2, whatever the tolerances.
        min_probes: the first interim analysis; fewer than 16 cost coverage.
        max_matvecs: the most products to spend.
        probes: ``"rademacher"`` (exact on a diagonal matrix) or ``"gaussian"``.
        max_bytes: the most memory for vectors; it bounds how many are multiplied at a time.
        seed: seed of the probes.
        progress: show a progress bar.

    Returns:
        a result whose :meth:`TraceResult.extend` adds probes.

    Raises:
        InvalidInputError: no tolerance, too few probes, or no room for one vector.

    Source: Hutchinson, Commun. Stat. 19 (1990).

    >>> from lgn_analysis.hessian import DenseOperator
    >>> result = hutchinson_trace(DenseOperator(torch.diag(torch.arange(5.0))), n_probes=8)
    >>> result.estimate, result.stderr
    (10.0, 0.0)
    """
    estimator = _Hutchinson(operator, probes=probes, max_bytes=max_bytes, seed=seed)
    return run(
        estimator,
        n_probes=n_probes,
        tolerances=Tolerances(rtol, atol, ftol),
        smallest=min_probes,
        max_matvecs=max_matvecs,
        progress=progress,
    )


class _Hutchinson:
    """The mean of zᵀ H z so far."""

    def __init__(
        self, operator: SymmetricOperator, *, probes: str, max_bytes: int, seed: int
    ) -> None:
        check_probes(probes)
        n = operator.shape[0]
        self._operator = operator
        self._probes = probes
        self._block = block_size(n, max_bytes, kept=32 * n, device=operator.device)
        self._seed = seed_number(seed)
        self._generator = torch.Generator().manual_seed(self._seed)
        self.forms = QuadraticForms(operator.slices, probes)

    @property
    def n_probes(self) -> int:
        return self.forms.count

    @property
    def n_matvecs(self) -> int:
        return self.forms.count

    @property
    def estimate(self) -> float:
        return self.forms.estimate

    @property
    def frobenius(self) -> float:
        return self.forms.frobenius

    def limit(self, max_matvecs: int) -> tuple[int, str]:
        return max_matvecs, f"max_matvecs={max_matvecs}"

    def add(self, count: int, advance: Advance) -> None:
        n = self._operator.shape[0]
        for size in split(count, self._block):
            rows = draw(size, n, self._generator, self._probes).to(self._operator.device)
            for z, image in zip(rows, multiply(self._operator, rows), strict=True):
                self.forms.add(z, image)
            advance(size)

    def copy(self) -> Self:
        other = copy.copy(self)
        other.forms = self.forms.copy()
        other._generator = torch.Generator().set_state(self._generator.get_state())
        return other

    def half_width(self, alpha: float) -> float:
        return self.forms.half_width(alpha)

    def result(self, alpha: float) -> TraceResult:
        estimate, half = self.forms.estimate, self.half_width(alpha)
        return TraceResult(
            estimate=estimate,
            stderr=math.sqrt(self.forms.variance),
            ci=(estimate - half, estimate + half),
            per_layer=layer_frame(
                list(self._operator.slices), self.forms.layers, self.forms.layer_stderr
            ),
            n_matvecs=self.n_matvecs,
            converged=False,
            reason="",
            seed=self._seed,
        )


def layer_frame(names: list[str], estimates: Tensor, stderr: Tensor) -> pd.DataFrame:
    """Return a row a slice: layer, estimate, stderr."""
    return pd.DataFrame({"layer": names, "estimate": estimates.tolist(), "stderr": stderr.tolist()})


def frobenius_norm(
    operator: SymmetricOperator,
    *,
    rtol: float | None = 0.05,
    n_probes: int | None = None,
    min_probes: int = SMALLEST,
    max_matvecs: int = MAX_MATVECS,
    probes: str = "rademacher",
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
    progress: bool = False,
) -> FrobeniusResult:
    """Return ‖H‖_F = sqrt(E‖H z‖²) with its 95 % interval.

    ``‖H z‖² = zᵀ H² z`` is a quadratic form too, of a variance of at most ``2 tr H⁴``, and
    ``tr H⁴ = E (H z · H z')²`` for independent z and z': pairs of products tell it. The interval is that of
    the logarithm.

    Args:
        operator: the operator.
        rtol: half-width at most ``rtol·estimate``.
        n_probes: exactly so many probes, at least 2, whatever the tolerance.
        min_probes: the first interim analysis, as in :func:`hutchinson_trace`.
        max_matvecs: the most products to spend.
        probes: ``"rademacher"`` or ``"gaussian"``.
        max_bytes: the most memory for vectors.
        seed: seed of the probes.
        progress: show a progress bar.

    Raises:
        InvalidInputError: no tolerance, too few probes, or no room for one vector.
    """
    check_probes(probes)
    tolerances = Tolerances(rtol)
    if n_probes is None and not tolerances:
        raise InvalidInputError("give a tolerance (rtol), or n_probes")
    max_matvecs = whole("max_matvecs", max_matvecs)
    most = max_matvecs if n_probes is None else whole("n_probes", n_probes)
    first = min(whole("min_probes", min_probes), most) if n_probes is None else most
    if first < 2:
        raise InvalidInputError(f"an interval needs at least 2 probes, got {first}")
    n = operator.shape[0]
    block = block_size(n, max_bytes, kept=8 * n, device=operator.device)
    generator = torch.Generator().manual_seed(seed_number(seed))
    alpha = STOPPED_ALPHA if n_probes is None else ALPHA
    squares, fourths, pairs = 0.0, 0.0, 0
    before: Tensor | None = None
    spent, converged, reason = 0, n_probes is not None, f"{most} probes as asked"
    with tqdm(desc="frobenius", unit="product", disable=not progress) as bar:
        for total in interim_analyses(first, most):
            for size in split(total - spent, block):
                rows = draw(size, n, generator, probes)
                images = multiply(operator, rows)
                inner = (images @ images.T).square()
                own = inner.diagonal().sqrt()
                squares += float(own.sum())
                fourths += float(inner.sum() - inner.diagonal().sum()) / 2
                pairs += size * (size - 1) // 2
                if before is not None:
                    fourths += float((images @ before).square().sum())
                    pairs += size
                before = images[-1].clone()
                bar.update(size)
            spent = total
            estimate = math.sqrt(squares / spent)
            # Of log ‖H z‖²: a scale errs in proportion to itself, and its interval holds no zero.
            deviation = math.sqrt(2 * fourths / pairs / spent) / estimate**2 if estimate else 0.0
            factor = math.exp(form_critical_value(spent, alpha) * deviation / 2)
            ci = (estimate / factor, estimate * factor)
            if n_probes is None:
                assert rtol is not None
                converged = (ci[1] - ci[0]) / 2 <= rtol * estimate
                reason = "converged (rtol)" if converged else f"stopped at max_matvecs={most}"
                if converged:
                    break
    return FrobeniusResult(
        estimate=estimate,
        stderr=estimate * deviation / 2,  # of a square root
        ci=ci,
        n_matvecs=spent,
        converged=converged,
        reason=reason,
        seed=seed,
    )
