"""A block Krylov basis that restarts without losing what it found (thick restart).

The rows of Q [m, n] are orthonormal and ``H Qᵀ = Qᵀ T + Nᵀ C``: T is the projected matrix, N the
next block, C what couples it to the basis. Ritz vectors may replace the basis at any time: T becomes
diagonal, C turns with it, and N goes on from there.

Orthogonality costs more than a fast product does, so it is kept in two ways. Each product is first
freed of the rows that it is coupled to. Then either every row is removed from it too, until its norm
stops falling by more than 1/√2 ("twice is enough"), or, where an estimate of Q Qᵀ says that nothing
has grown above ``semi``, that is left for later (partial reorthogonalisation). Rows that are
orthogonal to √eps still give T to eps, so no ghost can appear; every removal measures what the
estimate predicted, and raises its noise where it was too small. Removing every row every time instead takes
1.35 to 1.6 times the seconds of ten or twenty pairs of 4 × 1000 and 6 × 2000 gates.

Source: Wu, Simon, SIAM J. Matrix Anal. Appl. 22 (2000) for the restart; Simon, Math. Comp. 42 (1984)
for partial reorthogonalisation; Giraud, Langou, Rozložník (2005) for "twice is enough".
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian.operators.linear import SymmetricOperator

Floats = NDArray[np.float64]

CHUNK: Final = 1024
"""Columns that are turned at a time: the basis is rotated in place, with no second one."""

_ENOUGH: Final = 0.5**0.5

_LOST: Final = 1e-3
"""Cosine with an earlier row at which a basis is given up."""


def remove(v: Tensor, rows: Tensor) -> tuple[float, float]:
    """Make v [n] orthogonal to orthonormal rows [m, n], in place; return its norm and a level.

    The level is the largest cosine with a row that was found. A pass that leaves more than 1/√2 of
    the norm leaves nothing of the rows but rounding.
    """
    before = norm = float(torch.linalg.vector_norm(v))
    level = 0.0
    for _ in range(4):
        if norm == 0 or len(rows) == 0:
            break
        shares = rows @ v
        level = level or float(shares.abs().max()) / norm
        v.addmv_(rows.T, shares, alpha=-1)
        norm = float(torch.linalg.vector_norm(v))
        if norm > _ENOUGH * before:
            break
        before = norm
    return norm, level


def random_unit(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random unit vector [n] orthogonal to orthonormal rows [m, n], m < n."""
    while True:
        v = torch.randn(rows.shape[1], generator=generator, dtype=torch.float64).to(rows)
        v /= torch.linalg.vector_norm(v)
        norm, _ = remove(v, rows)
        # Where few dimensions are left, almost all of v may go, and rounding with it stays.
        if norm > 10 * torch.finfo(v.dtype).eps:
            v /= norm
            norm, _ = remove(v, rows)
            return v.div_(norm)


class Basis:
    """Locked vectors, an active basis and the next block, as rows of one matrix.

    Args:
        operator: H.
        capacity: the most locked and active vectors.
        block: rows that are multiplied at a time.
        generator: source of random directions.
        semi: cosine between rows that is tolerated; 0 keeps them orthogonal to rounding.
        spare: the fewest rows to have, for what uses them afterwards.

    Attributes:
        rows: [capacity + block or more, n]: locked, active, next.
        locked: number of vectors that the active ones are kept orthogonal to.
        size: number of active vectors.
        width: number of vectors in the next block.
        scale: the largest |Ritz value| or ‖H q‖ seen.
        lost: whether rows were found far from orthogonal, against the estimate: then nothing here is
            to be believed.
    """

    def __init__(
        self,
        operator: SymmetricOperator,
        *,
        capacity: int,
        block: int,
        generator: torch.Generator,
        semi: float,
        spare: int = 0,
    ) -> None:
        n = operator.shape[0]
        total = max(capacity + block, spare)
        self.operator = operator
        self.capacity = capacity
        self.rows = torch.empty(total, n, dtype=operator.dtype, device=operator.device)
        self.locked = self.size = self.width = 0
        self.scale = 0.0
        self.lost = False
        self._block = min(block, n)
        self._generator = generator
        self._eps = float(torch.finfo(operator.dtype).eps)
        self._semi = semi
        self._noise = 10 * self._eps
        self._projected = np.zeros((total, total))
        self._coupling = np.zeros((block, total))
        self._gram = np.eye(total)
        self._near = 0  # the first row that the next block is coupled to
        self._purged_once = False
        self.start()

    @property
    def full(self) -> bool:
        """Whether the next block does not fit."""
        return self.locked + self.size + self.width > self.capacity

    @property
    def complete(self) -> bool:
        """Whether locked and active vectors span everything."""
        return self.locked + self.size == self.operator.shape[0]

    def start(self) -> None:
        """Make the active basis empty and the next block random."""
        self.size = self._near = 0
        self._coupling[:] = 0
        self.width = min(self._block, self.operator.shape[0] - self.locked)
        for row in range(self.locked, self.locked + self.width):
            self.rows[row] = random_unit(self.rows[:row], self._generator)
        self._forget(0, self.width)

    def grow(self) -> int:
        """Multiply the next block, take it into the basis, and find the one after it.

        Returns:
            the products spent.
        """
        m, end = self.size, self.locked + self.size + self.width
        block, size = slice(m, m + self.width), m + self.width
        remainder, inner = self._product(self.rows[end - self.width : end])
        self._projected[block, :m] = self._coupling[: self.width, :m]
        self._projected[:m, block] = self._coupling[: self.width, :m].T
        self._projected[block, block] = (inner + inner.T) / 2
        shares = np.hstack([self._coupling[: self.width, self._near : m], inner])
        near = self.rows[self.locked + self._near : end]
        for v, share in zip(remainder, torch.from_numpy(shares).to(near), strict=True):
            v.addmv_(near.T, share, alpha=-1)
        estimate = self._estimate(remainder, block)
        spent, self._near, self.size = self.width, m, size
        self._continue(remainder, estimate)
        return spent

    def ritz(self) -> tuple[Floats, Floats, Floats]:
        """Return Ritz values [m], rising, their coordinates [m, m] and residual norms [m]."""
        m = self.size
        values, turn = np.linalg.eigh(self._projected[:m, :m])
        errors = np.linalg.norm(self._coupling[: self.width, :m] @ turn, axis=0)
        self.scale = max(self.scale, float(np.abs(values).max()))
        return values, turn, errors

    def restart(self, values: Floats, turn: Floats) -> None:
        """Keep the Ritz vectors with these values [j] and coordinates [m, j], and the next block."""
        m, kept = self.size, len(values)
        following = slice(m, m + self.width)
        self._turn(self.locked, turn)
        for row in range(self.width):
            self.rows[self.locked + kept + row] = self.rows[self.locked + m + row]
        gram = turn.T @ self._gram[:m, :m] @ turn
        across = self._gram[following, :m] @ turn
        after = slice(kept, kept + self.width)
        self._gram[:kept, :kept] = gram
        self._gram[after, :kept], self._gram[:kept, after] = across, across.T
        self._gram[after, after] = np.eye(self.width)
        self._coupling[:, :kept] = self._coupling[:, :m] @ turn
        self._coupling[:, kept:] = 0
        self._projected[:kept, :kept] = np.diag(values)
        self.size, self._near = kept, 0

    def lock(self, turn: Floats) -> None:
        """Lock combinations [locked + m, j] of all vectors, and let go of the rest."""
        self._turn(0, turn)
        self.locked = turn.shape[1]
        self.size = self.width = 0

    def _product(self, block: Tensor) -> tuple[Tensor, Floats]:
        """Return H times the rows of ``block`` [p, n], and block · H · blockᵀ [p, p]."""
        if len(block) == 1:
            raw = self.operator.matvec(block[0]).unsqueeze(0)
        else:
            raw = self.operator.matmat(block.T).T
        # A copy: an operator may hand back its own memory, or its argument.
        product = raw.to(block, copy=True, memory_format=torch.contiguous_format)
        norm = float(torch.linalg.vector_norm(product, dim=1).max())
        if not math.isfinite(norm):
            raise InvalidInputError("the product of the operator and a unit vector is not finite")
        self.scale = max(self.scale, norm)
        return product, (block @ product.T).double().cpu().numpy()

    def _estimate(self, remainder: Tensor, block: slice) -> Floats | None:
        """Return the cosines [p, m] that the remainder may have with the rows, or None if unsafe.

        From ``Q H Qᵀ`` being symmetric: ``E = T G − G T`` with G = Q Qᵀ, plus rounding.
        """
        if self._semi == 0 or self.locked:
            return None
        size = block.stop
        inner = (remainder @ remainder.T).double().cpu().numpy()
        try:
            inverse = np.abs(np.linalg.inv(np.linalg.cholesky(inner)))
        except np.linalg.LinAlgError:
            return None
        projected, gram = self._projected[:size, :size], self._gram[:size, :size]
        drift = np.abs(projected @ gram[:, block] - gram @ projected[:, block])
        return np.asarray(inverse @ (drift.T + self._noise * self.scale))

    def _continue(self, remainder: Tensor, estimate: Floats | None) -> None:
        """Make the next block from the remainder [p, n], orthonormal to everything."""
        grown = estimate is None or float(estimate.max()) > self._semi
        # Two blocks in a row: the recurrence would bring back what only one of them has lost.
        purge = grown or self._purged_once
        self._purged_once = grown
        first = self.locked + self.size
        self.width = min(self._block, self.operator.shape[0] - first)
        self._coupling[:, : self.size] = 0
        columns = range(self.size - len(remainder), self.size)
        floor = 10 * self._eps * self.scale
        level, used = 0.0, 0
        for v, column in zip(remainder, columns, strict=True):
            end = first + used
            if purge:
                level = max(level, remove(v, self.rows[:first])[1])
            before = norm = float(torch.linalg.vector_norm(v))
            for _ in range(2 if used else 0):
                shares = self.rows[first:end] @ v
                v.addmv_(self.rows[first:end].T, shares, alpha=-1)
                self._coupling[:used, column] += shares.double().cpu().numpy()
                norm = float(torch.linalg.vector_norm(v))
            if norm < 0.1 * before:  # what little is left may be of the other rows
                norm, _ = remove(v, self.rows[:end])
            # Not times sqrt(n): at n = 10⁶ in float32 that is 10⁻³ of the scale, a real remainder.
            # One of pure rounding that passes is harmless: a random direction, nearly decoupled.
            if norm <= floor or used == self.width:
                continue
            self.rows[end] = v.div_(norm)
            self._coupling[used, column] = norm
            used += 1
        after = slice(self.size, self.size + used)
        if estimate is None or purge or used < len(remainder):
            self._forget(self.size, used)
        else:
            self._gram[after, : self.size] = estimate
            self._gram[: self.size, after] = estimate.T
            self._gram[after, after] = np.eye(used)
        if purge and estimate is not None and level > (most := float(estimate.max())):
            self._noise *= level / most
        self.lost = self.lost or (estimate is not None and level > _LOST)
        for row in range(first + used, first + self.width):
            self.rows[row] = random_unit(self.rows[:row], self._generator)
        self._forget(self.size + used, self.width - used)

    def _forget(self, first: int, count: int) -> None:
        """Note that rows from ``first`` on have just been made orthogonal to all before them."""
        after, before = slice(first, first + count), slice(0, first)
        self._gram[after, before] = self._gram[before, after] = 2 * self._eps
        self._gram[after, after] = np.eye(count)

    def _turn(self, first: int, turn: Floats) -> None:
        """Replace the rows from ``first`` on by their combinations [m, j], in place."""
        m, kept = turn.shape
        matrix = torch.from_numpy(turn.T.copy()).to(self.rows)
        old, new = self.rows[first : first + m], self.rows[first : first + kept]
        for start in range(0, self.rows.shape[1], CHUNK):
            new[:, start : start + CHUNK] = matrix @ old[:, start : start + CHUNK]


def tolerated_cosine(dtype: torch.dtype, tol: float) -> float:
    """Return the cosine between rows that costs no accuracy at ``tol``, or 0 for none at all.

    At most √eps, where T is still right to eps, and a hundredth of the tolerance, since Ritz
    vectors err by as much. float32 has no room between eps and √eps.
    """
    eps = float(torch.finfo(dtype).eps)
    semi = min(math.sqrt(eps), tol / 100)
    return semi if dtype == torch.float64 and semi > 1000 * eps else 0.0
