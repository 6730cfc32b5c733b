"""The specification of every kernel, of layers and of whole networks: plain PyTorch, slow and obviously right.

Differentiable any number of times and usable under ``torch.func``, except on packed bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.gates.noise import NoiseKey, Purpose, gumbel, random_signs
from lgn_analysis.gates.parametrisations import get_parametrisation
from lgn_analysis.gates.table import COEFFICIENTS, gate_coefficients
from lgn_analysis.kernels.checks import check_curvature
from lgn_analysis.kernels.interface import (
    NetworkSpec,
    OutputLoss,
    Weight,
    length_scales,
)

__all__ = [
    "NAME",
    "Curvature",
    "count_ones",
    "discrete_activity",
    "discrete_forward",
    "gate_layer",
    "gate_layer_packed",
    "gumbel",
    "pack_bits",
    "training_forward",
    "unpack_bits",
]

NAME: Final = "reference"
WORD_BITS: Final = 64


def gate_layer(x: Tensor, wiring: Tensor, coefficients: Tensor) -> Tensor:
    """Return ``c0 + c1·a + c2·b + c3·ab`` for every gate.

    Args:
        x: [n_in, ...], the inputs, any trailing batch shape.
        wiring: int64 [2, n_out].
        coefficients: [n_out, 4].

    Returns:
        [n_out, ...].
    """
    # index_select: its backward is an index_add, several times faster than that of x[index].
    a, b = x.index_select(0, wiring[0]), x.index_select(0, wiring[1])
    c0, c1, c2, c3 = coefficients.reshape(-1, *([1] * (x.ndim - 1)), 4).unbind(-1)
    return (c0 + c1 * a) + (c2 + c3 * a) * b


def gate_layer_packed(words: Tensor, wiring: Tensor, gates: Tensor) -> Tensor:
    """Return the outputs of discrete gates on packed bits.

    Modulo 2 the four coefficients are the gate's algebraic normal form, so a gate is
    ``m0 ^ (m1 & a) ^ (m2 & b) ^ (m3 & a & b)`` with masks of all zeros or all ones.

    Args:
        words: int64 [n_in, n_words].
        wiring: int64 [2, n_out].
        gates: int64 [n_out], gate numbers 0..15.

    Returns:
        int64 [n_out, n_words]; bits beyond the batch are arbitrary.
    """
    masks = -(COEFFICIENTS.to(words.device) & 1)[gates]
    m0, m1, m2, m3 = masks.unsqueeze(-1).unbind(1)
    a, b = words.index_select(0, wiring[0]), words.index_select(0, wiring[1])
    return m0 ^ (m1 & a) ^ ((m2 ^ (m3 & a)) & b)


def pack_bits(bits: Tensor) -> Tensor:
    """Return bool [n, batch] packed into int64 [n, ceil(batch / 64)], sample 0 in the lowest bit.

    >>> pack_bits(torch.tensor([[True, False, True]]))
    tensor([[5]])
    """
    n, batch = bits.shape
    n_words = -(-batch // WORD_BITS)
    padded = functional.pad(bits.to(torch.uint8), (0, n_words * WORD_BITS - batch))
    places = torch.arange(8, device=bits.device, dtype=torch.uint8)
    octets = (padded.reshape(n, n_words * 8, 8) << places).sum(-1, dtype=torch.uint8)
    shifts = 8 * torch.arange(8, device=bits.device)
    return (octets.reshape(n, n_words, 8).to(torch.int64) << shifts).sum(-1)


def unpack_bits(words: Tensor, batch: int) -> Tensor:
    """Return int64 [n, n_words] as bool [n, batch]; the inverse of :func:`pack_bits`."""
    places = torch.arange(WORD_BITS, device=words.device)
    bits = (words.unsqueeze(-1) >> places) & 1
    return bits.flatten(1)[:, :batch].to(torch.bool)


def count_ones(words: Tensor, batch: int) -> Tensor:
    """Return how many of the first ``batch`` bits of each row are 1: int64 [n] for [n, n_words].

    >>> count_ones(torch.tensor([[-1, 5], [0, 2]]), 65)
    tensor([65,  0])
    """
    n_inside = batch - WORD_BITS * torch.arange(words.shape[1], device=words.device)
    partly = (1 << n_inside.clamp(0, WORD_BITS - 1)) - 1
    ones = words & torch.where(n_inside >= WORD_BITS, -1, partly)
    # Sums of neighbouring bits in fields of two, four and eight bits; a product adds up the octets.
    ones = ones - ((ones >> 1) & 0x5555555555555555)
    ones = (ones & 0x3333333333333333) + ((ones >> 2) & 0x3333333333333333)
    ones = (ones + (ones >> 4)) & 0x0F0F0F0F0F0F0F0F
    return ((ones * 0x0101010101010101) >> 56).sum(-1)


def training_forward(
    network: NetworkSpec, logits: Sequence[Tensor], x: Tensor, key: NoiseKey | None
) -> Tensor:
    """Return class logits [batch, n_groups] of the training forward, in the dtype of the logits.

    Args:
        network: the network.
        logits: [n_out, 16] of every layer, or what its parametrisation has instead.
        x: bool or floats [batch, n_features].
        key: the noise, given exactly when the relaxation is noisy.
    """
    values, law = x.T.to(logits[0].dtype), get_parametrisation(network.parametrisation)
    for layer, (wiring, z) in enumerate(zip(network.wirings, logits, strict=True)):
        g = None
        if key is not None:
            place = network.first_layer + layer
            g = law.draw_noise(key, place, z.shape[0], dtype=z.dtype, device=z.device)
        tau = network.taus[layer] if network.taus else None
        coefficients = law.training_coefficients(z, network.relaxation, g, tau=tau)
        if network.grad_factor != 1.0:
            values = values.detach() + network.grad_factor * (values - values.detach())
        values = gate_layer(values, wiring, coefficients)
    return _group_sums(values, network) / network.group_tau


def discrete_forward(network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor) -> Tensor:
    """Return the group sums of the discrete network, not divided: int32 [batch, n_groups].

    Args:
        network: the network.
        logits: [n_out, 16] of every layer.
        bits: bool [batch, n_features].
    """
    outputs = unpack_bits(_discrete_layers(network, logits, bits)[-1], len(bits))
    return _group_sums(outputs, network).to(torch.int32)


def discrete_activity(network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor) -> Tensor:
    """Return on how many samples each gate is 1: int64 [depth, width]; see :func:`discrete_forward`."""
    layers = _discrete_layers(network, logits, bits)
    return torch.stack([count_ones(words, len(bits)) for words in layers])


def _discrete_layers(network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor) -> list[Tensor]:
    """Return each layer's discrete outputs on packed bits, int64 [n_out, n_words]."""
    layers, law = [pack_bits(bits.T)], get_parametrisation(network.parametrisation)
    for wiring, z in zip(network.wirings, logits, strict=True):
        layers.append(gate_layer_packed(layers[-1], wiring, law.gates(z)))
    return layers[1:]


def _group_sums(values: Tensor, network: NetworkSpec) -> Tensor:
    """Return [n_out, batch] summed over contiguous groups of gates, [batch, n_groups]."""
    return values.T.unflatten(-1, (network.n_groups, -1)).sum(-1)


class Curvature:
    """:class:`lgn_analysis.kernels.interface.Curvature` by automatic differentiation.

    :meth:`products` allows a loss that couples samples, :meth:`activation_products` does not.
    """

    ARRAYS: ClassVar[int] = 12

    def __init__(
        self,
        network: NetworkSpec,
        logits: Sequence[Tensor],
        x: Tensor,
        loss: OutputLoss,
        *,
        tau: float,
        layers: Sequence[int],
    ) -> None:
        check_curvature(network, logits, x, layers)
        self._layers = list(layers)
        self._tau = tau
        self._logits: list[Tensor] = []
        self._offsets: list[Tensor] = []
        self._inputs: list[tuple[Tensor, Tensor, Tensor]] = []
        coefficients = []
        with torch.enable_grad():
            features = x.to(logits[0].dtype).T.contiguous()
            for index, (wiring, value) in enumerate(zip(network.wirings, logits, strict=True)):
                z = value.detach()
                if index in self._layers:
                    z.requires_grad_()
                p = torch.softmax(z / tau, dim=-1)
                c = gate_coefficients(p)
                inputs, features = features, gate_layer(features, wiring, c)
                if index in self._layers:
                    offset = torch.zeros_like(features, requires_grad=True)
                    features = features + offset
                    self._logits.append(z)
                    self._offsets.append(offset)
                    self._inputs.append((p.detach(), inputs.detach(), wiring))
                    coefficients.append(c)
            value = loss(_group_sums(features, network) / network.group_tau)
            parts = [*self._logits, *self._offsets, *coefficients]
            gradients = torch.autograd.grad(value, parts, create_graph=True, materialize_grads=True)
        n = len(self._layers)
        self._gradients, self._deltas = gradients[:n], gradients[n : 2 * n]
        self.loss = float(value.detach())
        self.slopes = torch.stack([slope.detach().double() for slope in gradients[2 * n :]])

    def products(self, rows: Tensor) -> Tensor:
        """Return ``(∂²L/∂z²) v`` for each row v [k, n_layers · width · 16], in float64."""
        result = torch.zeros_like(rows, dtype=torch.float64)
        sizes = [z.numel() for z in self._logits]
        for row, out in zip(rows.to(self._logits[0].dtype), result, strict=True):
            pieces = [
                part.view_as(z) for part, z in zip(row.split(sizes), self._logits, strict=True)
            ]
            product = _differentiate(self._gradients, self._logits, pieces)
            out.copy_(torch.cat([part.reshape(-1) for part in product]))
        return result

    def activation_products(
        self, seed: int, first: int, count: int, *, weight: Weight = "softmax"
    ) -> tuple[Tensor, Tensor]:
        """Return ``Σ d`` by layer and sample and ``Σ d²`` by sample, d = u ∘ (∂²L/∂y²) u, in float64."""
        device, batch = self._offsets[0].device, self._offsets[0].shape[1]
        forms = torch.empty(count, len(self._layers), batch, dtype=torch.float64, device=device)
        squares = torch.zeros(count, batch, dtype=torch.float64, device=device)
        lengths = [
            _lengths(p, length_scales(p, self._tau, weight), features, wiring)
            for p, features, wiring in self._inputs
        ]
        for place in range(count):
            key = NoiseKey(seed, Purpose.SIGNS, first + place)
            u = [
                random_signs(
                    key, layer, len(length), batch, dtype=length.dtype, device=length.device
                )
                * length
                for layer, length in zip(self._layers, lengths, strict=True)
            ]
            product = _differentiate(self._deltas, self._offsets, u)
            for layer, (a, b) in enumerate(zip(u, product, strict=True)):
                d = a.double() * b.double()
                forms[place, layer] = d.sum(0)
                squares[place] += d.square().sum(0)
        return forms, squares


def _differentiate(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], directions: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Return the derivative of ``⟨outputs, directions⟩`` in ``inputs``; zeros where there is none."""
    used = [(out, v) for out, v in zip(outputs, directions, strict=True) if out.requires_grad]
    if not used:
        return [torch.zeros_like(value) for value in inputs]
    return torch.autograd.grad(
        [out for out, _ in used],
        inputs,
        [v for _, v in used],
        retain_graph=True,
        materialize_grads=True,
    )


def _lengths(p: Tensor, scales: Tensor, features: Tensor, wiring: Tensor) -> Tensor:
    """Return ``‖s ∘ (h − y)‖`` [n, batch], the root of a quadratic form in (1, a, b, ab) per gate."""
    c = gate_coefficients(p)
    spread = scales.unsqueeze(-1) * (COEFFICIENTS.to(p) - c.unsqueeze(1))  # [n, 16, 4]
    form = torch.einsum("nki,nkj->nij", spread, spread)
    a, b = features.index_select(0, wiring[0]), features.index_select(0, wiring[1])
    basis = torch.stack([torch.ones_like(a), a, b, a * b], dim=1)  # [n, 4, batch]
    return (basis * (form @ basis)).sum(1).clamp(min=0).sqrt()
