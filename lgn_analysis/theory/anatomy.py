"""Where the discretization gap comes from: layer by layer, and to second order.

A gate computes ``y = p·h(a, b)``, h its sixteen options, with weights p = softmax(z/tau) in the soft
network and p = onehot(argmax z) in the discrete one. So the two networks are two points of one space,
that of the gate weights, and between them lies the step ``Δp = onehot − p``:

    L(p + Δp) − L(p) = ⟨∇_p L, Δp⟩ + ½ Δpᵀ ∇²_p L Δp + …

In the logits z there is no such step: a one-hot gate lies at infinity. In p a gate is linear, so all
curvature is that of the loss and of gates multiplying one another's outputs, none the softmax's. Both
derivatives reach p through the four coefficients ``c = p G`` alone, hence
``⟨∇_p L, Δp⟩ = ⟨∇_c L, Δc⟩`` and ``Δpᵀ ∇²_p L Δp = Δcᵀ ∇²_c L Δc`` with ``Δc = Δp G``, exactly: the
work is done with 4 numbers a gate.

The second-order term is a sum over pairs of layers, ``½ Σ_lm Δc_lᵀ (∂²L/∂c_l ∂c_m) Δc_m``. Its
diagonal belongs to layers made discrete alone; the rest is what they do to one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.memory import require_memory
from lgn_analysis.base.validation import whole
from lgn_analysis.data import Dataset
from lgn_analysis.gates.relaxations import one_hot_argmax, soft_weights
from lgn_analysis.gates.table import gate_coefficients
from lgn_analysis.hessian.checks.trial import refuse_other_losses
from lgn_analysis.hessian.operators.known_losses import (
    check_targets,
    is_known,
    recognise,
    weights_of,
)
from lgn_analysis.hessian.operators.linear import LossFn, isolated
from lgn_analysis.hessian.operators.losses import (
    as_mean,
    check_loss,
    in_double,
)
from lgn_analysis.kernels import reference
from lgn_analysis.metrics import batches, check_labels, split_tensors
from lgn_analysis.network import LogicNetwork, as_bits, check_features, require_plain

_GRAPH_BYTES: Final = 2**30
"""Memory that the graph of two derivatives may take where no batch size is given."""
_BYTES_A_GATE: Final = 8 * 16
"""Bytes of that graph for one gate and sample: about sixteen float64 numbers."""
_MOST_SAMPLES: Final = 1024

FROM_INPUT: Final = "from input"
FROM_OUTPUT: Final = "from output"
ALONE: Final = "alone"


def discrete_sets(depth: int) -> Iterator[tuple[str, int, range]]:
    """Yield (scheme, layer, discrete layers) in the order of :attr:`AnatomyResult.states`.

    >>> [(scheme, layer, [*discrete]) for scheme, layer, discrete in discrete_sets(1)]
    [('from input', -1, []), ('from input', 0, [0]),
     ('from output', 1, []), ('from output', 0, [0]), ('alone', 0, [0])]
    """
    for layer in range(-1, depth):
        yield FROM_INPUT, layer, range(layer + 1)
    for layer in range(depth, -1, -1):
        yield FROM_OUTPUT, layer, range(layer, depth)
    for layer in range(depth):
        yield ALONE, layer, range(layer, layer + 1)


@dataclass(frozen=True)
class AnatomyResult:
    """The way from the soft network to the discrete one; losses are means over samples, in nats.

    Attributes:
        split: which split, or a label.
        n: samples.
        tau: gate temperature of the soft network.
        states: a row a set of discrete layers, the others soft. ``scheme`` and ``layer`` name the
            set: ``"from input"`` layers 0..layer (−1: none), ``"from output"`` layers layer..depth−1
            (depth: none), ``"alone"`` only that layer; ``n_discrete`` is its size. Then ``accuracy``,
            ``loss``, ``delta_loss`` and ``flips`` (predictions that differ) against the all-soft
            network, and the expansion of ``delta_loss``: ``first_order``, ``second_order`` and
            ``prediction``, their sum.
        layers: a row a layer. ``bit_flips``: share of (gate, sample) where the soft network's
            activation, rounded (½ to 1), is not the discrete network's bit; ``own_bit_flips``: the
            same where the soft layer is given the discrete network's inputs, so that only this layer
            rounds; ``distance`` and ``own_distance``: mean |activation − bit| in the two cases.
        interactions: [depth, depth], the second-order term by pairs of layers, symmetric; the sum of
            all is that of the whole network.
    """

    split: str
    n: int
    tau: float
    states: pd.DataFrame
    layers: pd.DataFrame
    interactions: NDArray[np.float64]

    @property
    def whole(self) -> pd.Series:
        """The row of ``states`` in which every layer is discrete."""
        states = self.states
        return states[states["scheme"] == FROM_INPUT].iloc[-1]

    @property
    def delta_loss(self) -> float:
        """Loss of the discrete network minus that of the soft one."""
        return float(self.whole["delta_loss"])

    @property
    def prediction(self) -> float:
        """The expansion of ``delta_loss`` to second order."""
        return float(self.whole["prediction"])

    @property
    def cross_layer(self) -> float:
        """The second-order term of the whole less those of the layers alone."""
        return float(self.interactions.sum() - np.trace(self.interactions))

    def to_frame(self) -> pd.DataFrame:
        """Return ``states``."""
        return self.states

    def __repr__(self) -> str:
        whole = self.whole
        alone = self.states[self.states["scheme"] == ALONE]
        largest = alone.iloc[int(alone["delta_loss"].abs().argmax())]
        return (
            f"AnatomyResult({self.split}, n={self.n}, {len(self.layers)} layers: loss "
            f"{whole['delta_loss']:+.4g} nats from soft to discrete, to second order "
            f"{whole['prediction']:+.4g} (first {whole['first_order']:+.4g}, second "
            f"{whole['second_order']:+.4g}, of it {self.cross_layer:+.4g} between layers), "
            f"{whole['flips']:.0f} flips; largest alone: layer {largest['layer']:.0f} with "
            f"{largest['delta_loss']:+.4g})"
        )

    def _repr_html_(self) -> str:
        states, layers = self.states.to_html(index=False), self.layers.to_html(index=False)
        return f"{states}{layers}"


def gap_anatomy(
    model: LogicNetwork,
    data: Dataset | tuple[Tensor, Tensor],
    *,
    split: str = "test",
    loss_fn: LossFn = functional.cross_entropy,
    batch_size: int | None = None,
) -> AnatomyResult:
    """Return how loss, predictions and bits change as layers go from soft to discrete.

    All is computed in float64 by the reference layer, soft at the model's tau. A discrete layer after
    soft ones sees real inputs and extends its gate multilinearly, as everywhere; the all-discrete
    network sees bits and is ``mode="discrete"`` exactly, the first of tied options and classes
    winning. See :mod:`lgn_analysis.theory.anatomy` for the expansion.

    Args:
        model: left as it is, whatever its mode.
        data: a data set, or a pair (bits [n, n_features], labels int64 [n]).
        split: which split of a data set; for a pair only a label.
        loss_fn: ``loss_fn(output, y)``, the mean over the batch.
        batch_size: samples at a time; None keeps the derivatives' graph within a gigabyte.

    Raises:
        InvalidInputError: the inputs are not bits, the labels do not fit, or several batches of the
            loss add up to no mean.
    """
    require_plain(model, "a gap anatomy")
    check_loss(loss_fn)
    x, y = split_tensors(data, split)
    check_features(x, model.n_features)
    check_labels(y, model.n_classes)
    x = as_bits(x)
    if batch_size is None:
        batch_size = min(_MOST_SAMPLES, max(1, _GRAPH_BYTES // (_BYTES_A_GATE * model.n_gates)))
    batch_size = whole("batch_size", batch_size, least=1)
    require_memory(
        min(batch_size, len(y)) * _BYTES_A_GATE * model.n_gates,
        f"the derivatives of {model.depth} x {model.width} gates on {min(batch_size, len(y))} samples",
        "lower batch_size",
        device=model.device,
    )
    check_targets(loss_fn, [(x, y)])
    weigh, draws = weights_of(loss_fn), not is_known(loss_fn)
    loss_fn = in_double(loss_fn)
    tally = _Tally(model, loss_fn)
    if recognise(loss_fn) is None:
        with isolated(model.device, draws=draws), torch.no_grad():
            pieces = batches(x, y, batch_size, model.device)
            outputs = [
                (tally.outputs(tally.tail(a.T.double(), tally.soft, 0)[-1]), b) for a, b in pieces
            ]
            refuse_other_losses(model, loss_fn, outputs, what="a gap anatomy")
    for inputs, labels in batches(x, y, batch_size, model.device):
        weight = weigh(labels)
        with isolated(model.device, draws=draws):
            tally.add_states(inputs, labels, weight)
            if weight:
                tally.add_expansion(inputs, labels, weight)
    interactions = (tally.second / tally.weight).cpu().numpy()
    return AnatomyResult(
        split=split,
        n=tally.n,
        tau=model.relaxation.tau,
        states=_states_frame(tally, interactions),
        layers=_layers_frame(tally, model),
        interactions=interactions,
    )


class _Tally:
    """Sums over samples; the states in the order of :func:`discrete_sets`.

    Attributes:
        soft, hard: the coefficients c [n_out, 4] of every layer, float64.
    """

    def __init__(self, model: LogicNetwork, loss_fn: LossFn) -> None:
        self.model, self.loss_fn = model, loss_fn
        logits = [layer.logits.detach().double() for layer in model.layers]
        self.soft = [gate_coefficients(soft_weights(z, model.relaxation.tau)) for z in logits]
        self.hard = [gate_coefficients(one_hot_argmax(z)) for z in logits]
        self.depth = model.depth
        self.n = 0
        self.weight = 0.0
        n_states = sum(1 for _ in discrete_sets(self.depth))
        self.hits = [0] * n_states
        self.flips = [0] * n_states
        self.loss = [0.0] * n_states
        self.bit_flips = np.zeros((self.depth, 2))
        self.distance = np.zeros((self.depth, 2))
        self.first = torch.zeros(self.depth, dtype=torch.float64)
        self.second = torch.zeros(self.depth, self.depth, dtype=torch.float64)

    def layer(self, index: int, features: Tensor, coefficients: Sequence[Tensor]) -> Tensor:
        """Return the outputs [n, batch] of one layer."""
        wiring = self.model.layers[index].wiring
        return reference.gate_layer(features, wiring, coefficients[index])

    def tail(self, features: Tensor, coefficients: Sequence[Tensor], first: int) -> list[Tensor]:
        """Return ``features`` and the outputs of layers ``first`` and on, each [n, batch]."""
        outputs = [features]
        for index in range(first, self.depth):
            outputs.append(self.layer(index, outputs[-1], coefficients))
        return outputs

    def outputs(self, last: Tensor) -> Tensor:
        """Return class sums [batch, n_classes] of the last layer's outputs [n, batch]."""
        sums: Tensor = self.model.group_sum(last.T)
        return sums

    @torch.no_grad()
    def add_states(self, x: Tensor, y: Tensor, weight: float) -> None:
        """Add what every state makes of a batch."""
        features = x.T.double()
        at_soft, at_hard = (self.tail(features, c, 0) for c in (self.soft, self.hard))
        for layer in range(self.depth):
            bits = at_hard[layer + 1]
            own = self.layer(layer, at_hard[layer], self.soft)
            for place, values in enumerate((at_soft[layer + 1], own)):
                self.bit_flips[layer, place] += int(((values >= 0.5) != (bits == 1)).sum())
                self.distance[layer, place] += float((values - bits).abs().sum())
        baseline: Tensor | None = None
        for index, (scheme, layer, _) in enumerate(discrete_sets(self.depth)):
            if scheme == FROM_INPUT:
                last = self.tail(at_hard[layer + 1], self.soft, layer + 1)[-1]
            elif scheme == FROM_OUTPUT:
                last = self.tail(at_soft[layer], self.hard, layer)[-1]
            else:
                last = self.tail(
                    self.layer(layer, at_soft[layer], self.hard), self.soft, layer + 1
                )[-1]
            outputs = self.outputs(last)
            predicted = outputs.argmax(-1)
            baseline = predicted if baseline is None else baseline  # the first state is all soft
            self.hits[index] += int((predicted == y).sum())
            self.flips[index] += int((predicted != baseline).sum())
            self.loss[index] += weight * float(as_mean(self.loss_fn(outputs, y))) if weight else 0.0
        self.n += len(y)
        self.weight += weight

    def add_expansion(self, x: Tensor, y: Tensor, weight: float) -> None:
        """Add ⟨∇_c L, Δc⟩ by layers, and ½ Δcᵀ ∇²_c L Δc by pairs of them."""
        leaves = [c.clone().requires_grad_() for c in self.soft]
        steps = [discrete - c for c, discrete in zip(self.soft, self.hard, strict=True)]
        loss = self.loss_fn(self.outputs(self.tail(x.T.double(), leaves, 0)[-1]), y)
        gradient = torch.autograd.grad(loss, leaves, create_graph=True)
        for layer, (slope, step) in enumerate(zip(gradient, steps, strict=True)):
            along = (slope * step).sum()
            self.first[layer] += weight * float(along.detach())
            if not along.requires_grad:  # one layer and a linear loss
                continue
            products = torch.autograd.grad(along, leaves, retain_graph=True, materialize_grads=True)
            for other, (product, delta) in enumerate(zip(products, steps, strict=True)):
                self.second[layer, other] += weight * float((product * delta).sum()) / 2


def _states_frame(tally: _Tally, interactions: NDArray[np.float64]) -> pd.DataFrame:
    first = (tally.first / tally.weight).numpy()
    rows = []
    for index, (scheme, layer, discrete) in enumerate(discrete_sets(tally.depth)):
        where = [*discrete]
        slope, curvature = first[where].sum(), interactions[np.ix_(where, where)].sum()
        rows.append(
            {
                "scheme": scheme,
                "layer": layer,
                "n_discrete": len(where),
                "accuracy": tally.hits[index] / tally.n,
                "loss": tally.loss[index] / tally.weight,
                "delta_loss": (tally.loss[index] - tally.loss[0]) / tally.weight,
                "flips": tally.flips[index],
                "first_order": slope,
                "second_order": curvature,
                "prediction": slope + curvature,
            }
        )
    return pd.DataFrame(rows)


def _layers_frame(tally: _Tally, model: LogicNetwork) -> pd.DataFrame:
    frame = pd.DataFrame({"layer": range(tally.depth), "n_gates": model.width})
    for name, totals in (("bit_flips", tally.bit_flips), ("distance", tally.distance)):
        shares = totals / (tally.n * model.width)
        frame[name], frame[f"own_{name}"] = shares.T
    return frame
