"""A network's numbers with bounds on what float32 makes of them, in the arithmetic of ``roundoff``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.gates.noise import NoiseKey, gumbel
from lgn_analysis.gates.relaxations import CAGE, UNDECIDED
from lgn_analysis.gates.table import COEFFICIENTS
from lgn_analysis.network import LogicNetwork
from tests.properties.roundoff import (
    Rounded,
    U,
    by_softmax,
    columns,
    gamma,
    gate,
    kept,
    mixture,
    scatter,
    slope,
    softmax,
    stack,
    to_options,
)


@dataclass(frozen=True)
class Loss:
    """The mean cross-entropy of class logits [batch, n_groups], with its derivatives.

    Attributes:
        value: the mean, [].
        gradient: by the class logits, [batch, n_groups].
        hessian: by the class logits, [batch, n_groups, n_groups].
    """

    value: Rounded
    gradient: Rounded
    hessian: Rounded


def cross_entropy(outputs: Rounded, labels: Tensor) -> Loss:
    """Return the mean cross-entropy of class logits [batch, n_groups]."""
    batch, n_groups = outputs.exact.shape
    soft = softmax(outputs)
    total, place = soft.total, labels.unsqueeze(-1)
    log = total.exact.log()
    # Of a total within e of its exact value and at least 1, as its largest term is 1.
    log_error = total.error / (total.exact - total.error).clamp(min=0.0)
    log = Rounded(log, log_error.nan_to_num(nan=torch.inf).clamp(max=n_groups)).after(4)
    top = outputs.exact.argmax(-1, keepdim=True)
    ends = outputs.exact.gather(-1, top) - outputs.exact.gather(-1, place)
    sizes = outputs.size.gather(-1, top) + outputs.size.gather(-1, place)
    errors = outputs.error.gather(-1, top) + outputs.error.gather(-1, place)
    ends, errors = ends.squeeze(-1), torch.where(top == place, 0.0, errors).squeeze(-1)
    losses = Rounded(log.exact + ends, log.error + errors).after(4, log.size + sizes.squeeze(-1))
    # A weight that is taken as exp(q − top − log Σ) has the roundings of that exponent.
    depth = (outputs.exact - outputs.exact.gather(-1, top)).abs() + soft.log_error
    again = gamma(8) * soft.p.size * (1.0 + depth + log.size.unsqueeze(-1))
    p = Rounded(soft.p.exact, soft.p.error + again).at_most(1.0 + 64 * U)
    hot = functional.one_hot(labels, n_groups).double()
    across = p[:, :, None] * p[:, None, :]
    diagonal = Rounded(torch.diag_embed(p.exact), torch.diag_embed(p.error))
    return Loss(
        value=losses.sum(0).scaled(1.0 / batch),
        gradient=(p - Rounded.of(hot)).scaled(1.0 / batch),
        hessian=(diagonal - across).after(8, diagonal.size + across.size).scaled(1.0 / batch),
    )


@dataclass(frozen=True)
class Layer:
    """One layer of an analysed forward pass; activations are [n, batch]."""

    wiring: Tensor
    tau: float
    tau_error: float
    weights: Rounded
    coefficients: Rounded
    a: Rounded
    b: Rounded

    @property
    def slopes(self) -> tuple[Rounded, Rounded]:
        """The derivatives by A and by B."""
        _, c1, c2, c3 = columns(self.coefficients)
        return slope(c1, c3, self.b), slope(c2, c3, self.a)


class Analysis:
    """A network's forward pass, loss and gradient for float32 logits, with their bounds.

    Args:
        model: float64, with logits that float32 holds.
        x: [batch, n_features], of numbers that float32 holds.
        y: int64 [batch].
        soft: analyse soft mode; by default the training forward.
        key: the noise, where the training forward draws it.

    Attributes:
        is_decided: whether every hard gate is the same one in float32: no two noisy logits are closer
            than their errors.
        activations: outputs of every layer's gates, [n, batch].
        outputs: class logits [batch, n_groups].
        loss: mean cross-entropy.
        gradients: of the loss by each layer's logits, [n, 16].
    """

    def __init__(
        self, model: LogicNetwork, x: Tensor, y: Tensor, *, soft: bool, key: NoiseKey | None
    ) -> None:
        self._model, self._n_groups = model, model.group_sum.n_groups
        self._group_tau = model.group_sum.group_tau
        self._factor = 1.0 if soft else model.config["grad_factor"]
        self.is_decided = True
        self.layers: list[Layer] = []
        self.activations: list[Rounded] = []
        values = Rounded.of(x.T)
        for index in range(model.depth):
            layer = self._layer(index, values, soft, key)
            values = gate(layer.coefficients, layer.a, layer.b)
            self.layers.append(layer)
            self.activations.append(values)
        outputs = self._groups(values).sum(1).scaled(1.0 / self._group_tau)
        self.outputs = Rounded(outputs.exact.T, outputs.error.T)
        self._loss = cross_entropy(self.outputs, y)
        self.loss = self._loss.value
        self._sums, self.deltas = self._backward()
        self.gradients = [
            by_softmax(layer.weights, to_options(four), layer.tau, layer.tau_error)
            for layer, four in zip(self.layers, self._sums, strict=True)
        ]

    def _layer(self, index: int, values: Rounded, soft: bool, key: NoiseKey | None) -> Layer:
        layer = self._model.layers[index]
        relaxation, z = layer.relaxation, layer.logits.detach()
        perturbed, same = Rounded.of(z), z == z.amax(-1, keepdim=True)
        if not soft and relaxation.noisy:
            assert key is not None
            g = gumbel(key, index, layer.n_out, dtype=torch.float64)
            perturbed = perturbed + Rounded(g, 8 * U * g.abs().clamp(min=1.0))
            same = torch.zeros_like(same)
        tau, tau_error = relaxation.tau, 0.0
        if not soft and isinstance(relaxation, CAGE):
            tau, tau_error = _adapted(relaxation, perturbed, same)
        weights = softmax(perturbed.scaled(1.0 / tau, tau_error), same).p
        coefficients = mixture(weights)
        if not soft and relaxation.hard:
            best = perturbed.exact.argmax(-1)
            gap = perturbed.exact.gather(-1, best[:, None]) - perturbed.exact
            doubt = perturbed.error.gather(-1, best[:, None]) + perturbed.error
            doubtful = (gap <= doubt).sum(-1) > 1  # the best is as near to itself as can be
            self.is_decided &= not (relaxation.noisy and bool(doubtful.any()))
            coefficients = Rounded.of(COEFFICIENTS[best])
        a, b = values[layer.wiring[0]], values[layer.wiring[1]]
        return Layer(layer.wiring, tau, tau_error, weights, coefficients, a, b)

    def _backward(self) -> tuple[list[Rounded], list[Rounded]]:
        """Return the four sums [n, 4] of every layer, and the gradients [n, batch] of its outputs."""
        gradient = self._loss.gradient.scaled(1.0 / self._group_tau)
        delta = self._spread(Rounded(gradient.exact.T, gradient.error.T))
        sums, deltas = [], []
        for index in reversed(range(len(self.layers))):
            layer = self.layers[index]
            terms = [delta, delta * layer.a, delta * layer.b, delta * (layer.a * layer.b)]
            sums.append(stack([term.sum(1) for term in terms]))
            deltas.append(delta)
            by_a, by_b = layer.slopes
            rows = [(layer.wiring[0], delta * by_a), (layer.wiring[1], delta * by_b)]
            delta = scatter(rows, self._model.layers[index].n_in)
            if self._factor != 1.0:
                delta = delta.scaled(self._factor)
        return sums[::-1], deltas[::-1]

    def _groups(self, rows: Rounded) -> Rounded:
        """Return [width, batch] as [n_groups, group_size, batch]."""
        return Rounded(*(v.unflatten(0, (self._n_groups, -1)) for v in (rows.exact, rows.error)))

    def _spread(self, groups: Rounded) -> Rounded:
        """Return [n_groups, batch] as one row a gate."""
        size = self._model.width // self._n_groups
        return Rounded(*(v.repeat_interleave(size, 0) for v in (groups.exact, groups.error)))

    def product(self, directions: list[Tensor]) -> list[Rounded]:
        """Return H v, the product of the loss's Hessian, in soft mode, for v [n, 16] of every layer."""
        moves, tangents = [], []
        batch = self.layers[0].a.exact.shape[1]
        moved = Rounded.of(torch.zeros(self._model.n_features, batch))
        for layer, v in zip(self.layers, directions, strict=True):
            changed = by_softmax(layer.weights, Rounded.of(v), layer.tau)
            move = mixture(changed)
            by_a, by_b = layer.slopes
            a, b = moved[layer.wiring[0]], moved[layer.wiring[1]]
            moved = gate(move, layer.a, layer.b) + by_a * a + by_b * b
            moves.append((changed, move))
            tangents.append((a, b))
        change = self._groups(moved).sum(1)
        hessian = self._loss.hessian.scaled(1.0 / self._group_tau**2)
        change = Rounded(change.exact.T.unsqueeze(1), change.error.T.unsqueeze(1))
        turned = (hessian * change).sum(-1)
        delta = self._spread(Rounded(turned.exact.T, turned.error.T))
        products = []
        for index in reversed(range(len(self.layers))):
            layer, (changed, move), (a, b) = self.layers[index], moves[index], tangents[index]
            still = self.deltas[index]
            both = layer.a * layer.b
            four = [
                delta,
                delta * layer.a + still * a,
                delta * layer.b + still * b,
                delta * both + (still * layer.b) * a + (still * layer.a) * b,
            ]
            s, turn = (
                to_options(sums)
                for sums in (self._sums[index], stack([term.sum(1, parts=3) for term in four]))
            )
            p = layer.weights
            centred = s - kept((p * s).sum(-1))
            mean = kept((changed * centred + p * turn).sum(-1))
            row = changed * centred + p * (turn - mean)
            products.append(row.scaled(1.0 / layer.tau))
            by_a, by_b = layer.slopes
            _, m1, m2, m3 = columns(move)
            c3 = columns(layer.coefficients)[3]
            through_a = delta * by_a + still * (slope(m1, m3, layer.b) + c3 * b)
            through_b = delta * by_b + still * (slope(m2, m3, layer.a) + c3 * a)
            rows = [(layer.wiring[0], through_a), (layer.wiring[1], through_b)]
            delta = scatter(rows, self._model.layers[index].n_in)
        return products[::-1]


def _adapted(relaxation: CAGE, z: Rounded, same: Tensor) -> tuple[float, float]:
    """Return CAGE's first temperature of a layer, and its relative error."""
    p = softmax(z.scaled(1.0 / relaxation.tau), same).p
    certainty = Rounded(p.exact.amax(-1), p.error.amax(-1)).sum(0).scaled(1.0 / len(p.exact))
    new = certainty.scaled(1.0 - relaxation.decay)
    kept = Rounded.of(torch.tensor(UNDECIDED)).scaled(relaxation.decay)
    share = (new + kept - Rounded.of(torch.tensor(UNDECIDED))).scaled(1.0 / (1.0 - UNDECIDED))
    fall = share.scaled(relaxation.tau_max - relaxation.tau_min).after(4)
    tau = relaxation.backward_tau(float((new + kept).exact))
    return tau, (float(fall.error) + gamma(4) * relaxation.tau_max) / tau
