"""Central differences of a loss and of its gradient, against the gradient and H v."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor

from lgn_analysis.hessian.operators.linear import ParamLoss, Params, unflatten
from lgn_analysis.hessian.operators.module import METHODS, value_and_gradient

RTOL: Final = 1e-4
"""Relative error of H v against finite differences in float64, parameter by parameter."""

LOWERED_RTOL: Final = 2e-2
"""The same in float32."""

_ROUNDINGS: Final = 100
"""Rounding of a loss or a gradient, in units of its dtype's."""

_POWERS: Final = (0, 1, 2, 3, -1)
"""Steps are ``eps^(1/3 + power/10)``, tried in this order.

The first balances truncation and rounding; smaller ones pass between kinks.
"""


class Step(NamedTuple):
    """What H v errs by at one step.

    Attributes:
        size: of the step, relative to the parameters' root mean square.
        error: relative to the difference.
        scaled: the same, where the difference is lengthened by its rounding over ``rtol``.
    """

    size: float
    error: float
    scaled: float


class Slope:
    """The derivative of a loss along a direction, by its gradient and by differences."""

    def __init__(self, direction: Tensor, gradient: Tensor) -> None:
        self.direction = direction
        self.said, self.measured = float(gradient @ direction.double()), math.nan
        self.agrees = False

    def compare(self, measured: float, allowed: float) -> None:
        """Take in one difference quotient; one that agrees is enough."""
        if not self.agrees:
            self.measured = measured
            self.agrees = abs(measured - self.said) <= allowed


class CentralDifferences:
    """Differences at several steps, until one agrees in all parameters.

    Along random signs the difference of gradients is compared with H v; along those and the gradient
    itself that of the loss with the gradient. A step at which rounding of the gradient would hide a
    thousandth of H v, a fiftieth in float32, does not count.

    Args:
        loss: of parameters.
        params: where.
        method: of differentiation, of :data:`.module_hessian.METHODS`.
        fixed: by parameter, the rows that stay where they are.

    Attributes:
        rtol: relative error that is allowed.
        slopes: the derivatives of the loss.
        steps: those that count.
        wrong: by parameter, and of the whole under ``""``, the least relative error above tolerance, or zero.
    """

    def __init__(
        self, loss: ParamLoss, params: Params, method: str, fixed: Mapping[str, int]
    ) -> None:
        self._loss, self._params = loss, params
        self._point = flat(params)
        self._scale = float(self._point.square().mean().sqrt()) or 1.0
        moves = unflatten(random_signs(self._point), params)
        for name, row in fixed.items():
            moves[name][row] = 0.0
        self._direction = flat(moves)
        self._rows = product(loss, params, method)
        self._value, gradient = value_and_gradient(loss, params)
        self._size = float(gradient.norm())
        ascent = (gradient * (math.sqrt(len(gradient)) / (self._size or 1.0))).to(self._point)
        self.slopes = [Slope(direction, gradient) for direction in (self._direction, ascent)]
        self.wrong = dict.fromkeys([*params, ""], math.inf)
        self.steps: list[Step] = []
        self._is_double = self._point.dtype == torch.float64
        self.rtol = RTOL if self._is_double else LOWERED_RTOL
        for power in _POWERS:
            self._take(power)
            if self.agrees:
                break

    @property
    def agrees(self) -> bool:
        """Whether gradient and H v agree with differences, each parameter's rows at some step."""
        return self.is_gradient and not any(self.wrong.values())

    @property
    def is_gradient(self) -> bool:
        """Whether the gradient agrees with differences of the loss."""
        return all(slope.agrees for slope in self.slopes)

    @property
    def best(self) -> Step:
        """The step of the least error."""
        return min(self.steps, key=lambda step: step.scaled)

    def ends(self, step: float) -> tuple[Params, Params]:
        """Return the two points between which the gradients of a step are compared."""
        return self._ends(step * self._scale * self._direction)

    def _ends(self, move: Tensor) -> tuple[Params, Params]:
        return unflatten(self._point + move, self._params), unflatten(
            self._point - move, self._params
        )

    def _take(self, power: int) -> None:
        eps = torch.finfo(self._point.dtype).eps
        step = eps ** (1 / 3 + power / 10)
        h = step * self._scale
        rounding = _ROUNDINGS * eps / h
        (above, up), (below, down) = (
            value_and_gradient(self._loss, end) for end in self.ends(step)
        )
        difference = (up - down) / (2 * h)
        length = float(difference.norm())
        # Large steps may find no curvature at all; small ones must leave it to be seen.
        is_large = power <= (1 if self._is_double else 0)
        hidden = 1e-3 if self._is_double else LOWERED_RTOL
        if not is_large and rounding * self._size > hidden * max(length, float(self._rows.norm())):
            return
        along, against = (
            float(self._loss(end).detach()) for end in self._ends(h * self.slopes[1].direction)
        )
        for slope, rise in zip(self.slopes, (above - below, along - against), strict=True):
            # At a minimum the slope is nothing beside the curvature's h vᵀHv.
            curved = h * float(slope.direction.double().norm() * self._rows.norm())
            allowed = self.rtol * max(self._size, abs(slope.said), curved)
            if is_large or rounding * abs(self._value) <= allowed:
                slope.compare(rise / (2 * h), allowed + rounding * abs(self._value))
        floor = 1e-3 * self.rtol * length + rounding * self._size
        excesses = excess_by_name(self._params, self._rows, difference, self.rtol, floor)
        # A small step lets rounding pass, a large one kinks, each in some parameters.
        excesses[""] = _excess(self._rows, difference, self.rtol, floor)
        self.wrong = {name: min(self.wrong[name], excess) for name, excess in excesses.items()}
        error = float((self._rows - difference).norm())
        scaled = error / (length + floor / self.rtol or 1.0)
        self.steps.append(Step(step, error / (length or 1.0), scaled))


def product(loss: ParamLoss, params: Params, method: str) -> Tensor:
    """Return H v [n_params] along the direction of all checks, in float64."""
    (rows,) = METHODS[method](loss, params, random_signs(flat(params)).unsqueeze(0))
    return rows.double()


def random_signs(like: Tensor) -> Tensor:
    """Return the direction of all checks: signs of a fixed seed, in the dtype of ``like`` [n]."""
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randint(0, 2, (len(like),), generator=generator) - 1).to(like)


def moved_a_little(params: Params) -> Params:
    """Return parameters moved at random by a tenth of their root mean square."""
    point = flat(params)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(len(point), generator=generator, dtype=torch.float64).to(point)
    scale = float(point.double().square().mean().sqrt()) or 1.0
    return unflatten(point + 0.1 * scale * noise, params)


def flat(params: Params) -> Tensor:
    """Return parameters as one vector [n_params] of their dtype."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def excess_by_name(
    params: Params, found: Tensor, expected: Tensor, rtol: float, floor: float
) -> dict[str, float]:
    """Return by parameter the relative error where it is above ``rtol``, and ``floor``; else zero."""
    sizes = [value.numel() for value in params.values()]
    pieces = zip(params, found.split(sizes), expected.split(sizes), strict=True)
    return {name: _excess(one, other, rtol, floor) for name, one, other in pieces}


def _excess(found: Tensor, expected: Tensor, rtol: float, floor: float) -> float:
    error, length = float((found - expected).norm()), float(expected.norm())
    if error <= rtol * length + floor:
        return 0.0
    return error / length if error < math.inf and length > 0 else math.inf
