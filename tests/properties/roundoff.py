"""How far float32 may be from the exact result: bounds that travel with the numbers.

A :class:`Rounded` holds an exact value (in float64) and a bound on the error of the float32 number that
stands for it. Every operation adds the error that its operands bring, second order included, and what
its own rounding adds, u = 2**-24 of the result: *running error analysis* (Higham, *Accuracy and Stability
of Numerical Algorithms*, 2002, section 3.3). So a bound is derived for each network, batch and
temperature, and holds for every order of summation and for fused and unfused products alike:

* n terms in any order: γ(n) = n·u / (1 − n·u) of the sum of their sizes;
* softmax: an error ε of an exponent multiplies by at most e^ε; ``exp`` and ``log`` are within 2 ulp,
  which is 4u; weights lie in [0, 1], so no error of one exceeds 1;
* a gate ``c0 + c1·a + c2·b + c3·ab``: errors of a and b times its slopes at the exact inputs, of the
  coefficients times 1, a, b and ab, and γ(4) of the sizes of the four terms;
* Gumbel noise: 8u·max(1, |g|), as ``lgn_analysis.gates.noise`` states;
* a constant factor (1/tau, 1/group_tau, 1/batch): γ(3), for it is rounded, inverted and multiplied by.

Gradients and Hessian products are the adjoint and the tangent of these rules, by the same operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lgn_analysis.gates.table import COEFFICIENTS, TRUTH_TABLE

U = 2.0**-24
TINY = 2.0**-125
"""What underflow may cost: the kernels' exponential is zero below -87."""
_GATES = COEFFICIENTS.double()
_ONES = TRUTH_TABLE.double().sum(-1)
"""Corners at which a gate is true: no entry of its row of coefficients is larger."""
_CORNERS = torch.tensor([1.0, 2.0, 2.0, 4.0], dtype=torch.float64)
"""How often Σδ, Σδa, Σδb and Σδab stand in the four corners' sums."""


def gamma(n: int) -> float:
    """Return γ(n) = n·u / (1 − n·u), the relative error of n roundings."""
    return n * U / (1.0 - n * U)


@dataclass(frozen=True)
class Rounded:
    """A float32 number within ``error`` of ``exact``, element by element; both float64."""

    exact: Tensor
    error: Tensor

    @classmethod
    def of(cls, value: Tensor) -> Rounded:
        """Return numbers that float32 holds exactly."""
        return cls(value.double(), torch.zeros_like(value, dtype=torch.float64))

    @property
    def size(self) -> Tensor:
        """What the float32 number is at most, without its sign."""
        return self.exact.abs() + self.error

    def after(self, roundings: int, size: Tensor | None = None) -> Rounded:
        """Return the number after some roundings of what is of this size, by default its own."""
        size = self.size if size is None else size
        return Rounded(self.exact, self.error + gamma(roundings) * size + TINY)

    def at_most(self, limit: float) -> Rounded:
        """Return the number, of which it is known that no error exceeds ``limit``."""
        return Rounded(self.exact, self.error.nan_to_num(nan=torch.inf).clamp(max=limit))

    def in_double(self) -> Rounded:
        """Return the same for float64 arithmetic: 2**-29 of the bound, and as much for ``exact``."""
        return Rounded(self.exact, self.error * 2.0**-28)

    def scaled(self, factor: float, error: float = 0.0) -> Rounded:
        """Return the product with a constant that is rounded itself, or has a relative error."""
        size = self.size * abs(factor)
        scaled = Rounded(self.exact * factor, self.error * abs(factor) + error * size)
        return scaled.after(3)

    def sum(self, dim: int, *, parts: int = 1) -> Rounded:
        """Return the sum over a dimension, in any order; each term may come in some parts."""
        total = Rounded(self.exact.sum(dim), self.error.sum(dim))
        return total.after(parts * self.exact.shape[dim], self.size.sum(dim))

    def __add__(self, other: Rounded) -> Rounded:
        return Rounded(self.exact + other.exact, self.error + other.error).after(1)

    def __sub__(self, other: Rounded) -> Rounded:
        return Rounded(self.exact - other.exact, self.error + other.error).after(1)

    def __mul__(self, other: Rounded) -> Rounded:
        error = (
            self.error * other.exact.abs()
            + self.exact.abs() * other.error
            + self.error * other.error
        )
        return Rounded(self.exact * other.exact, error).after(1)

    def __getitem__(self, index: object) -> Rounded:
        return Rounded(self.exact[index], self.error[index])  # type: ignore[index]


@dataclass(frozen=True)
class Softmax:
    """A softmax over the last dimension.

    Attributes:
        p: its weights.
        total: Σ exp(q − top).
        log_error: a bound on the error of an exponent.
    """

    p: Rounded
    total: Rounded
    log_error: Tensor


def softmax(q: Rounded, same: Tensor | None = None) -> Softmax:
    """Return the softmax of q; ``same`` tells which exponents are the very number of the largest."""
    top = q.exact.argmax(-1, keepdim=True)
    t = q.exact - q.exact.gather(-1, top)
    known = torch.zeros_like(t, dtype=torch.bool) if same is None else same
    known = known.scatter(-1, top, True)
    drift = torch.where(known, 0.0, q.error + q.error.gather(-1, top))
    # What is subtracted is the largest computed number, whichever that is; it cancels.
    shift = (t + drift).amax(-1, keepdim=True)
    drift = drift + U * (t.abs() + drift + shift)
    e = t.exp()
    terms = Rounded(e, (t + drift).exp() * (1.0 + 2 * gamma(4)) - e)
    total = terms.sum(-1)
    room = total.exact - total.error
    p = e / total.exact.unsqueeze(-1)
    error = (terms.error + p * total.error.unsqueeze(-1)) / room.clamp(min=0.0).unsqueeze(-1)
    weights = Rounded(p, error + 32 * TINY).at_most(1.0).after(3).at_most(1.0 + 64 * U)
    return Softmax(weights, total, drift)


def mixture(weights: Rounded) -> Rounded:
    """Return the four coefficients [n, 4] of gate weights [n, 16].

    They come as one sum of 16 terms, or from four sums of eight weights each, in trees.
    """
    at_once = gamma(16) * weights.size @ _GATES.abs()
    by_corner = gamma(6) * (weights.size * _ONES).sum(-1, keepdim=True)
    error = weights.error @ _GATES.abs() + torch.maximum(at_once, by_corner)
    return Rounded(weights.exact @ _GATES, error + TINY)


def columns(c: Rounded) -> tuple[Rounded, Rounded, Rounded, Rounded]:
    """Return the four coefficients, each [n, 1]."""
    c0, c1, c2, c3 = (c[:, k : k + 1] for k in range(4))
    return c0, c1, c2, c3


def gate(c: Rounded, a: Rounded, b: Rounded) -> Rounded:
    """Return ``c0 + c1·a + c2·b + c3·ab`` [n, batch]."""
    c0, c1, c2, c3 = columns(c)
    by_a, by_b = c1.exact + c3.exact * b.exact, c2.exact + c3.exact * a.exact
    moved = by_a.abs() * a.error + by_b.abs() * b.error + c3.exact.abs() * a.error * b.error
    mixed = c0.error + c1.error * a.size + c2.error * b.size + c3.error * a.size * b.size
    size = c0.size + c1.size * a.size + c2.size * b.size + c3.size * a.size * b.size
    exact = c0.exact + c1.exact * a.exact + by_b * b.exact
    return Rounded(exact, moved + mixed).after(4, size)


def slope(linear: Rounded, c3: Rounded, other: Rounded) -> Rounded:
    """Return ``linear + c3·other``, a gate's derivative by one input, in one term or in two."""
    product = c3 * other
    both = Rounded(linear.exact + product.exact, linear.error + product.error)
    return both.after(6, linear.size + product.size)


def to_options(sums: Rounded) -> Rounded:
    """Return the derivatives by the sixteen weights [n, 16] from the four sums [n, 4]."""
    size = (sums.size * _CORNERS).sum(-1, keepdim=True)
    return Rounded(sums.exact @ _GATES.T, sums.error @ _GATES.abs().T).after(8, size)


def scatter(rows: list[tuple[Tensor, Rounded]], n: int) -> Rounded:
    """Return the sums [n, batch] of rows that go where their indices say."""
    like = rows[0][1].exact
    exact, error, size = (like.new_zeros(n, like.shape[1]) for _ in range(3))
    counts = torch.zeros(n, 1, dtype=torch.float64)
    for index, row in rows:
        exact.index_add_(0, index, row.exact)
        error.index_add_(0, index, row.error)
        size.index_add_(0, index, row.size)
        counts.index_add_(0, index, torch.ones(len(index), 1, dtype=torch.float64))
    return Rounded(exact, error).after(2 * int(counts.max()), size)


def by_softmax(p: Rounded, change: Rounded, tau: float, tau_error: float = 0.0) -> Rounded:
    """Return ``p ∘ (v − Σ p v) / tau``."""
    mean = (p * change).sum(-1)
    centred = change - Rounded(mean.exact.unsqueeze(-1), mean.error.unsqueeze(-1))
    return (p * centred).scaled(1.0 / tau, tau_error)


def kept(total: Rounded) -> Rounded:
    """Return a total with its dimension kept, at the end."""
    return Rounded(total.exact.unsqueeze(-1), total.error.unsqueeze(-1))


def stack(columns: list[Rounded]) -> Rounded:
    """Return columns side by side."""
    return Rounded(
        torch.stack([c.exact for c in columns], -1), torch.stack([c.error for c in columns], -1)
    )


def assert_within(got: Tensor, bound: Rounded) -> None:
    """Assert that computed numbers are as near to the exact ones as rounding allows."""
    assert got.shape == bound.exact.shape
    error = (got.detach().double() - bound.exact).abs()
    assert (error <= bound.error).all(), f"{float((error / bound.error).max()):.3g} times the bound"
