"""The iteration behind :func:`lgn_analysis.hessian.top_eigenpairs`: grow, restart, lock, search again."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from lgn_analysis.hessian.estimators.basis import Basis, Floats

ENDS: Final = ("LA", "SA", "LM", "BE")

_LOOK: Final = 24
"""Products before a search may report that it found nothing: a random start needs some to show an
eigenvalue of which it holds a share of 1/n."""

_BUFFER: Final = 0.4
"""Share of the unwanted Ritz vectors that a restart keeps. Measured for 20 pairs of LGN-like spectra
in 50 to 90 vectors: from 0.2 to 0.7 products differ by 8 %; without a buffer they may triple."""


class Wanted(NamedTuple):
    """Which eigenpairs are looked for.

    Attributes:
        k: number of pairs.
        which: one of :data:`ENDS`.
        tol: residual relative to the largest |eigenvalue|.
        copies: whether to look for hidden copies of multiple eigenvalues.
    """

    k: int
    which: str
    tol: float
    copies: bool


class Search:
    """Find the wanted eigenpairs; afterwards the first ``count`` rows of the basis are the pairs.

    None are where the basis was lost.

    Args:
        basis: an empty basis, which says how much memory there is.
        wanted: which pairs.
    """

    def __init__(self, basis: Basis, wanted: Wanted) -> None:
        self.basis = basis
        self.spent = 0
        self.count = 0
        self._k, self._which, self._tol, self._copies = wanted
        self._starts = basis.width
        self._held: Floats = np.empty(0)

    def run(self, budget: int, bar: tqdm) -> bool:
        """Spend at most ``budget`` products; return whether the pairs converged."""
        searching = False
        while True:
            out, values, turn, errors = self._expand(budget, bar, searching)
            basis, held = self.basis, len(self._held)
            if basis.lost:
                return False
            if searching and not out:  # what has not converged is not worth a place
                sharp = errors <= self._limit
                values, turn = values[sharp], turn[:, sharp]
            known = np.concatenate([self._held, values])
            places = self._choose(values)
            found = bool((places >= held).any())
            whole = np.zeros((held + turn.shape[0], len(known)))
            whole[:held, :held] = np.eye(held)
            whole[held:, held:] = turn
            whole, known = whole[:, places], known[places]
            done = basis.complete or not self._copies
            done = done or (not found if searching else not self._may_hide(known))
            basis.lock(whole)
            if out or done:
                self.count = len(known)
                return not out
            basis.start()
            self._held, searching = known, True

    def _expand(
        self, budget: int, bar: tqdm, searching: bool
    ) -> tuple[bool, Floats, Floats, Floats]:
        """Grow and restart until what is wanted has converged and, in a search, nothing else may.

        Returns:
            whether the products ran out; Ritz values [m], coordinates [m, m], residual norms [m].
        """
        basis = self.basis
        before, check = self.spent, self._k - len(self._held)
        while True:
            out = self.spent + basis.width > budget
            if not (out or basis.complete or basis.full):
                grown = basis.grow()
                self.spent += grown
                bar.update(grown)
                out = basis.lost or self.spent + basis.width > budget
            if not (basis.size >= check or out or basis.complete or basis.full):
                continue
            if basis.size == 0 or basis.lost:
                return True, np.empty(0), np.empty((0, 0)), np.empty(0)
            check = basis.size + max(1, basis.size // 16)
            values, turn, errors = basis.ritz()
            new = self._brings(values)
            if basis.complete:
                return False, values, turn, errors
            if len(self._held) + len(values) >= self._k and (errors[new] <= self._limit).all():
                may = self._brings(values + errors).any() or self._brings(values - errors).any()
                looked = self.spent - before >= min(_LOOK, basis.rows.shape[1])
                if not searching or new.any() or (looked and not may):
                    return False, values, turn, errors
            if out:
                return True, values, turn, errors
            if basis.full:
                keep = self._kept(values, errors, new)
                if len(keep) < new.sum() and (errors[new] <= self._limit).any():
                    return False, values, turn, errors  # lock some before going on
                basis.restart(values[keep], turn[:, keep])
                check = 0

    @property
    def _limit(self) -> float:
        # Half the tolerance: the residuals that count are computed anew at the end.
        return 0.5 * self._tol * self.basis.scale

    def _choose(self, values: Floats) -> NDArray[np.intp]:
        """Return the places of the k wanted among the values held and these, largest first.

        Another copy of the last value held, or its twin to rounding, takes no place: so these count
        as a tolerance nearer to the middle.
        """
        held, slack = self._held, self._tol * self.basis.scale
        if not len(held):
            return choose(values, min(self._k, len(values)), self._which)
        if slack == 0:  # H has been zero so far
            return np.arange(self._k)
        if self._which == "LA" or (self._which == "BE" and self._k == 1):
            moved = values - slack
        elif self._which == "SA":
            moved = values + slack
        else:
            upper = self._k - self._k // 2
            middle = 0.0 if self._which == "LM" else (held[upper - 1] + held[upper]) / 2
            away = values - middle
            moved = middle + np.sign(away) * np.maximum(np.abs(away) - slack, 0)
        return choose(np.concatenate([held, moved]), self._k, self._which)

    def _brings(self, values: Floats) -> NDArray[np.bool_]:
        """Return which of these values are among the k wanted."""
        places = self._choose(values) - len(self._held)
        wanted = np.zeros(len(values), dtype=bool)
        wanted[places[places >= 0]] = True
        return wanted

    def _may_hide(self, values: Floats) -> bool:
        """Return whether a value shows as often as there were starts: then one more may hide."""
        last = self._starts - 1
        if len(values) <= last:
            return False
        spread = values[: len(values) - last] - values[last:]
        return bool((spread <= 10 * self._tol * self.basis.scale).any())

    def _kept(self, values: Floats, errors: Floats, new: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the places of the Ritz vectors that survive a restart, as many as fit.

        The wanted ones, and as a buffer their neighbours inwards, on the side where something has
        still to converge: what a restart throws away must lie far from those.
        """
        basis = self.basis
        count = int(new.sum() + _BUFFER * (~new).sum())
        count = max(1, min(count, basis.capacity - basis.locked - 2 * basis.width))
        inwards = {
            "LA": np.arange(len(values))[::-1],
            "SA": np.arange(len(values)),
            "LM": np.argsort(-np.abs(values), kind="stable"),
        }
        if self._which in inwards:
            order = inwards[self._which]
        else:
            blunt = new & (errors > self._limit)
            middle = (len(values) + int(new[: len(values) // 2].sum())) // 2
            upper, lower = bool(blunt[middle:].any()), bool(blunt[:middle].any())
            falling, rising = inwards["LA"], inwards["SA"]
            if upper != lower:
                order = falling if upper else rising
            else:
                order = np.stack([falling, rising], axis=1).ravel()
        order = np.concatenate([np.flatnonzero(new), order])
        _, first = np.unique(order, return_index=True)
        return np.sort(order[np.sort(first)][:count])


def choose(values: Floats, k: int, which: str) -> NDArray[np.intp]:
    """Return the places of the k wanted values, largest first.

    >>> choose(np.array([3.0, -4.0, 1.0, 2.0]), 2, "BE").tolist()
    [0, 1]
    """
    order = np.argsort(values, kind="stable")[::-1]
    if which == "LA":
        return order[:k]
    if which == "SA":
        return order[len(order) - k :]
    if which == "LM":
        largest = np.argsort(-np.abs(values), kind="stable")[:k]
        return largest[np.argsort(-values[largest], kind="stable")]
    upper = k - k // 2
    return np.concatenate([order[:upper], order[len(order) - k // 2 :]])
