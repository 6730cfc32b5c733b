"""Slices through the soft loss of a logic gate network, and how smooth they are.

See :mod:`lgn_analysis.theory.directions` for what a coordinate of 1 means.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional
from tqdm.auto import tqdm

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.memory import require_memory
from lgn_analysis.base.validation import positive, real, seed_number, shown, whole
from lgn_analysis.gates.table import N_GATES
from lgn_analysis.hessian.checks.trial import refuse_other_losses
from lgn_analysis.hessian.operators.batches import Batch, as_batches
from lgn_analysis.hessian.operators.known_losses import (
    check_labels,
    check_network_data,
    check_targets,
    recognise,
    strict,
    weights_of,
)
from lgn_analysis.hessian.operators.linear import LossFn, Params
from lgn_analysis.hessian.operators.losses import (
    as_mean,
    check_loss,
    in_double,
    in_double_values,
)
from lgn_analysis.hessian.operators.smoothing import (
    GumbelNoise,
    check_noise,
    given_tau,
    perturbed_logits,
)
from lgn_analysis.hessian.probe import HessianProbe
from lgn_analysis.hessian.results.spectrum import EigenResult
from lgn_analysis.network import LogicNetwork, as_bits, require_plain
from lgn_analysis.theory.directions import (
    along,
    at_own_length,
    between_soft_and_discrete,
    check_vectors,
    discrete_distance,
    filter_direction,
    upright,
)
from lgn_analysis.theory.landscape_result import LandscapeResult

DIRECTIONS: Final = ("filter", "eigen", "discrete")

_COPIES: Final = 4
"""Vectors in float64 that a direction takes while it is made and moved along."""

_EIGEN_TOLERANCE: Final = 1e-3
"""Relative residual of the eigenvectors: a slice along them looks the same from here on."""


def landscape(
    model: LogicNetwork,
    data: Any,
    *,
    directions: str | tuple[Tensor, ...] = "filter",
    dims: int | None = None,
    grid: int | None = None,
    span: float | tuple[float, float] | None = None,
    seed: int = 0,
    loss_fn: LossFn = functional.cross_entropy,
    tau: float | None = None,
    noise: GumbelNoise | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> LandscapeResult:
    """Return the soft loss on a slice through the model, L(z + x·d₁ + y·d₂).

    Args:
        model: left as it is, whatever its mode.
        data: ``(x, y)``, or batches, as for :class:`lgn_analysis.HessianProbe`.
        directions: ``"filter"``, ``"eigen"`` (the largest eigenvalue's and, as the second, the
            smallest's: the steepest wall and the way down), ``"discrete"`` (one dimension), or one or
            two vectors [n_params] in z, which are taken as they are.
        dims: 1 or 2; None is 2, and 1 for ``"discrete"``.
        grid: points along each coordinate, at least 3; None is 25 in two dimensions and 51 in one. An
            odd number has the model itself on the grid.
        span: coordinates run from −span to span, or over a pair (low, high); None is 1, and (0, 1)
            for ``"discrete"``.
        seed: seed of random directions and of the eigensolver's start.
        loss_fn: ``loss_fn(output, y)``, the mean over the batch.
        tau: gate temperature; None is the noise's, or else the model's.
        noise: take the mean over its frozen draws, ``softmax((z + g)/tau)``.
        batch_size: split the data, to bound memory.
        progress: show a progress bar.

    Raises:
        InvalidInputError: directions, grid or data do not fit.
    """
    require_plain(model, "a landscape", hooks=False)
    check_loss(loss_fn)
    check_noise(noise)
    seed = seed_number(seed)
    dims, grid = _check_shape(directions, dims, grid)
    given = given_tau(tau, noise)
    tau = positive("tau", model.relaxation.tau if given is None else given)
    pieces = as_batches(data, batch_size)
    check_network_data(loss_fn, pieces, model.n_features)
    check_labels(loss_fn, pieces, model.n_classes)
    check_targets(loss_fn, pieces)
    coordinates = _coordinates(directions, dims, grid, span)
    n_params = N_GATES * model.n_gates
    require_memory(
        _COPIES * dims * 8 * n_params,
        f"{dims} directions of {n_params} numbers, and the points along them,",
        "take a smaller network",
        device=model.device,
    )
    if directions == "discrete":
        if noise is not None:
            raise InvalidInputError(
                'directions="discrete" runs in gate weights, where Gumbel noise in the logits has no '
                "meaning; leave out noise"
            )
        pieces = [(as_bits(x), y) for x, y in pieces]
        at, length = between_soft_and_discrete(model, tau), discrete_distance(model, tau)
        chosen = _Slice(("soft → discrete",), (length,), (math.nan,), at)
    elif not isinstance(directions, str):
        chosen = _slice_along(model, check_vectors(model, directions), "direction")
    elif directions == "filter":
        vectors = [filter_direction(model, seed, index) for index in range(dims)]
        chosen = _slice_along(model, vectors, "random direction")
    else:
        probe = HessianProbe(
            model, data, loss_fn=loss_fn, params="*", tau=tau, noise=noise, batch_size=batch_size
        )
        pairs = probe.eigs(k=dims, which="BE", tol=_EIGEN_TOLERANCE, seed=seed, progress=progress)
        chosen = _eigen_slice(model, pairs)
    mean = _MeanLoss(model, pieces, loss_fn, tau)
    points = list(itertools.product(*coordinates))
    draws: Sequence[int | None] = range(noise.draws) if noise else (None,)
    values = np.zeros((len(points), 2))
    bar = tqdm(total=len(draws) * len(points), desc="landscape", unit="point", disable=not progress)
    for draw in draws:
        shift = _frozen_noise(model, noise, draw)
        for index, point in enumerate(points):
            values[index] += mean(chosen.at(point), shift)
            bar.update()
    bar.close()
    table = (values / len(draws)).reshape(*map(len, coordinates), 2)
    return LandscapeResult(
        coordinates=coordinates,
        loss=table[..., 0],
        accuracy=table[..., 1],
        directions=chosen.names,
        lengths=chosen.lengths,
        eigenvalues=chosen.eigenvalues,
        tau=tau,
        n=mean.n,
        seed=seed,
        noise=noise,
    )


class _Slice(NamedTuple):
    """The directions of a slice, as in :class:`LandscapeResult`, and the logits at its points."""

    names: tuple[str, ...]
    lengths: tuple[float, ...]
    eigenvalues: tuple[float, ...]
    at: Callable[[Sequence[float]], Params]


def _slice_along(model: LogicNetwork, vectors: Sequence[Tensor], name: str) -> _Slice:
    names = tuple(f"{name} {index + 1}" for index in range(len(vectors)))
    lengths = tuple(float(torch.linalg.vector_norm(v)) for v in vectors)
    return _Slice(names, lengths, (math.nan,) * len(vectors), along(model, vectors))


def _eigen_slice(model: LogicNetwork, pairs: EigenResult) -> _Slice:
    vectors = [at_own_length(model, upright(v)) for v in pairs.vectors.T]
    names = ("top eigenvector", "bottom eigenvector")[: len(vectors)]
    eigenvalues = tuple(map(float, pairs.values))
    return _slice_along(model, vectors, "")._replace(names=names, eigenvalues=eigenvalues)


class _MeanLoss:
    """Mean loss and accuracy over the data at any logits, by the fastest forward there is."""

    def __init__(
        self, model: LogicNetwork, pieces: Sequence[Batch], loss_fn: LossFn, tau: float
    ) -> None:
        # A copy: while it is called it holds other logits, and other threads may call the model.
        self._model, self._tau = copy.deepcopy(model), tau
        self._loss_fn = in_double(strict(loss_fn))
        self._pieces = [
            (x.to(model.device), in_double_values(y).to(model.device)) for x, y in pieces
        ]
        self._weigh = weights_of(loss_fn)
        self._weight = sum(self._weigh(y) for _, y in pieces)
        self.n = sum(len(y) for _, y in pieces)
        y = pieces[0][1]
        self._classes = y.ndim == 1 and not (y.is_floating_point() or y.dtype == torch.bool)
        if recognise(loss_fn) is None:
            at = {name: value.detach() for name, value in model.named_parameters()}
            outputs = [(self._outputs(at, x), y) for x, y in self._pieces]
            refuse_other_losses(model, self._loss_fn, outputs, what="a landscape")

    def __call__(self, logits: Params, shift: Params | None) -> tuple[float, float]:
        if shift is not None:
            logits = {name: z + shift[name] for name, z in logits.items()}
        # Without noise this only brings the logits to tau, which the model divides by its own.
        logits = perturbed_logits(logits, self._model, None, None, tau=self._tau)
        loss, hits = 0.0, 0
        for x, y in self._pieces:
            outputs, weight = self._outputs(logits, x), self._weigh(y)
            loss += weight * float(as_mean(self._loss_fn(outputs, y)).detach()) if weight else 0.0
            hits += int((outputs.argmax(-1) == y).sum()) if self._classes else 0
        return loss / self._weight, hits / self.n if self._classes else math.nan

    @torch.no_grad()
    def _outputs(self, logits: Params, x: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self._model, logits, (x,), {"mode": "soft"})
        return outputs.double()  # the grid's second differences are small differences of losses


def _frozen_noise(
    model: LogicNetwork, noise: GumbelNoise | None, draw: int | None
) -> Params | None:
    """Return the noise of one draw on every logit; drawing it anew at each point would cost more
    than the network."""
    if noise is None:
        return None
    zeros = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    return perturbed_logits(zeros, model, noise, draw, tau=model.relaxation.tau)


def _coordinates(
    directions: str | tuple[Tensor, ...],
    dims: int,
    grid: int,
    span: float | tuple[float, float] | None,
) -> tuple[NDArray[np.float64], ...]:
    if span is None:
        span = (0.0, 1.0) if directions == "discrete" else 1.0
    ends = (span,) if isinstance(span, int | float) else span
    if not isinstance(ends, tuple) or len(ends) > 2:
        raise InvalidInputError(f"span must be a number or a pair (low, high), got {shown(span)}")
    low, high = real("span", ends[0]), real("span", ends[-1])
    low = 0.0 - low if len(ends) == 1 else low  # no -0.0
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidInputError(f"span must be finite and not empty, got {low} to {high}")
    if directions == "discrete" and not (low >= 0 and high <= 1):
        raise InvalidInputError(
            f"between the soft and the discrete network t lies in [0, 1], got {low} to {high}"
        )
    return tuple(np.linspace(low, high, grid) for _ in range(dims))


def _check_shape(
    directions: str | tuple[Tensor, ...], dims: int | None, grid: int | None
) -> tuple[int, int]:
    """Return dims and grid, or raise where they do not fit the directions."""
    if not isinstance(directions, str | Sequence):
        raise InvalidInputError(
            f"directions must be one of {', '.join(DIRECTIONS)}, or a tuple of one or two vectors, "
            f"got {type(directions).__name__}"
        )
    if isinstance(directions, str):
        if directions not in DIRECTIONS:
            raise InvalidInputError(
                f"unknown directions {directions!r}; use one of {', '.join(DIRECTIONS)}, or one or "
                "two vectors"
            )
        possible = (1,) if directions == "discrete" else (2, 1)
    else:
        possible = (len(directions),)
        if len(directions) not in (1, 2):
            raise InvalidInputError(f"give one or two directions, got {len(directions)}")
    dims = possible[0] if dims is None else dims
    if dims not in possible:
        choices = " or ".join(map(str, possible))
        raise InvalidInputError(f"dims must be {choices} for these directions, got {dims}")
    grid = (51 if dims == 1 else 25) if grid is None else whole("grid", grid)
    if grid < 3:
        raise InvalidInputError(f"a second difference needs a grid of at least 3, got {grid}")
    return dims, grid
