"""tr(H) by XTrace: every product serves the low-rank part of all estimates but its own.

For each test vector ω_i let Q_i span the images of all *other* test vectors and P_i = I − Q_i Q_iᵀ.
Then ω_i is independent of Q_i, and with test vectors of uniform direction

    t_i = tr(Q_iᵀ H Q_i) + (n − m + 1) · v_iᵀ H v_i / ‖v_i‖²,   v_i = P_i ω_i,

is an unbiased estimate of tr(H). XTrace is the mean of all t_i. With Q that of all images,
H Ω = Q R, leaving out the i-th costs Q one direction: ``Q_i Q_iᵀ = Q (I − s_i s_iᵀ) Qᵀ``, s_i the i-th
column of R⁻ᵀ, normalised. So 2m products, H Ω and H Q, serve all m estimates.

Dividing by ‖v_i‖² makes it exact on multiples of the identity, and on any H of n = m.

Source: Epperly, Tropp, Webber, *XTrace: making the most of every sample in stochastic trace
estimation*, SIAM J. Matrix Anal. Appl. 45 (2024), sections 2.1 and 2.3.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Final, Self

import torch
from scipy.special import stdtrit
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.memory import format_bytes, require_memory
from lgn_analysis.base.validation import seed_number
from lgn_analysis.gates.noise import Purpose, generator_for
from lgn_analysis.hessian.estimators.hutchpp import rounding
from lgn_analysis.hessian.estimators.quadratic_forms import block_size, draw, multiply, split
from lgn_analysis.hessian.estimators.rows import CHUNK, Rows, append_orthonormal
from lgn_analysis.hessian.estimators.stopping import MAX_MATVECS, Advance, Estimator, run
from lgn_analysis.hessian.operators.linear import MAX_BYTES, SymmetricOperator
from lgn_analysis.hessian.results.intervals import Tolerances
from lgn_analysis.hessian.results.trace import TraceResult

SMALLEST: Final = 16
"""Test vectors of the first interim analysis."""

_WORK: Final = 8
"""float64 vectors that the algebra takes for each test vector of a block, beside what is kept."""
_WORK_SHARE: Final = 4
"""They take at most this part of the memory."""


def xtrace_trace(
    operator: SymmetricOperator,
    *,
    rtol: float | None = 0.01,
    atol: float | None = None,
    ftol: float | None = None,
    n_probes: int | None = None,
    min_probes: int = SMALLEST,
    max_matvecs: int = MAX_MATVECS,
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
    progress: bool = False,
) -> TraceResult:
    """Return tr(H) by XTrace, with an error estimate and no interval; H may be indefinite.

    The error estimate is the spread of the t_i over √m, as in the paper. The t_i share almost all of
    their products, so it is no standard error, and no interval is built on it: ``ci`` is NaN. In
    ``benchmarks/trace_coverage.py`` it came out at 0.63 to 0.92 of the true root mean square error. A
    tolerance is held against what would be the half-width if the t_i were independent.

    A sketch whose rank is below its size spans the range of H, unless by a chance of probability zero:
    then tr(QᵀHQ) is the trace, and the error estimate bounds what rounding hides.

    Args:
        operator: H.
        n_probes: exactly so many test vectors, at least 2, whatever the tolerances; two products each.
        min_probes: test vectors of the first interim analysis.
        max_bytes: the most memory for vectors; three of n numbers are kept for each test vector.

    The other arguments are those of :meth:`lgn_analysis.HessianProbe.trace`.

    Raises:
        InvalidInputError: no tolerance, too few test vectors, or no room for them.

    >>> from lgn_analysis.hessian import DenseOperator
    >>> round(xtrace_trace(DenseOperator(torch.eye(50).double()), n_probes=4).estimate, 10)
    50.0
    """
    return run(
        _XTrace(operator, max_bytes=max_bytes, seed=seed),
        n_probes=n_probes,
        tolerances=Tolerances(rtol, atol, ftol),
        smallest=min_probes,
        max_matvecs=max_matvecs,
        progress=progress,
    )


@dataclass(frozen=True)
class _Summary:
    """The estimate from m test vectors.

    Attributes:
        layers: the t_i, split by slices, float64 [m, n_slices]; [1, n_slices] of a sketch that spans.
        error: the error estimate.
    """

    layers: Tensor
    error: float

    @property
    def estimate(self) -> float:
        return float(self.layers.sum(1).mean())

    @property
    def layer_errors(self) -> Tensor:
        m = len(self.layers)
        if m == 1:
            return torch.full_like(self.layers[0], self.error)
        return self.layers.std(0) / math.sqrt(m)


class _XTrace(Estimator):
    """Test vectors, a basis of their images, and the products with that basis."""

    error_kind = "error estimate"

    def __init__(self, operator: SymmetricOperator, *, max_bytes: int, seed: int) -> None:
        n = operator.shape[0]
        self._operator = operator
        self._max_bytes = max_bytes
        self._block = block_size(n, max_bytes // _WORK_SHARE, copies=_WORK, device=operator.device)
        self.names, self.seed = list(operator.slices), seed_number(seed)
        self._generator = generator_for(seed, Purpose.PROBE, 2)
        self._tests = Rows(n, operator.dtype, operator.device)
        self._basis = Rows(n, torch.float64, operator.device)
        self._images = Rows(n, torch.float64, operator.device)  # H q for every q of the basis
        self._coordinates: list[Tensor] = []  # H ω in the basis, of every ω
        self._outside: list[float] = []  # what of H ω was left out as rounding
        self._squares = 0.0
        self._summary: _Summary | None = None

    @property
    def n_probes(self) -> int:
        return len(self._tests)

    @property
    def n_matvecs(self) -> int:
        return len(self._tests) + len(self._images)

    @property
    def estimate(self) -> float:
        return self._summarise().estimate

    @property
    def frobenius(self) -> float:
        return math.sqrt(self._squares / len(self._tests))

    def limit(self, max_matvecs: int) -> tuple[int, str]:
        capacity, allowed = self._capacity(), max_matvecs // 2
        if capacity < allowed:
            return capacity, f"max_bytes ({format_bytes(self._max_bytes)})"
        return allowed, f"max_matvecs={max_matvecs}"

    def add(self, count: int, advance: Advance) -> None:
        if (total := len(self._tests) + count) > (capacity := self._capacity()):
            raise InvalidInputError(
                f"{total} test vectors of {self._operator.shape[0]} numbers do not fit max_bytes = "
                f"{format_bytes(self._max_bytes)}, which has room for {capacity}; ask for fewer, or "
                "raise max_bytes"
            )
        require_memory(
            count * self._each,
            f"{count} more test vectors of {self._operator.shape[0]} numbers",
            "ask for fewer, or lower max_bytes",
            device=self._operator.device,
        )
        self._summary = None
        tolerance = rounding(self._operator)
        for size in split(count, self._block):
            tests = self._draw(size)
            before = len(self._basis)
            for test, image in zip(tests, multiply(self._operator, tests), strict=True):
                self._tests.append(test)
                self._squares += float(image @ image)
                coordinates, outside = append_orthonormal(self._basis, image, tolerance)
                self._coordinates.append(coordinates)
                if len(coordinates) < len(self._tests):
                    self._outside.append(outside)
            if len(self._basis) > before:
                added = self._basis.between(before, len(self._basis))
                for image in multiply(self._operator, added):
                    self._images.append(image)
            advance(size + len(self._basis) - before)

    def copy(self) -> Self:
        other = copy.copy(self)
        for name in ("_tests", "_basis", "_images", "_coordinates", "_outside"):
            setattr(other, name, getattr(self, name).copy())
        other._generator = torch.Generator().set_state(self._generator.get_state())
        return other

    def half_width(self, alpha: float) -> float:
        return float(stdtrit(self.n_probes - 1, 1 - alpha / 2)) * self._summarise().error

    def errors(self) -> tuple[float, Tensor, Tensor]:
        summary = self._summarise()
        return summary.error, summary.layers.mean(0), summary.layer_errors

    @property
    def reason(self) -> str:
        rank = len(self._basis)
        return f"the sketch spans the range, of rank {rank}" if rank < self.n_probes else ""

    def _capacity(self) -> int:
        """Return how many test vectors fit: each, its basis vector and that one's image."""
        work = _WORK * 8 * self._operator.shape[0] * self._block
        return max(0, (self._max_bytes - work) // self._each // CHUNK * CHUNK)

    @property
    def _each(self) -> int:
        """Bytes that are kept of each test vector."""
        return self._operator.shape[0] * (self._operator.dtype.itemsize + 16)

    def _draw(self, count: int) -> Tensor:
        n = self._operator.shape[0]
        rows = draw(count, n, self._generator, "gaussian")
        rows *= math.sqrt(n) / rows.norm(dim=1, keepdim=True)
        # The vectors that are multiplied, not those before they were rounded.
        return rows.to(self._operator.device, self._operator.dtype).double()

    def _slices(self, diagonals: Tensor) -> Tensor:
        """Return sums over slices [k, n_slices] of rows [k, n]."""
        parts = [diagonals[:, where].sum(1) for where in self._operator.slices.values()]
        return torch.stack(parts, dim=1)

    def _summarise(self) -> _Summary:
        if self._summary is None:
            captured = self._captured()
            if len(self._basis) < self.n_probes:
                self._summary = self._spanned(captured)
            else:
                terms = self._terms(captured)
                error = float(terms.sum(1).std()) / math.sqrt(len(terms))
                self._summary = _Summary(terms.cpu(), error)
        return self._summary

    def _captured(self) -> Tensor:
        """Return diag(QQᵀH + HQQᵀ − QQᵀHQQᵀ) [n]."""
        total = torch.zeros(self._operator.shape[0], dtype=torch.float64)
        total = total.to(self._operator.device)
        for q, image in zip(self._basis.chunks, self._images.chunks, strict=True):
            total += (q * (2 * image - self._basis.combine(self._basis.inner(image)))).sum(0)
        return total

    def _spanned(self, captured: Tensor) -> _Summary:
        """Return tr(QᵀHQ), with |tr(PHP)| <= √dim(P) ‖PH‖_F for what P hides."""
        free = self._operator.shape[0] - len(self._basis)
        hidden = math.sqrt(sum(norm**2 for norm in self._outside) / len(self._outside))
        error = math.sqrt(free) * hidden + rounding(self._operator) * self.frobenius
        return _Summary(self._slices(captured.unsqueeze(0)).cpu(), error)

    def _terms(self, captured: Tensor) -> Tensor:
        """Return every t_i split by slices, [m, n_slices]."""
        m, n = self.n_probes, self._operator.shape[0]
        r = captured.new_zeros(m, m)
        for column, coordinates in enumerate(self._coordinates):
            r[: len(coordinates), column] = coordinates
        inner = torch.cat([self._images.inner(q) for q in self._basis.chunks], dim=1)  # Qᵀ H Q
        eye = torch.eye(m, dtype=torch.float64, device=r.device)
        s = torch.linalg.solve_triangular(r, eye, upper=True).T
        s = s / s.norm(dim=0)
        terms = []
        for start in range(0, m, self._block):
            block = slice(start, start + self._block)
            tests = self._tests.between(start, block.stop)
            left, shares = s[:, block], self._basis.inner(tests)
            # v = ω − Q (I − ssᵀ) Qᵀω, and P_i H v from H ω = Q r and H Q.
            kept = shares - left * (left * shares).sum(0)
            v = tests - self._basis.combine(kept)
            out = r[:, block] - inner @ kept
            back = out - left * (left * out).sum(0)
            image = self._basis.combine(r[:, block] - back) - self._images.combine(kept)
            rest = v * image * ((n - m + 1) / v.square().sum(1, keepdim=True))
            # What Q_i captures: all that Q does, less what s_i took part in.
            gone = self._basis.combine(left)
            image = 2 * self._images.combine(left) - 2 * self._basis.combine(inner @ left)
            image += (left * (inner @ left)).sum(0).unsqueeze(1) * gone
            terms.append(self._slices(captured + rest - gone * image))
        return torch.cat(terms)
