"""Second derivatives of the soft loss: one primal pass, and then tangents alone.

Every product at fixed logits shares activations y and gradients δ, which are held. A product is a
sweep of tangents forwards and one back, four directions at a time: they share the loads of y, δ,
wiring and coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

import torch
from torch import Tensor

from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.table import gate_coefficients
from lgn_analysis.kernels.checks import check_curvature, check_draws
from lgn_analysis.kernels.cuda.backward import Delta, backward_inputs, backward_sums
from lgn_analysis.kernels.cuda.bits import pack_bits
from lgn_analysis.kernels.cuda.curvature.directions import coefficient_tangents, write_products
from lgn_analysis.kernels.cuda.curvature.signs import (
    forward_signs,
    length_factors,
    products_with_signs,
)
from lgn_analysis.kernels.cuda.curvature.tangents import Inputs, forward_tangents
from lgn_analysis.kernels.cuda.curvature.tangents_backward import (
    backward_tangent_sums,
    backward_tangents,
)
from lgn_analysis.kernels.cuda.forward import gates_forward_float, group_parts
from lgn_analysis.kernels.cuda.logits import Draw
from lgn_analysis.kernels.cuda.runtime.layout import consumers_of_layers
from lgn_analysis.kernels.interface import (
    NetworkSpec,
    OutputLoss,
    Weight,
    length_scales,
    loss_derivatives,
)

VECTORS: Final = 4
"""Directions that a sweep takes at most."""


@dataclass(frozen=True)
class _Layer:
    """A layer as tangents need it.

    Attributes:
        index: which layer of the network.
        inputs: what it reads.
        coefficients: [n, 4].
        weights: softmax(z/tau) float64 [n, 16].
        tau: gate temperature.
        place: which of the probed layers it is; None for one that is not.
        kept: what :meth:`factors` has returned.
    """

    index: int
    inputs: Inputs
    coefficients: Tensor
    weights: Tensor
    tau: float
    place: int | None
    kept: dict[Weight, Tensor] = field(default_factory=dict)

    def factors(self, weight: Weight) -> Tensor:
        """See :func:`length_factors`."""
        if weight not in self.kept:
            scales = length_scales(self.weights, self.tau, weight)
            self.kept[weight] = length_factors(self.weights, scales, self.coefficients.dtype)
        return self.kept[weight]


Forward = Callable[[_Layer, Tensor | None], Tensor]
"""Tangents [n_out, k, batch] of a layer's outputs from those of its inputs; None is zero."""
Visit = Callable[[_Layer, Delta, Tensor | None], Delta | None]
"""Tangents of the gradient of a layer's inputs from those of its outputs and those of its inputs."""


class Curvature:
    """:class:`lgn_analysis.kernels.interface.Curvature` on fused kernels.

    The layers below the first probed one are evaluated once and forgotten. Activations, gradients
    and tangents are of the logits' dtype, and so are sums over a tile of samples, at most 256; tiles
    are added in float64, and so is all that has sixteen numbers a gate.
    """

    ARRAYS: ClassVar[int] = 3
    """y, δ, and one for the inputs and what every gate holds. While a product runs it takes up to
    :data:`VECTORS` + 1 more, however many directions it has."""

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
        self._dtype, self._device, self._batch = logits[0].dtype, logits[0].device, len(x)
        self._probed = list(layers)
        self._groups, self._group_size = network.n_groups, network.group_size
        with torch.no_grad():
            self._rates = torch.full((1,), 1 / tau, dtype=torch.float64, device=self._device)
            self._tape, parts = self._run_forward(network, logits, x, tau)
            outputs = (parts.sum(0, dtype=torch.float64) / network.group_tau).T
            self.loss, gradient, hessians = loss_derivatives(
                loss, outputs.to(self._dtype).contiguous()
            )
            # Sums of a group are taken and given undivided, so the temperature stands here twice.
            self._hessians = hessians.double() / network.group_tau**2
            rows = (gradient.T / network.group_tau).contiguous()
            self._deltas = self._run_backward(Delta(rows, self._group_size))

    def products(self, rows: Tensor) -> Tensor:
        """Return ``(∂²L/∂z²) v`` for each row v [k, n_layers · width · 16], in float64."""
        with torch.no_grad():
            result = torch.empty(rows.shape, dtype=torch.float64, device=self._device)
            for part in _parts(len(rows)):
                # Flat and back: a single row may have any stride, and is contiguous all the same.
                directions = rows[part].double().reshape(-1).view(result[part].shape)
                self._write_products(directions, result[part])
        return result

    def activation_products(
        self, seed: int, first: int, count: int, *, weight: Weight = "softmax"
    ) -> tuple[Tensor, Tensor]:
        """Return ``Σ d`` by layer and sample and ``Σ d²`` by sample, d = u ∘ (∂²L/∂y²) u, in float64."""
        check_draws(first, count)
        shape = (count, len(self._probed), self._batch)
        with torch.no_grad():
            forms = torch.empty(shape, dtype=torch.float64, device=self._device)
            squares = forms.new_zeros(count, self._batch)
            for part in _parts(count):
                key = NoiseKey(seed, Purpose.SIGNS, first + part.start)
                self._write_activation_products(
                    Draw.of(key, self._device), weight, forms[part], squares[part]
                )
        return forms, squares

    def _run_forward(
        self, network: NetworkSpec, logits: Sequence[Tensor], x: Tensor, tau: float
    ) -> tuple[list[_Layer], Tensor]:
        """Return the layers from the first probed one on, and the group sums in parts."""
        if x.dtype == torch.bool:
            values = pack_bits(x.T)
        else:
            values = x.detach().to(self._dtype).T.contiguous()
        tape = []
        for index, (consumers, z) in enumerate(
            zip(consumers_of_layers(network), logits, strict=True)
        ):
            # float64: matrix products of float32 may be cut to fewer bits by a global setting.
            weights = torch.softmax(z.detach().double() / tau, dim=-1)
            coefficients = gate_coefficients(weights).to(self._dtype)
            if index >= self._probed[0]:
                place = self._probed.index(index) if index in self._probed else None
                inputs = Inputs(values, consumers, self._batch)
                tape.append(_Layer(index, inputs, coefficients, weights, tau, place))
            values = gates_forward_float(values, consumers.wiring, coefficients, self._batch)
        return tape, group_parts(values, self._groups, self._batch)

    def _run_backward(self, delta: Delta) -> list[Delta]:
        """Return the gradients of the outputs of every layer on the tape, and set the slopes."""
        deltas, slopes = [delta], {}
        for layer in reversed(self._tape):
            inputs = layer.inputs
            if layer is self._tape[0]:
                sums = backward_sums(delta, inputs.values, inputs.wiring, self._batch)
            else:
                rows, sums = backward_inputs(
                    delta,
                    inputs.values,
                    layer.coefficients,
                    inputs.consumers,
                    self._batch,
                    out_dtype=self._dtype,
                    sums=layer.place is not None,
                )
                delta = Delta(rows)
                deltas.append(delta)
            if layer.place is not None:
                slopes[layer.place] = sums.sum(0, dtype=torch.float64)
        self.slopes = torch.stack([slopes[place] for place in range(len(self._probed))])
        return deltas[::-1]

    def _write_products(self, rows: Tensor, result: Tensor) -> None:
        """Write the products of at most :data:`VECTORS` directions."""
        sizes = [layer.weights.numel() for layer in self._tape if layer.place is not None]
        directions, products = rows.split(sizes, dim=1), result.split(sizes, dim=1)
        c_tangents: dict[int, Tensor] = {}

        def forward(layer: _Layer, tangents: Tensor | None) -> Tensor:
            if layer.place is not None:
                c_tangents[layer.index] = coefficient_tangents(
                    layer.weights, directions[layer.place], self._rates, self._dtype
                )
            c_tangent = c_tangents.get(layer.index)
            return forward_tangents(
                layer.inputs, tangents, layer.coefficients, c_tangent, len(rows)
            )

        def visit(layer: _Layer, delta_tangents: Delta, tangents: Tensor | None) -> Delta | None:
            below, sums = self._step_back(
                layer, delta_tangents, tangents, c_tangents.pop(layer.index, None)
            )
            if layer.place is not None:
                write_products(
                    products[layer.place],
                    layer.weights,
                    directions[layer.place],
                    self._rates,
                    self.slopes[layer.place],
                    sums,
                )
            return below

        self._sweep(forward, visit)

    def _write_activation_products(
        self, draw: Draw, weight: Weight, forms: Tensor, squares: Tensor
    ) -> None:
        """Write what at most :data:`VECTORS` neighbouring draws of signs give."""

        def forward(layer: _Layer, tangents: Tensor | None) -> Tensor:
            inputs, coefficients = layer.inputs, layer.coefficients
            if layer.place is None:
                return forward_tangents(inputs, tangents, coefficients, None, len(forms))
            factors, index = layer.factors(weight), layer.index
            return forward_signs(inputs, tangents, coefficients, factors, draw, index, len(forms))

        def visit(layer: _Layer, delta_tangents: Delta, tangents: Tensor | None) -> Delta | None:
            if layer.place is not None:
                form, square = products_with_signs(
                    layer.inputs, delta_tangents, layer.factors(weight), draw, layer.index
                )
                forms[:, layer.place] = form
                squares.add_(square)
            if tangents is None:
                return None
            return self._step_back(layer, delta_tangents, tangents, None)[0]

        self._sweep(forward, visit)

    def _sweep(self, forward: Forward, visit: Visit) -> None:
        """Carry tangents forwards through the layers, through the loss, and back.

        No tangent is held longer than it is needed: there are never more than those of the outputs
        of all layers.
        """
        kept: list[Tensor | None] = []
        tangents: Tensor | None = None
        for layer in self._tape:
            kept.append(tangents)
            tangents = forward(layer, tangents)
        assert tangents is not None
        delta_tangents: Delta | None = self._through_loss(tangents)
        del tangents
        for layer in reversed(self._tape):
            assert delta_tangents is not None
            delta_tangents = visit(layer, delta_tangents, kept.pop())

    def _through_loss(self, tangents: Tensor) -> Delta:
        """Return the tangents of the last layer's δ, rows [n_groups, k, batch]."""
        _, vectors, batch = tangents.shape
        sums = group_parts(tangents.flatten(1), self._groups, vectors * batch)
        groups = sums.sum(0, dtype=torch.float64).view(self._groups, vectors, batch)
        rows = torch.einsum("icd,dki->cki", self._hessians, groups)
        return Delta(rows.to(self._dtype).contiguous(), self._group_size)

    def _step_back(
        self,
        layer: _Layer,
        delta_tangents: Delta,
        tangents: Tensor | None,
        c_tangents: Tensor | None,
    ) -> tuple[Delta | None, Tensor]:
        """Return the tangents of the input gradient, and those of the four sums in parts."""
        if tangents is None:
            return None, backward_tangent_sums(layer.inputs, delta_tangents)
        rows, sums = backward_tangents(
            layer.inputs,
            tangents,
            self._deltas[layer.index - self._tape[0].index],
            delta_tangents,
            layer.coefficients,
            c_tangents,
        )
        return Delta(rows), sums


def _parts(count: int) -> Iterator[slice]:
    """Yield stretches of :data:`VECTORS`, and of powers of two at the end."""
    start = 0
    while start < count:
        size = VECTORS
        while size > count - start:
            size //= 2
        yield slice(start, start + size)
        start += size
