"""tr(H) and ‖H‖_F by Hutchinson's estimator, stopped on an interval."""

from __future__ import annotations

import copy
import math
from typing import Final, Self

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
from lgn_analysis.hessian.estimators.stopping import MAX_MATVECS, Advance, Estimator, grow, run
from lgn_analysis.hessian.operators.linear import MAX_BYTES, SymmetricOperator
from lgn_analysis.hessian.results.intervals import (
    ALPHA,
    STOPPED_ALPHA,
    Tolerances,
    form_critical_value,
    interim_analyses,
)
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
        operator: H.
        probes: ``"rademacher"`` (exact on a diagonal matrix) or ``"gaussian"``.
        max_bytes: the most memory for vectors; it bounds how many are multiplied at a time.

    The other arguments are those of :meth:`lgn_analysis.HessianProbe.trace`.

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
    return run(
        Hutchinson(operator, probes=probes, max_bytes=max_bytes, seed=seed),
        n_probes=n_probes,
        tolerances=Tolerances(rtol, atol, ftol),
        smallest=min_probes,
        max_matvecs=max_matvecs,
        progress=progress,
    )


class Hutchinson(Estimator):
    """The mean of zᵀ H z so far.

    Args:
        operator: H.
        probes: the distribution of z.
        max_bytes: the most memory for vectors.
        seed: of the probes.
        kept: of it, what is kept beside the vectors that are multiplied; None is four of them.
    """

    def __init__(
        self,
        operator: SymmetricOperator,
        *,
        probes: str,
        max_bytes: int,
        seed: int,
        kept: int | None = None,
    ) -> None:
        check_probes(probes)
        n = operator.shape[0]
        kept = 32 * n if kept is None else kept
        self.forms = QuadraticForms(operator.slices, probes)
        self._operator = operator
        self._probes = probes
        self._block = block_size(n, max_bytes, kept=kept, device=operator.device)
        self.names, self.seed = list(operator.slices), seed_number(seed)
        self._generator = torch.Generator().manual_seed(self.seed)

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

    def add(self, count: int, advance: Advance) -> None:
        for size in split(count, self._block):
            rows = self._draw(size, self._generator)
            for z, image in zip(rows, self._images(rows), strict=True):
                self.forms.add(z, image)
            advance(size)

    def copy(self) -> Self:
        other = copy.copy(self)
        other.forms = self.forms.copy()
        other._generator = torch.Generator().set_state(self._generator.get_state())
        return other

    def half_width(self, alpha: float) -> float:
        return self.forms.half_width(alpha)

    def errors(self) -> tuple[float, Tensor, Tensor]:
        return math.sqrt(self.forms.variance), self.forms.layers, self.forms.layer_stderr

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        n = self._operator.shape[0]
        return draw(count, n, generator, self._probes).to(self._operator.device)

    def _images(self, rows: Tensor) -> Tensor:
        """Return what is multiplied with every probe, [k, n] for ``rows`` [k, n]."""
        return multiply(self._operator, rows)


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
    ``tr H⁴ = E (H z · H z')²`` for independent z and z': pairs of products estimate it. The interval is that of
    the logarithm.

    Args:
        operator: H; of a method of a probe, the probe.
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
    squares, fourths, pairs, spent = 0.0, 0.0, 0, 0
    before: Tensor | None = None

    def add(total: int) -> None:
        nonlocal squares, fourths, pairs, spent, before
        for size in split(total - spent, block):
            images = multiply(operator, draw(size, n, generator, probes))
            inner = (images @ images.T).square()
            squares += float(inner.diagonal().sqrt().sum())
            fourths += float(inner.sum() - inner.diagonal().sum()) / 2
            pairs += size * (size - 1) // 2
            if before is not None:
                fourths += float((images @ before).square().sum())
                pairs += size
            before = images[-1].clone()
            bar.update(size)
        spent = total

    def summary() -> tuple[float, float, tuple[float, float]]:
        """Return ‖H‖_F, the standard deviation of its logarithm's double, and the interval."""
        estimate = math.sqrt(squares / spent)
        # Of log ‖H z‖²: a scale errs in proportion to itself, and its interval holds no zero.
        deviation = math.sqrt(2 * fourths / pairs / spent) / estimate**2 if estimate else 0.0
        factor = math.exp(form_critical_value(spent, alpha) * deviation / 2)
        return estimate, deviation, (estimate / factor, estimate * factor)

    def half_width() -> float:
        low, high = summary()[2]
        return (high - low) / 2

    with tqdm(desc="frobenius", unit="product", disable=not progress) as bar:
        if n_probes is None:
            converged, reason = grow(
                interim_analyses(first, most),
                add,
                half_width,
                lambda: tolerances.allowed(summary()[0], None),
            )
            reason = reason if converged else f"stopped at max_matvecs={most}: {reason}"
        else:
            add(most)
            converged, reason = True, f"{most} probes as asked"
    estimate, deviation, ci = summary()
    return FrobeniusResult(
        estimate=estimate,
        stderr=estimate * deviation / 2,  # of a square root
        ci=ci,
        n_matvecs=spent,
        converged=converged,
        reason=reason,
        seed=seed,
    )
