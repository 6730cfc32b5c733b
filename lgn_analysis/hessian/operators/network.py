"""The Hessian of a logic gate network's soft loss, by kernels that know its structure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeGuard

import torch
from torch import Tensor

from lgn_analysis.base import distributed
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.memory import require_memory
from lgn_analysis.gates.parametrisations import GATES16
from lgn_analysis.gates.table import COEFFICIENTS, N_GATES
from lgn_analysis.hessian.operators.batches import Batch
from lgn_analysis.hessian.operators.known_losses import is_known, strict, weights_of
from lgn_analysis.hessian.operators.linear import (
    MAX_BYTES,
    LossFn,
    ParameterOperator,
    Params,
    isolated,
)
from lgn_analysis.hessian.operators.smoothing import GumbelNoise, noisy_logits
from lgn_analysis.kernels import Backend, reference, select_backend
from lgn_analysis.kernels.interface import Curvature
from lgn_analysis.network import LogicNetwork, specify

_DTYPES: Final = (torch.float32, torch.float64)
_FRACTION: Final = 4
"""A batch is split until one piece takes at most this part of the memory."""


@dataclass(frozen=True)
class Piece:
    """A part of one batch, under one draw of the noise, and its term of the mean loss.

    ``index`` is its number, the same whatever is kept and on every rank; ``curvature`` its derivatives.
    """

    index: int
    curvature: Curvature


class NetworkHessian(ParameterOperator):
    """H = ∇² of the mean soft loss ``softmax(z/tau)`` over all samples, in layers' logits.

    What products have in common, activations and their gradients, is computed once for each batch
    and draw and kept while it fits ``max_bytes``; else it is computed again for each product. Sums
    over samples are float64. Every batch is sharded over the ranks of a process group.

    Args:
        model: a network for which :func:`is_plain` holds; its logits are copied.
        batches: bits and labels.
        loss_fn: the mean over a batch, which counts its samples, or what a loss of torch divides by.
            Samples must contribute by themselves, unless ``couples`` is set.
        layers: the layers whose logits are probed, rising.
        noise: the frozen noise of a smoothed loss; None for none.
        tau: gate temperature.
        couples: whether the loss couples the samples of a batch (as ranking losses do). Then
            derivatives come from the reference kernels, a batch a piece.
        max_bytes: memory for what is kept.

    Attributes:
        method: which kernels give the derivatives.
    """

    def __init__(
        self,
        model: LogicNetwork,
        batches: Sequence[Batch],
        loss_fn: LossFn,
        *,
        layers: Sequence[int],
        noise: GumbelNoise | None,
        tau: float,
        couples: bool = False,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        everything = dict(model.named_parameters())
        super().__init__({name: everything.pop(name) for name in map(_name, layers)})
        self.layers = list(layers)
        self.couples = couples
        self.n_samples = sum(len(y) for _, y in batches)
        self._model = model
        network = model.as_spec("soft")
        # Copies, like the logits: what happens to the network afterwards does not reach the operator.
        self._network = replace(network, wirings=tuple(w.clone() for w in network.wirings))
        self._loss_fn = strict(loss_fn)
        self._draws_random = not is_known(loss_fn)
        weigh = weights_of(loss_fn)
        weight = sum(weigh(y) for _, y in batches)
        self._tau = tau
        self._noise = noise
        self._draws: list[int | None] = list(range(noise.draws)) if noise else [None]
        rest = {name: value.detach().clone() for name, value in everything.items()}
        self._logits: Params = {**rest, **self.params}
        self._backend: Backend = (
            reference if couples else select_backend(model.device, model.backend)
        )
        self.method = f"{self._backend.NAME} kernels"
        rows = model.n_features + model.depth * model.width
        item = torch.finfo(self.dtype).bits // 8
        self._bytes = self._backend.Curvature.ARRAYS * rows * item  # type: ignore[attr-defined]
        most = len(batches[0][1]) if couples else max(1, max_bytes // _FRACTION // self._bytes)
        require_memory(
            min(max_bytes, self._bytes * self.n_samples * len(self._draws)),
            f"the activations and gradients of {model.depth} x {model.width} gates on "
            f"{self.n_samples} samples, which products share,",
            "lower max_bytes, which takes longer, or probe fewer samples",
            device=model.device,
        )
        self._parts = list(_parts(batches, None if couples else most))
        self._weights = [weigh(y) / weight / len(self._draws) for _, y in self._parts]
        self._max_bytes = self._remaining_bytes = max_bytes
        self._kept: dict[int, Curvature] = {}
        self._softmax_trace: Tensor | None = None

    def row_products(self, rows: Tensor) -> Tensor:
        """Return H v for each row v of ``rows`` [k, n_params], in float64."""
        total = torch.zeros_like(rows, dtype=torch.float64)
        for piece in self.pieces():
            total += piece.curvature.products(rows)
        return distributed.total(total)

    def move_to(self, params: Params) -> None:
        """Take other logits of the probed layers."""
        super().move_to(params)
        self._logits = {**self._logits, **params}
        self._kept, self._remaining_bytes = {}, self._max_bytes
        self._softmax_trace = None

    def loss(self) -> float:
        """Return the mean loss."""
        value = sum(piece.curvature.loss for piece in self.pieces())
        return float(
            distributed.total(torch.tensor(value, dtype=torch.float64, device=self.device))
        )

    def gradient(self) -> Tensor:
        """Return ∇L [n_params] in float64."""
        total = torch.zeros(len(self.layers), self._model.width, N_GATES, dtype=torch.float64)
        total = total.to(self.device)
        for draw in self._draws:
            p, excess = self._softmax(draw)
            total += p * excess / self._tau
        return distributed.total(total.reshape(-1))

    def softmax_trace(self) -> Tensor:
        """Return the trace of the softmax's own part of H: float64 [n_layers], exact.

        It is ``tau⁻² Σ_gates −2 Σ_k p_k² (s_k − s̄)``, s = ∂L/∂p, s̄ = Σ_k p_k s_k.
        """
        if self._softmax_trace is None:
            total = torch.zeros(len(self.layers), dtype=torch.float64, device=self.device)
            for draw in self._draws:
                p, excess = self._softmax(draw)
                total += -2 * (p**2 * excess).sum((1, 2)) / self._tau**2
            self._softmax_trace = distributed.total(total)
        return self._softmax_trace.clone()

    def pieces(self, draws: Sequence[int | None] | None = None) -> Iterator[Piece]:
        """Yield this rank's pieces of the mean loss, of some draws of the noise or of all."""
        for place, draw in enumerate(self._draws):
            if draws is not None and draw not in draws:
                continue
            moved: Params | None = None
            for number, ((x, y), weight) in enumerate(zip(self._parts, self._weights, strict=True)):
                if not weight:  # every label is ignored
                    continue
                index = place * len(self._parts) + number
                curvature = self._kept.get(index)
                if curvature is None:
                    moved = moved or self._moved(draw)
                    curvature = self._make(moved, x, y, weight)
                    taken = self._bytes * len(y)
                    if taken <= self._remaining_bytes:
                        self._remaining_bytes -= taken
                        self._kept[index] = curvature
                yield Piece(index, curvature)

    def first_piece(self, x: Tensor, y: Tensor) -> Curvature:
        """Return the derivatives of the mean loss of other samples, at the first draw."""
        return self._make(self._moved(self._draws[0]), x, y, weight=1.0)

    def _make(self, logits: Params, x: Tensor, y: Tensor, weight: float) -> Curvature:
        labels = y.to(self.device)
        loss_fn = self._loss_fn

        def loss(outputs: Tensor) -> Tensor:
            return weight * loss_fn(outputs, labels)

        with isolated(self.device, draws=self._draws_random):
            curvature = self._backend.Curvature(
                self._network,
                [logits[name] for name in map(_name, range(self._model.depth))],
                x.to(self.device),
                loss,
                tau=self._tau,
                layers=self.layers,
            )
        if not math.isfinite(curvature.loss):
            raise InvalidInputError(f"the loss is {curvature.loss}; there is nothing to probe")
        return curvature

    def _softmax(self, draw: int | None) -> tuple[Tensor, Tensor]:
        """Return p and s − s̄ of this rank's samples at one draw, float64 [n_layers, width, 16]."""
        moved = self._moved(draw)
        z = torch.stack([moved[name].double() for name in self.params])
        p = torch.softmax(z / self._tau, dim=-1)
        slopes = torch.zeros(*z.shape[:2], 4, dtype=torch.float64, device=self.device)
        for piece in self.pieces([draw]):
            slopes += piece.curvature.slopes
        s = slopes @ COEFFICIENTS.to(self.device).double().T
        return p, s - (p * s).sum(-1, keepdim=True)

    def _moved(self, draw: int | None) -> Params:
        return noisy_logits(self._logits, self._noise, draw)  # the kernels divide by tau themselves


def _name(layer: int) -> str:
    return f"layers.{layer}.logits"


def is_plain(model: object) -> TypeGuard[LogicNetwork]:
    """Return whether the kernels compute a network's curvature: it is what its class says, in their dtypes.

    They know the sixteen logits of ``gates16``.
    """
    network = specify(model, "soft").network  # type: ignore[arg-type]
    known = network is not None and network.parametrisation == GATES16
    return known and model.dtype in _DTYPES  # type: ignore[attr-defined]


def _parts(batches: Sequence[Batch], most: int | None) -> Iterator[Batch]:
    """Yield this rank's part of every batch, in pieces of at most ``most`` samples."""
    for x, y in batches:
        n = len(y)
        # A batch that cannot be sharded belongs to rank 0.
        whole = slice(0, n if distributed.world()[0] == 0 else 0)
        shard = whole if most is None else distributed.uneven_shard(n)
        for first in range(shard.start, shard.stop, most or n):
            last = min(shard.stop, first + (most or n))
            yield x[first:last], y[first:last]
