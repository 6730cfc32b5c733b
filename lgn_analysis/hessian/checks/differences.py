"""Derivatives of a loss compared: with central differences, and between ways of differentiating it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from lgn_analysis.base.errors import NotDifferentiableError
from lgn_analysis.hessian.operators.linear import ParamLoss, Params, unflatten
from lgn_analysis.hessian.operators.module import METHODS, value_and_gradient
from lgn_analysis.network import LogicNetwork

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
        self.expected, self.measured = float(gradient @ direction.double()), math.nan
        self.agrees = False

    def compare(self, measured: float, allowed: float) -> None:
        """Take in one difference quotient; one that agrees is enough."""
        if not self.agrees:
            self.measured = measured
            self.agrees = abs(measured - self.expected) <= allowed


class CentralDifferences:
    """Differences at several steps, until one agrees in all parameters.

    Along random signs the difference of gradients is compared with H v; along those and the gradient
    itself that of the loss with the gradient. A step at which rounding of the gradient would hide a
    thousandth of H v, a fiftieth in float32, does not count.

    Args:
        loss: of parameters.
        params: where.
        method: of differentiation, of :data:`.module.METHODS`.
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
            allowed = self.rtol * max(self._size, abs(slope.expected), curved)
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


_SAME: Final = {torch.float64: 1e-10}
"""Relative difference of derivatives by the same operations; 2e-6 in a narrower dtype.

A false alarm costs only time.
"""

_STEP: Final = 1e-2
"""By how much parameters are moved, in their own size, to compare losses there."""

_LONGEST: Final = 400
"""Characters of another library's message that are passed on."""

NOT_FINITE: Final = (
    "the first or second derivatives are not finite at these parameters, so there is no Hessian; "
    "a root, a norm or a logarithm at zero does this"
)


def choose_method(functional: ParamLoss, live: ParamLoss, params: Params, module: nn.Module) -> str:
    """Return the first method whose loss, gradient and product are those of plain calls.

    Args:
        functional: the loss of a few samples with parameters handed to the module.
        live: the same by plain calls of it.
        params: where.
        module: what an error names.

    Raises:
        NotDifferentiableError: no method goes through, or the derivatives are not finite.
    """
    plain = _attempt("live", live, params)
    slope = _gradient_or_error(live, params) if isinstance(plain, Exception) else plain
    if isinstance(slope, Exception):  # though a first call has had one
        raise NotDifferentiableError(
            f"the gradient of {type(module).__name__} is had only once ({in_one_line(slope)}): a tensor that it "
            "computed from parameters, and keeps from call to call, does this; compute it in each call"
        )
    if not isinstance(plain, Exception) and not bool(torch.isfinite(plain[1]).all()):
        raise NotDifferentiableError(NOT_FINITE)
    # Other threads may call a network meanwhile: it must not hold other values, if it can be helped.
    shared = isinstance(module, LogicNetwork)
    failures = []
    for method in ("double-backward", "forward-over-reverse"):
        found = _attempt(method, functional, params)
        if isinstance(found, Exception):
            failures.append(f"{method}: {in_one_line(found)}")
        elif isinstance(plain, Exception):
            first = found[0], found[1][: len(slope[1])]
            same = agree(first, slope, rounding_of(params))
            if same and (shared or _agree_elsewhere(functional, live, params)):
                return method
        else:
            same = agree(found, plain, rounding_of(params))
            same = same and (shared or _agree_elsewhere(functional, live, params))
            return method if same else "live"
    if not isinstance(plain, Exception):
        return "live"
    failures.append(f"plain calls of the module: {in_one_line(plain)}")
    raise NotDifferentiableError(
        f"the gradient of {type(module).__name__} cannot be differentiated ({'; '.join(failures)})"
    )


def _attempt(method: str, loss: ParamLoss, params: Params) -> tuple[float, Tensor] | Exception:
    """Return the loss, and its gradient and a product in one vector; or what was raised."""
    try:
        value, gradient = value_and_gradient(loss, params)
        rows = product(loss, params, method)
    except Exception as error:  # whatever a module raises where it is called in another way
        return error
    return value, torch.cat([gradient, rows])


def _agree_elsewhere(functional: ParamLoss, live: ParamLoss, params: Params) -> bool:
    """Return whether two losses have one gradient a step away.

    What a backward calls again, and what a module once computed from its parameters, is right where
    they are. A hidden term may have no gradient there, as a penalty has none at zero.
    """
    moved = {}
    for name, value in params.items():
        signs = random_signs(value.reshape(-1)).view_as(value)
        moved[name] = value + _STEP * signs * (value.abs() + _root_mean_square(value) + _STEP)
    found = _gradient_or_error(functional, moved)
    expected = _gradient_or_error(live, moved)
    if isinstance(expected, Exception) or isinstance(found, Exception):
        return isinstance(expected, Exception)  # outside the domain of the module
    return agree(found, expected, rounding_of(params))


def _gradient_or_error(loss: ParamLoss, params: Params) -> tuple[float, Tensor] | Exception:
    try:
        return value_and_gradient(loss, params)
    except Exception as error:  # whatever a module raises at other parameters
        return error


def rounding_of(params: Params) -> float:
    """Return the relative difference that derivatives by the same operations may have."""
    return _SAME.get(next(iter(params.values())).dtype, 2e-6)


def agree(found: tuple[float, Tensor], expected: tuple[float, Tensor], rtol: float) -> bool:
    """Return whether two losses and vectors of derivatives are the same but for rounding."""
    value, other = found[0], expected[0]
    if not math.isclose(value, other, rel_tol=rtol) and not math.isnan(other):
        return False
    if not bool(torch.isfinite(expected[1]).all()):
        return torch.equal(torch.isfinite(found[1]), torch.isfinite(expected[1]))
    error = (found[1] - expected[1]).abs()
    # Number by number: the share of a small penalty is lost in the length of the whole.
    return bool((error <= rtol * (expected[1].abs() + 0.1 * _root_mean_square(expected[1]))).all())


def _root_mean_square(values: Tensor) -> float:
    return float(values.square().mean().sqrt()) if values.numel() else 0.0


def in_one_line(error: Exception | None) -> str:
    """Return what an exception says in one line, with its name where that is too little."""
    line = " ".join(str(error).split())[:_LONGEST]
    return line if " " in line else f"{type(error).__name__} {line}".rstrip()
