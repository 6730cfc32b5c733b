"""The Lanczos recurrence from one vector.

Each new vector is made orthogonal to all the others in as many passes as it takes, so no ghost of a
converged eigenvalue appears; the breakdown test is relative to the scale of the spectrum; the
tridiagonal matrix is float64 whatever the operator's dtype, since its small eigenvalues are
differences of large ones.

Source: Golub, Van Loan, *Matrix Computations*, 4th ed., ch. 10; Giraud, Langou, Rozložník (2005) for
"twice is enough".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import whole
from lgn_analysis.hessian.estimators.basis import remove
from lgn_analysis.hessian.operators.linear import SymmetricOperator


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
    """Return the Krylov space of ``start`` [n] after ``steps`` products, or fewer upon breakdown.

    >>> from lgn_analysis.hessian import DenseOperator
    >>> space = lanczos(DenseOperator(torch.diag(torch.tensor([1.0, 3.0]))), torch.ones(2), 2)
    >>> np.linalg.eigvalsh(space.tridiagonal).round(6).tolist()
    [1.0, 3.0]
    """
    n = operator.shape[0]
    steps = whole("steps", steps, least=1)
    if start.shape != (n,):
        raise InvalidInputError(
            f"expected a start vector of {n} numbers, got shape {tuple(start.shape)}"
        )
    recurrence = Recurrence(start.to(device=operator.device, dtype=operator.dtype), min(steps, n))
    while not recurrence.finished:
        recurrence.take(operator.matvec(recurrence.last))
    size = len(recurrence.alpha)
    alpha, beta = np.array(recurrence.alpha), np.array(recurrence.beta[: size - 1])
    return Krylov(recurrence.rows[:size].T, alpha, beta, recurrence.beta[-1])


class Recurrence:
    """The recurrence without its products, so that several can share one ``matmat``.

    Args:
        start: the first vector [n], of any norm above zero.
        steps: products to take.
        locked: orthonormal rows [k, n] that the basis is kept orthogonal to.

    Attributes:
        rows: the basis [steps, n].
        alpha: its diagonal so far.
        beta: norms of the remainders so far; the last is zero after a breakdown.
        finished: whether all steps are taken, or an invariant subspace was found.
    """

    def __init__(self, start: Tensor, steps: int, locked: Tensor | None = None) -> None:
        self.rows = torch.empty(steps, len(start), dtype=start.dtype, device=start.device)
        self.alpha: list[float] = []
        self.beta: list[float] = []
        self.finished = False
        self._locked = self.rows[:0] if locked is None else locked
        self._scale = 0.0
        self._floor = 10 * float(torch.finfo(start.dtype).eps)
        norm = float(torch.linalg.vector_norm(start))
        if not norm > 0:
            raise InvalidInputError("Lanczos needs a start vector other than zero")
        self.rows[0] = start / norm

    @property
    def last(self) -> Tensor:
        """The vector [n] to be multiplied."""
        return self.rows[len(self.alpha)]

    def take(self, product: Tensor) -> None:
        """Go one step on with H · last [n]."""
        step = len(self.alpha)
        last = self.rows[step]
        norm = float(torch.linalg.vector_norm(product))
        if not math.isfinite(norm):
            raise InvalidInputError("the product of the operator and a unit vector is not finite")
        self._scale = max(self._scale, norm)
        self.alpha.append(float(last.double() @ product.double()))
        remainder = product - self.alpha[-1] * last
        if step:
            remainder.sub_(self.rows[step - 1], alpha=self.beta[-1])
        remove(remainder, self._locked)
        norm, _ = remove(remainder, self.rows[: step + 1])
        # Not times sqrt(n): at n = 10⁶ in float32 that is 10⁻³ of the scale, and a real remainder.
        # A remainder of pure rounding that passes is harmless: a random direction, nearly decoupled.
        broken = norm <= self._floor * self._scale
        self.beta.append(0.0 if broken else norm)
        self.finished = broken or step + 1 == len(self.rows)
        if not self.finished:
            self.rows[step + 1] = remainder.div_(norm)
