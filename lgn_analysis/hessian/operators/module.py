"""The Hessian of any module's mean loss, by automatic differentiation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.func import grad, jvp

from lgn_analysis.base import distributed
from lgn_analysis.base.memory import require_memory
from lgn_analysis.hessian.operators.batches import Batch
from lgn_analysis.hessian.operators.linear import (
    MAX_BYTES,
    BatchLoss,
    ParameterOperator,
    ParamLoss,
    Params,
    isolated,
    unflatten,
)


@dataclass(frozen=True)
class Plan:
    """How a module's loss is differentiated and summed.

    Attributes:
        method: one of :data:`METHODS`.
        weigh: from the targets of a batch to what it counts in the mean.
        shared: whether ranks may shard a batch, as they may where its loss is a mean over samples.
        bytes_a_sample: that a graph of the gradient holds.
        few: samples that the module takes by themselves, or a whole batch where it takes none such.
    """

    method: str
    weigh: Callable[[Tensor], float]
    shared: bool
    bytes_a_sample: float
    few: Batch


class ModuleHessian(ParameterOperator):
    """H = ∇² of the mean loss over all samples, in a dict of parameters.

    Sums over batches are float64, each batch weighted by what it counts in the mean; every batch
    is sharded over the ranks of a process group. Three methods give the same product. ``"double-backward"`` differentiates
    ⟨∇L, v⟩ once more, on graphs of ∇L that are kept while they fit ``max_bytes``.
    ``"forward-over-reverse"`` is ``torch.func.jvp`` of ``torch.func.grad``, keeps nothing and takes
    longer. ``"live"`` is the first on the module's own parameters, which hold the probe's values
    meanwhile; it keeps nothing either. See :func:`.trial.plan_for` for which is taken.

    Args:
        batch_losses: mean losses, of which the loss is the mean.
        params: the parameters, copied.
        batches: the samples.
        plan: how.
        max_bytes: memory for graphs that are kept.

    Attributes:
        method: which of the three is in use.
    """

    def __init__(
        self,
        batch_losses: Sequence[BatchLoss],
        params: Params,
        batches: Sequence[Batch],
        plan: Plan,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        super().__init__(params)
        self.method = plan.method
        weight = sum(plan.weigh(y) for _, y in batches)
        unsharded = slice(None) if distributed.world()[0] == 0 else slice(0)
        shards = [
            (x[part], y[part])
            for x, y in batches
            for part in [distributed.uneven_shard(len(y)) if plan.shared else unsharded]
        ]
        # Weights add to one over batches, losses and ranks.
        self._weighted = [
            (plan.weigh(y) / weight / len(batch_losses), on_batch(loss, x, y))
            for x, y in shards
            if len(y) and plan.weigh(y)
            for loss in batch_losses
        ]
        self._graphs: dict[int, tuple[Tensor, list[Tensor]]] = {}
        n_samples = sum(len(y) for _, y in shards)
        held = n_samples * len(batch_losses) * plan.bytes_a_sample
        self.keeps_graphs = self.method == "double-backward" and held <= max_bytes
        require_memory(
            int(held) if self.keeps_graphs else 0,
            f"the graphs of the gradient over {n_samples} samples, which are kept,",
            "lower max_bytes, which takes longer, or probe fewer samples",
            device=self.device,
        )

    def row_products(self, rows: Tensor) -> Tensor:
        """Return H v for each row v of ``rows`` [k, n_params], in float64."""
        with isolated(self.device):
            rows = rows.clone() if rows.is_inference() else rows
            total = torch.zeros_like(rows, dtype=torch.float64)
            for place, (weight, loss) in enumerate(self._weighted):
                for index, product in enumerate(self._piece_products(place, loss, rows)):
                    total[index] += weight * product.double()
        return distributed.total(total)

    def move_to(self, params: Params) -> None:
        """Take other values of the parameters."""
        super().move_to(params)
        self._graphs = {}

    def loss(self) -> float:
        """Return the mean loss."""
        with isolated(self.device), torch.no_grad():
            value = sum(weight * loss(self.params).double() for weight, loss in self._weighted)
        return float(
            distributed.total(torch.as_tensor(value, dtype=torch.float64, device=self.device))
        )

    def gradient(self) -> Tensor:
        """Return ∇L [n_params] in float64."""
        with isolated(self.device):
            total = torch.zeros(self.shape[0], dtype=torch.float64, device=self.device)
            for weight, loss in self._weighted:
                total += weight * value_and_gradient(loss, self.params)[1]
        return distributed.total(total)

    def _piece_products(self, place: int, loss: ParamLoss, rows: Tensor) -> Iterator[Tensor]:
        if not self.keeps_graphs:
            return METHODS[self.method](loss, self.params, rows)
        if place not in self._graphs:
            self._graphs[place] = _graph(loss, self.params)
        return _backward_again(*self._graphs[place], rows, keep=True)


def on_batch(loss: BatchLoss, x: Tensor, y: Tensor) -> ParamLoss:
    """Return the loss of one batch as a function of parameters."""
    return lambda params: loss(params, x, y)


def value_and_gradient(loss: ParamLoss, params: Params) -> tuple[float, Tensor]:
    """Return the loss and its gradient as one float64 vector."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    value = loss(leaves)
    gradient = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    return float(value.detach()), _flat(gradient).double()


def _graph(loss: ParamLoss, params: Params) -> tuple[Tensor, list[Tensor]]:
    """Return ∇L with its graph, and the leaves it hangs on."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    inputs = list(leaves.values())
    parts = torch.autograd.grad(loss(leaves), inputs, create_graph=True, materialize_grads=True)
    return _flat(parts), inputs


def _flat(parts: Sequence[Tensor]) -> Tensor:
    """Return gradients in one vector; those of some embeddings are sparse."""
    dense = (part.to_dense() if part.layout != torch.strided else part for part in parts)
    return torch.cat([part.reshape(-1) for part in dense])


def _backward_again(
    gradient: Tensor, inputs: list[Tensor], rows: Tensor, *, keep: bool
) -> Iterator[Tensor]:
    for index, row in enumerate(rows):
        if not gradient.requires_grad:  # the loss is linear in the parameters
            yield torch.zeros_like(row)
            continue
        product = torch.autograd.grad(
            gradient,
            inputs,
            row,
            retain_graph=keep or index + 1 < len(rows),
            materialize_grads=True,
        )
        yield _flat(product)


def _double_backward(loss: ParamLoss, params: Params, rows: Tensor) -> Iterator[Tensor]:
    return _backward_again(*_graph(loss, params), rows, keep=False)


def _forward_over_reverse(loss: ParamLoss, params: Params, rows: Tensor) -> Iterator[Tensor]:
    gradient = grad(loss)
    for row in rows:
        product = jvp(gradient, (params,), (unflatten(row, params),))[1]
        yield torch.cat([part.reshape(-1) for part in product.values()])


Products = Callable[[ParamLoss, Params, Tensor], Iterator[Tensor]]
METHODS: Final[dict[str, Products]] = {
    "double-backward": _double_backward,
    "forward-over-reverse": _forward_over_reverse,
    "live": _double_backward,  # of a LiveLoss
}


def graph_bytes(loss: ParamLoss, params: Params) -> float:
    """Return the bytes that a graph of the gradient holds; infinity where they cannot be counted."""
    held: list[int] = []

    def count(tensor: Tensor) -> Any:
        held.append(tensor.numel() * tensor.element_size())
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            _graph(loss, params)
    except RuntimeError:  # torch.func inside the module forbids hooks on saved tensors
        return math.inf
    return float(sum(held))
