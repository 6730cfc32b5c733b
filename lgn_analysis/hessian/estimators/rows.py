"""Vectors that are added one at a time, kept in chunks that copies share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Self

import torch
from torch import Tensor

CHUNK: Final = 16
"""Vectors a chunk."""

_ENOUGH: Final = 0.5**0.5


class Rows:
    """Vectors [n] as rows of a matrix [m, n] that grows.

    Full chunks never change, so a copy shares them. Chunks begin at multiples of their size however
    the rows came in, so that sums over rows have the same bits.
    """

    def __init__(self, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self._n, self._dtype, self._device = n, dtype, device
        self._chunks: list[Tensor] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def copy(self) -> Self:
        """Return rows that can grow without these."""
        other = type(self)(self._n, self._dtype, self._device)
        other._chunks, other._count = [*self._chunks], self._count
        if self._count % CHUNK:
            other._chunks[-1] = self._chunks[-1].clone()
        return other

    def append(self, row: Tensor) -> None:
        """Add a vector [n]."""
        place = self._count % CHUNK
        if place == 0:
            self._chunks.append(torch.empty(CHUNK, self._n, dtype=self._dtype, device=self._device))
        self._chunks[-1][place] = row
        self._count += 1

    @property
    def chunks(self) -> Iterator[Tensor]:
        """The rows, float64, in pieces [at most CHUNK, n]."""
        for index, chunk in enumerate(self._chunks):
            yield chunk[: self._count - CHUNK * index].double()

    def between(self, start: int, stop: int) -> Tensor:
        """Return the rows from ``start`` up to ``stop``, float64."""
        return torch.stack(
            [
                self._chunks[row // CHUNK][row % CHUNK]
                for row in range(start, min(stop, self._count))
            ]
        ).double()

    def inner(self, others: Tensor) -> Tensor:
        """Return the inner products [m, k] with the rows of ``others`` [k, n]."""
        parts = [chunk @ others.T for chunk in self.chunks]
        return torch.cat(parts) if parts else others.new_zeros(0, len(others))

    def combine(self, weights: Tensor) -> Tensor:
        """Return weightsᵀ · rows [k, n] for ``weights`` [m, k]."""
        total = weights.new_zeros(weights.shape[1], self._n)
        for index, chunk in enumerate(self.chunks):
            total.addmm_(weights[CHUNK * index : CHUNK * index + len(chunk)].T, chunk)
        return total


def append_orthonormal(basis: Rows, v: Tensor, tolerance: float) -> tuple[Tensor, float]:
    """Add what of v [n] is orthogonal to the basis, unless that is rounding.

    Gram–Schmidt, until a pass leaves more than 1/√2 of the norm ("twice is enough": Giraud, Langou,
    Rozložník, 2005).

    Args:
        basis: orthonormal float64 rows; one is added where v is independent of them.
        v: float64 [n].
        tolerance: independent is what keeps more than this share of its norm.

    Returns:
        v in the new basis, float64 [rank], and the norm of what was left out of it: zero, or
        rounding.
    """
    whole = before = norm = float(v.norm())
    v = v.unsqueeze(0).clone()
    coordinates = v.new_zeros(len(basis), 1)
    for _ in range(4):
        if norm <= tolerance * whole or not len(basis):
            break
        shares = basis.inner(v)
        v -= basis.combine(shares)
        coordinates += shares
        norm = float(v.norm())
        if norm > _ENOUGH * before:
            break
        before = norm
    coordinates = coordinates.squeeze(1)
    if norm <= tolerance * whole:
        return coordinates, norm
    basis.append(v[0] / norm)
    return torch.cat([coordinates, coordinates.new_tensor([norm])]), 0.0
