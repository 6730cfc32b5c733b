"""Lanczos with two passes of Gram–Schmidt, and extremal eigenpairs from it.

The basis is orthogonalised twice in full (CGS2), so no ghost of a converged eigenvalue appears; the
breakdown test is relative to the scale of the spectrum; the tridiagonal matrix is float64 whatever
the operator's dtype, since its small eigenvalues are differences of large ones.

Source: Golub, Van Loan, *Matrix Computations*, 4th ed., ch. 10; Giraud, Langou, Rozložník (2005) for
"twice is enough".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from lgn_analysis.errors import InvalidInputError
from lgn_analysis.hessian.operators import MAX_BYTES, SymmetricOperator
from lgn_analysis.hessian.results import EigenResult

ENDS = ("LA", "SA", "LM", "BE")

_LOOK = 24
"""Steps before a new space may report that it found nothing: a random start needs some to show an
eigenvalue of which it holds a share of 1/n."""


@dataclass(frozen=True)
class Krylov:
    """A basis Q [n, m] with Qᵀ H Q = tridiagonal(alpha [m], beta [m − 1]).

    ``residual`` is the norm of what the last product leaves outside; zero after a breakdown, when
    the basis spans an invariant subspace.
    """

    basis: Tensor
    alpha: NDArray[np.float64]
    beta: NDArray[np.float64]
    residual: float

    @property
    def tridiagonal(self) -> NDArray[np.float64]:
        """The projected matrix [m, m]."""
        return np.diag(self.alpha) + np.diag(self.beta, 1) + np.diag(self.beta, -1)


def lanczos(operator: SymmetricOperator, start: Tensor, steps: int) -> Krylov:
    """Return the Krylov space of ``start`` after ``steps`` products, or fewer upon breakdown."""
    n = operator.shape[0]
    steps = min(steps, n)
    start = start.to(device=operator.device, dtype=operator.dtype)
    norm = float(torch.linalg.vector_norm(start))
    if not norm > 0:
        raise InvalidInputError("Lanczos needs a start vector other than zero")
    basis = torch.empty(n, steps, dtype=operator.dtype, device=operator.device)
    basis[:, 0] = start / norm
    alpha, beta = [], []
    eps = torch.finfo(operator.dtype).eps
    scale = residual = 0.0
    for step in range(steps):
        product = operator.matvec(basis[:, step])
        scale = max(scale, float(torch.linalg.vector_norm(product)))
        alpha.append(float(basis[:, step].double() @ product.double()))
        remainder = orthogonalise(product, basis[:, : step + 1])
        residual = float(torch.linalg.vector_norm(remainder))
        # Not times sqrt(n): at n = 10⁶ in float32 that is 10⁻³ of the scale, and a real remainder.
        # A remainder of pure rounding that passes is harmless: a random direction, nearly decoupled.
        if residual <= 10 * eps * scale:
            residual = 0.0
            break
        if step + 1 < steps:
            beta.append(residual)
            basis[:, step + 1] = normalised(remainder, basis[:, : step + 1])
    m = len(alpha)
    return Krylov(basis[:, :m], np.array(alpha), np.array(beta[: m - 1]), residual)


def orthogonalise(v: Tensor, basis: Tensor) -> Tensor:
    """Return v less its projection on an orthonormal basis [n, m], in two passes."""
    for _ in range(2):
        v = v - basis @ (basis.T @ v)
    return v


def normalised(remainder: Tensor, basis: Tensor) -> Tensor:
    """Return a unit vector along ``remainder``, orthogonal to the basis to rounding.

    Normalising a small remainder magnifies what rounding left in it of the basis.
    """
    v = orthogonalise(remainder / torch.linalg.vector_norm(remainder), basis)
    return v / torch.linalg.vector_norm(v)


def top_eigenpairs(
    operator: SymmetricOperator,
    *,
    k: int = 10,
    which: str = "BE",
    tol: float = 1e-6,
    max_matvecs: int | None = None,
    seed: int = 0,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> EigenResult:
    """Return k eigenpairs H v = λ v at the ends of the spectrum.

    A Krylov space sees each multiple eigenvalue once. So pairs that have converged are locked, and a
    new space, from a random start orthogonal to them, looks for copies and for more extreme values;
    the pairs count as converged when such a space ends with nothing beyond them. Restarted as the
    first one was, it costs about as much again, less what need not converge.

    Memory: the locked pairs and one basis, n · (k + products) numbers, at most ``max_bytes``.

    Args:
        operator: the operator.
        k: number of pairs, at most n.
        which: ``"LA"`` largest, ``"SA"`` smallest, ``"LM"`` largest in magnitude, ``"BE"`` half at
            each end, the odd one at the upper, as SciPy has it.
        tol: residual ‖H v − λ v‖ relative to the largest |eigenvalue|.
        max_matvecs: the most products to spend; None is ``20·k + 400``.
        seed: seed of the start vectors.
        max_bytes: the most memory that basis and pairs may take.
        progress: show a progress bar.
    """
    n = operator.shape[0]
    if which not in ENDS:
        raise InvalidInputError(f"which must be one of {', '.join(ENDS)}, got {which!r}")
    if not 1 <= k <= n:
        raise InvalidInputError(f"k must lie in 1..{n}, got {k}")
    allowed = 20 * k + 400 if max_matvecs is None else max_matvecs
    if allowed < 2 * k:
        raise InvalidInputError(f"{k} pairs need at least {2 * k} products, got {allowed}")
    budget = allowed - k  # the residuals at the end take one product a pair
    room = max_bytes // (n * operator.dtype.itemsize)
    if room < k + 2:
        raise InvalidInputError(
            f"{k} vectors of {n} numbers take {n * k * operator.dtype.itemsize / 2**30:.1f} GiB, and "
            f"max_bytes allows {max_bytes / 2**30:.1f}; lower k, or raise max_bytes"
        )
    generator = torch.Generator().manual_seed(seed)
    locked = torch.empty(n, 0, dtype=operator.dtype, device=operator.device)
    values = np.empty(0)
    scale = 0.0
    reason = ""
    spent = 0
    bar = tqdm(total=budget, desc="eigs", unit="product", disable=not progress)
    while not reason:
        space = _Space(operator, locked, generator, scale, room)
        check = 1
        while True:
            if not space.full and spent < budget:
                space.grow()
                spent += 1
                bar.update()
            out = ""
            if not space.complete and (space.full or spent >= budget):
                out = "max_bytes" if space.full else "max_matvecs"
            if not (space.size >= check or out or space.complete):
                continue
            check = space.size + max(1, space.size // 8)
            ritz, rotation, error = space.ritz()
            scale = max(scale, float(np.abs([*values, *ritz]).max()))
            # Half the tolerance: the residuals that count are computed anew at the end.
            sharp = error <= 0.5 * tol * scale
            known = np.concatenate([values, ritz])
            wanted = np.zeros(len(known), dtype=bool)
            if len(known) >= k:
                wanted[_choose_unsorted(known, k, which)] = True
            new = wanted[len(values) :]
            done = len(known) >= k and bool(sharp[new].all())
            if done and not space.complete and not new.any():
                done = space.size >= min(_LOOK, n) and not _may_be_wanted(
                    ritz, error, values[wanted[: len(values)]], which, tol * scale
                )
            if done or out or space.complete:
                break
        take = new if len(known) >= k else np.ones(len(ritz), dtype=bool)
        if take.any():
            locked = torch.cat([locked, space.vectors(rotation[:, take])], dim=1)
            values = np.concatenate([values, ritz[take]])
        if out and (not done or new.any()):
            reason = f"stopped after {spent + k} products"
            if out == "max_bytes":
                reason += f", where the basis of {space.size} vectors fills max_bytes"
        elif space.complete or not new.any():
            reason = "converged"
    bar.close()
    keep = _choose_unsorted(values, min(k, len(values)), which)
    values, vectors, residuals = _refined(operator, locked[:, keep], scale)
    converged = reason == "converged" and bool((residuals <= tol).all())
    if reason == "converged" and not converged:
        reason = (
            f"the residuals stop at {residuals.max():.1e}, above tol = {tol:.1e}: the accuracy of "
            f"products in {operator.dtype}"
        )
    return EigenResult(
        values=values,
        vectors=vectors,
        residuals=residuals,
        n_matvecs=spent + len(keep),
        converged=converged,
        reason=reason,
        which=which,
        seed=seed,
    )


class _Space:
    """A Krylov space of H on the complement of the locked vectors, grown product by product."""

    def __init__(
        self,
        operator: SymmetricOperator,
        locked: Tensor,
        generator: torch.Generator,
        scale: float,
        room: int,
    ) -> None:
        n = operator.shape[0]
        self.operator = operator
        self.generator = generator
        self.scale = scale
        self.size = 0
        self._locked = locked.shape[1]
        self._limit = min(n, room)
        # Locked vectors and basis share one matrix, so that one product orthogonalises to both.
        self._rows = torch.empty(
            self._locked + min(_LOOK, n), n, dtype=operator.dtype, device=operator.device
        )
        self._rows[: self._locked] = locked.T
        self._alpha: list[float] = []
        self._beta: list[float] = []
        self._remainder = 0.0
        if not self.complete:
            self._next = self._random()

    @property
    def complete(self) -> bool:
        """Whether locked vectors and basis span everything."""
        return self._locked + self.size == self.operator.shape[0]

    @property
    def full(self) -> bool:
        """Whether there is no room for another vector."""
        return self._locked + self.size >= self._limit

    def grow(self) -> None:
        """Multiply one more vector: the last remainder, or after a breakdown a random one."""
        end = self._locked + self.size
        if end == len(self._rows):
            more = min(len(self._rows), self._limit - len(self._rows))
            self._rows = torch.cat([self._rows, self._rows.new_empty(more, self._rows.shape[1])])
        self._rows[end] = self._next
        self.size += 1
        product = self.operator.matvec(self._next)
        self.scale = max(self.scale, float(torch.linalg.vector_norm(product)))
        self._alpha.append(float(self._next.double() @ product.double()))
        if self.size > 1:
            self._beta.append(self._remainder)
        basis = self._rows[: end + 1].T
        remainder = orthogonalise(product, basis)
        self._remainder = float(torch.linalg.vector_norm(remainder))
        if self._remainder <= 10 * torch.finfo(product.dtype).eps * self.scale:
            self._remainder = 0.0
            if not self.complete:
                self._next = self._random()
        else:
            self._next = normalised(remainder, basis)

    def ritz(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return Ritz values [m], their coordinates [m, m] and residual norms [m]."""
        matrix = np.diag(self._alpha) + np.diag(self._beta, 1) + np.diag(self._beta, -1)
        values, rotation = np.linalg.eigh(matrix)
        return values, rotation, np.abs(self._remainder * rotation[-1])

    def vectors(self, coordinates: NDArray[np.float64]) -> Tensor:
        """Return unit vectors [n, j] for coordinates [m, j]."""
        turn = torch.from_numpy(np.ascontiguousarray(coordinates)).to(self._rows)
        vectors = self._rows[self._locked : self._locked + self.size].T @ turn
        return vectors / torch.linalg.vector_norm(vectors, dim=0)

    def _random(self) -> Tensor:
        v = torch.randn(self.operator.shape[0], generator=self.generator, dtype=torch.float64)
        v = v.to(self._rows)
        return normalised(v, self._rows[: self._locked + self.size].T)


def _may_be_wanted(
    ritz: NDArray[np.float64],
    error: NDArray[np.float64],
    held: NDArray[np.float64],
    which: str,
    slack: float,
) -> bool:
    """Return whether a Ritz value, moved by its residual, would displace one of the pairs held."""
    high, low = float((ritz + error).max()), float((ritz - error).min())
    if which == "LA":
        return high > held.min() + slack
    if which == "SA":
        return low < held.max() - slack
    if which == "LM":
        return max(high, -low) > np.abs(held).min() + slack
    ordered = np.sort(held)[::-1]
    upper = len(held) - len(held) // 2
    return high > ordered[upper - 1] + slack or (upper < len(held) and low < ordered[upper] - slack)


def _refined(
    operator: SymmetricOperator, vectors: Tensor, scale: float
) -> tuple[NDArray[np.float64], Tensor, NDArray[np.float64]]:
    """Return values, float64 vectors and true relative residuals, by one more product of each."""
    products = operator.matmat(vectors).double()
    basis = vectors.double()
    projected = (basis.T @ products).cpu().numpy()
    values, rotation = np.linalg.eigh((projected + projected.T) / 2)
    values, rotation = values[::-1].copy(), rotation[:, ::-1]
    turn = torch.from_numpy(np.ascontiguousarray(rotation)).to(basis)
    basis, products = basis @ turn, products @ turn
    gaps = torch.linalg.vector_norm(products - basis * torch.from_numpy(values).to(basis), dim=0)
    return values, basis, (gaps / (scale or 1.0)).cpu().numpy()


def _choose_unsorted(values: NDArray[np.float64], k: int, which: str) -> NDArray[np.intp]:
    """Return the places of the k wanted values, largest first."""
    order = np.argsort(values, kind="stable")
    return order[_choose(values[order], k, which)]


def _choose(values: NDArray[np.float64], k: int, which: str) -> NDArray[np.intp]:
    """Return the places of the wanted values, largest first; ``values`` rise."""
    order = np.arange(len(values))[::-1]
    if which == "LA":
        return order[:k]
    if which == "SA":
        return order[len(order) - k :]
    if which == "LM":
        return np.sort(np.argsort(-np.abs(values), kind="stable")[:k])[::-1]
    upper = k - k // 2
    return np.concatenate([order[:upper], order[len(order) - k // 2 :]])
