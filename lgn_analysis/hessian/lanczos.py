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
from lgn_analysis.hessian.operators import SymmetricOperator
from lgn_analysis.hessian.results import EigenResult

ENDS = ("LA", "SA", "LM", "BE")


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
        if residual <= 10 * eps * scale * np.sqrt(n):
            residual = 0.0
            break
        if step + 1 < steps:
            beta.append(residual)
            basis[:, step + 1] = remainder / residual
    m = len(alpha)
    return Krylov(basis[:, :m], np.array(alpha), np.array(beta[: m - 1]), residual)


def orthogonalise(v: Tensor, basis: Tensor) -> Tensor:
    """Return v less its projection on an orthonormal basis [n, m], in two passes."""
    for _ in range(2):
        v = v - basis @ (basis.T @ v)
    return v


def top_eigenpairs(
    operator: SymmetricOperator,
    *,
    k: int = 10,
    which: str = "BE",
    tol: float = 1e-6,
    max_matvecs: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> EigenResult:
    """Return k eigenpairs H v = λ v at the ends of the spectrum.

    One Krylov space sees each multiple eigenvalue once. After it has converged, a new random start
    orthogonal to the pairs found looks for copies it missed, and so on until it finds none.

    Args:
        operator: the operator.
        k: number of pairs, at most n.
        which: ``"LA"`` largest, ``"SA"`` smallest, ``"LM"`` largest in magnitude, ``"BE"`` half at
            each end, the odd one at the upper, as SciPy has it.
        tol: residual ‖H v − λ v‖ relative to the largest |eigenvalue|.
        max_matvecs: the most products to spend; None is ``20·k + 200``.
        seed: seed of the start vectors.
        progress: show a progress bar.
    """
    n = operator.shape[0]
    if which not in ENDS:
        raise InvalidInputError(f"which must be one of {', '.join(ENDS)}, got {which!r}")
    if not 1 <= k <= n:
        raise InvalidInputError(f"k must lie in 1..{n}, got {k}")
    budget = min(n, 20 * k + 200 if max_matvecs is None else max_matvecs)
    space = _Space(operator, torch.Generator().manual_seed(seed))
    bar = tqdm(total=budget, desc="eigs", unit="product", disable=not progress)
    settled: NDArray[np.float64] | None = None
    values = np.empty(0)
    residuals = np.full(1, np.inf)
    vectors = torch.empty(n, 0)
    converged = False
    while space.size < budget:
        for _ in range(min(max(k, 8), budget - space.size)):
            space.grow()
            bar.update()
        if space.size < k:
            continue
        values, vectors, residuals = space.ritz(k, which)
        if space.size == n:
            converged = bool((residuals <= tol).all())
            break
        if (residuals <= tol).all():
            # Converged in the space of its start vectors; a copy of a multiple eigenvalue would
            # only enter with another start vector.
            scale = np.abs(values).max() or 1.0
            if settled is not None and np.allclose(values, settled, rtol=0, atol=tol * scale):
                converged = True
                break
            settled = values
            space.restart()
    bar.close()
    return EigenResult(
        values=values,
        vectors=vectors,
        residuals=residuals,
        n_matvecs=space.size,
        converged=converged,
        reason="converged" if converged else f"stopped after {space.size} products",
        which=which,
        seed=seed,
    )


class _Space:
    """A growing orthonormal basis with its products, in which Rayleigh–Ritz is done."""

    def __init__(self, operator: SymmetricOperator, generator: torch.Generator) -> None:
        self.operator = operator
        self.generator = generator
        self.scale = 0.0
        self._columns: list[Tensor] = []
        self._products: list[Tensor] = []
        self._next = self._random()

    @property
    def size(self) -> int:
        return len(self._columns)

    def grow(self) -> None:
        """Multiply one more vector, the remainder of the last product where there is one."""
        column = self._next
        product = self.operator.matvec(column)
        self._columns.append(column)
        self._products.append(product)
        norm = float(torch.linalg.vector_norm(product))
        self.scale = max(self.scale, norm)
        remainder = orthogonalise(product, self.basis)
        left = float(torch.linalg.vector_norm(remainder))
        eps = torch.finfo(column.dtype).eps
        if left <= 10 * eps * self.scale * len(column) ** 0.5:
            self.restart()
        else:
            # Normalising a small remainder magnifies what rounding left in it of the basis.
            remainder = orthogonalise(remainder / left, self.basis)
            self._next = remainder / torch.linalg.vector_norm(remainder)

    def restart(self) -> None:
        """Go on from a random vector orthogonal to the basis."""
        if self.size < self.operator.shape[0]:
            remainder = orthogonalise(self._random(), self.basis)
            self._next = remainder / torch.linalg.vector_norm(remainder)

    @property
    def basis(self) -> Tensor:
        return torch.stack(self._columns, dim=1)

    def ritz(self, k: int, which: str) -> tuple[NDArray[np.float64], Tensor, NDArray[np.float64]]:
        """Return k Ritz values, vectors [n, k] and relative residuals, in falling order."""
        basis, products = self.basis.double(), torch.stack(self._products, dim=1).double()
        projected = basis.T @ products
        values, rotation = np.linalg.eigh(((projected + projected.T) / 2).cpu().numpy())
        chosen = _choose(values, k, which)
        turn = torch.from_numpy(np.ascontiguousarray(rotation[:, chosen])).to(basis.device)
        vectors = basis @ turn
        wanted = torch.from_numpy(values[chosen]).to(basis.device)
        gaps = torch.linalg.vector_norm(products @ turn - vectors * wanted, dim=0)
        scale = float(np.abs(values).max()) or 1.0
        return values[chosen], vectors, (gaps / scale).cpu().numpy()

    def _random(self) -> Tensor:
        v = torch.randn(self.operator.shape[0], generator=self.generator, dtype=torch.float64)
        return (v / v.norm()).to(device=self.operator.device, dtype=self.operator.dtype)


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
