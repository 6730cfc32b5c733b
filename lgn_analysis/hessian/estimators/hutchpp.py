"""tr(H) by Hutch++: the part in a sketch of the range exactly, the rest by Hutchinson's estimator."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.memory import format_bytes
from lgn_analysis.base.validation import whole
from lgn_analysis.gates.noise import Purpose, generator_for
from lgn_analysis.hessian.estimators.quadratic_forms import check_probes, multiply, split
from lgn_analysis.hessian.estimators.rows import CHUNK, Rows, append_orthonormal
from lgn_analysis.hessian.estimators.stopping import MAX_MATVECS, Advance, run
from lgn_analysis.hessian.estimators.trace import SMALLEST, Hutchinson
from lgn_analysis.hessian.operators.linear import MAX_BYTES, SymmetricOperator
from lgn_analysis.hessian.results.intervals import Tolerances
from lgn_analysis.hessian.results.trace import TraceResult

_MARGIN: Final = 100


def hutchpp_trace(
    operator: SymmetricOperator,
    *,
    rtol: float | None = 0.01,
    atol: float | None = None,
    ftol: float | None = None,
    n_probes: int | None = None,
    sketch: int | None = None,
    min_probes: int = SMALLEST,
    max_matvecs: int = MAX_MATVECS,
    probes: str = "rademacher",
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
    progress: bool = False,
) -> TraceResult:
    """Return tr(H) = tr(QᵀHQ) + E[zᵀ P H P z], P = I − QQᵀ, with its 95 % interval.

    Q is an orthonormal basis of H S for a random S [n, sketch]. Given Q the second part is
    Hutchinson's estimate of what is left, by probes independent of Q: it is unbiased, and its
    interval holds whatever Q is; ``100 eps ‖H‖_F`` are added to it for the rounding of products. H may be
    indefinite. Adding probes keeps the sketch.

    The trace of a slice is that of ``E(QQᵀH + HQQᵀ − QQᵀHQQᵀ + PHP)``, E the projection on it; the first
    three are exact given Q, and the layers add up to the whole.

    Args:
        operator: H.
        n_probes: exactly so many probes of the rest, at least 2, whatever the tolerances.
        sketch: columns of S, two products each; None is ``n_probes``, the paper's third of all
            products for each part, or ``min_probes`` where a tolerance decides.
        max_bytes: the most memory for vectors: the sketch takes n · sketch numbers in float64.

    The other arguments are those of :meth:`lgn_analysis.HessianProbe.trace`; probes are of the rest,
    ``probes`` and ``seed`` of sketch and rest, and ``ftol`` goes by the sketch's products.

    Raises:
        InvalidInputError: no tolerance, too few probes, or no room for the sketch.

    Source: Meyer, Musco, Musco, Woodruff, *Hutch++: optimal stochastic trace estimation*, SOSA 2021,
    Algorithm 1.

    >>> from lgn_analysis.hessian import DenseOperator
    >>> low_rank = torch.zeros(9, 9, dtype=torch.float64)
    >>> low_rank[0, 0], low_rank[5, 5] = 3.0, -1.0
    >>> round(hutchpp_trace(DenseOperator(low_rank), n_probes=2).estimate, 12)
    2.0
    """
    if sketch is None:
        sketch = (
            whole("min_probes", min_probes) if n_probes is None else whole("n_probes", n_probes)
        )
    estimator = _HutchPlusPlus(
        operator, sketch=sketch, probes=probes, max_bytes=max_bytes, seed=seed
    )
    # Refused before the sketch is paid for.
    if n_probes is None and 2 * sketch + 2 > whole("max_matvecs", max_matvecs):
        raise InvalidInputError(
            f"a sketch of {sketch} takes {2 * sketch} products and leaves fewer than 2 probes within "
            f"max_matvecs={max_matvecs}; lower sketch, or raise max_matvecs"
        )
    return run(
        estimator,
        n_probes=n_probes,
        tolerances=Tolerances(rtol, atol, ftol),
        smallest=min_probes,
        max_matvecs=max_matvecs,
        progress=progress,
    )


def rounding(operator: SymmetricOperator) -> float:
    """Return the share of a product that may be rounding."""
    return _MARGIN * torch.finfo(operator.dtype).eps


class _HutchPlusPlus(Hutchinson):
    """The exact part in span(Q), and the mean of the forms of P H P."""

    def __init__(
        self, operator: SymmetricOperator, *, sketch: int, probes: str, max_bytes: int, seed: int
    ) -> None:
        check_probes(probes)
        self._sketch = whole("sketch", sketch, least=1)
        n = operator.shape[0]
        if (needed := 8 * n * (self._sketch + CHUNK)) > max_bytes:
            raise InvalidInputError(
                f"a sketch of {sketch} vectors of {n} numbers takes {format_bytes(needed)}, and "
                f"max_bytes allows {format_bytes(max_bytes)}; lower sketch, or raise max_bytes"
            )
        super().__init__(operator, probes=probes, max_bytes=max_bytes, seed=seed, kept=needed)
        self._generator = generator_for(seed, Purpose.PROBE, 0)
        self._basis = Rows(n, torch.float64, operator.device)  # a copy shares it: it stays as it is
        self._captured: Tensor | None = None  # of each slice
        self._squares = 0.0
        self._sketched = 0  # products spent on Q

    @property
    def n_matvecs(self) -> int:
        return self._sketched + self.forms.count

    @property
    def estimate(self) -> float:
        assert self._captured is not None
        return float(self._captured.sum()) + self.forms.estimate

    @property
    def frobenius(self) -> float:
        return math.sqrt(self._squares / self._sketch)

    @property
    def reason(self) -> str:
        return f"exact on {len(self._basis)} sketched directions, probes in the rest"

    def limit(self, max_matvecs: int) -> tuple[int, str]:
        spent = self._sketched or 2 * self._sketch
        return max_matvecs - spent, f"max_matvecs={max_matvecs}"

    def add(self, count: int, advance: Advance) -> None:
        if self._captured is None:
            self._find_basis(advance)
            self._captured = self._capture(advance)
        super().add(count, advance)

    def errors(self) -> tuple[float, Tensor, Tensor]:
        assert self._captured is not None
        stderr, layers, layer_errors = super().errors()
        return stderr, self._captured + layers, layer_errors

    def half_width(self, alpha: float) -> float:
        return super().half_width(alpha) + rounding(self._operator) * self.frobenius

    def _images(self, rows: Tensor) -> Tensor:
        return self._rest(super()._images(self._rest(rows)))

    def _rest(self, rows: Tensor) -> Tensor:
        """Return P v for every row: one at a time, so that no bit depends on how many there are."""
        parts = [row - self._basis.combine(self._basis.inner(row)) for row in rows.split(1)]
        return torch.cat(parts)

    def _find_basis(self, advance: Advance) -> None:
        generator = generator_for(self.seed, Purpose.PROBE, 1)
        tolerance = rounding(self._operator)
        for size in split(self._sketch, self._block):
            for image in multiply(self._operator, self._draw(size, generator)):
                self._squares += float(image @ image)
                append_orthonormal(self._basis, image, tolerance)
            self._sketched += size
            advance(size)

    def _capture(self, advance: Advance) -> Tensor:
        """Return ``2 tr(E QQᵀH) − tr(E QQᵀHQQᵀ)`` of each slice."""
        total = torch.zeros(self._operator.shape[0], dtype=torch.float64)
        total = total.to(self._operator.device)
        for chunk in self._basis.chunks:
            images = torch.cat(
                [multiply(self._operator, part) for part in chunk.split(self._block)]
            )
            inside = self._basis.combine(self._basis.inner(images))
            total += (chunk * (2 * images - inside)).sum(0)
            self._sketched += len(chunk)
            advance(len(chunk))
        return torch.stack([total[where].sum() for where in self._operator.slices.values()]).cpu()
