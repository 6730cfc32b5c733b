"""The class that holds a network's passes over fixed samples, and multiplies directions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np
import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.table import N_GATES, gate_coefficients
from lgn_analysis.kernels.checks import check_curvature, check_draws
from lgn_analysis.kernels.cpu.bits import pack_samples
from lgn_analysis.kernels.cpu.curvature.memory import new_tensor, shared_by
from lgn_analysis.kernels.cpu.curvature.order import (
    BlockLayout,
    Primal,
    count_delta_rows,
    count_value_rows,
)
from lgn_analysis.kernels.cpu.curvature.primal import primal_backward, primal_forward
from lgn_analysis.kernels.cpu.curvature.probes import Probing, probe, probe_workspace_size
from lgn_analysis.kernels.cpu.curvature.products import Product, multiply, workspace_size
from lgn_analysis.kernels.cpu.curvature.signs import (
    N_TERMS,
    PAIR,
    Draws,
    length_forms,
    sign_words,
)
from lgn_analysis.kernels.cpu.runtime.layout import BLOCK
from lgn_analysis.kernels.cpu.runtime.plans import (
    Array,
    Lease,
    empty,
    find_plan,
    read_blocks,
    write_blocks,
)
from lgn_analysis.kernels.cpu.runtime.threads import run_in_parts
from lgn_analysis.kernels.interface import (
    NetworkSpec,
    OutputLoss,
    Weight,
    length_scales,
    loss_derivatives,
)

MAX_PARTS: Final = 64
"""Sums that are kept apart; more parts would share out better, and need more memory."""
DIRECTIONS: Final = 2
"""Directions that are computed together. Four need more registers than there are."""
_ROW_BYTES: Final = 256
"""Of a row of activations; half of it where levels are larger, so that caches hold more of them."""
_LEVEL_BYTES: Final = 2**20


class Curvature:
    """:class:`lgn_analysis.kernels.interface.Curvature` on the CPU, a block of samples at a time.

    Arithmetic is in the logits' dtype, sums over samples beyond a block in float64. Results are the
    same to the last bit for any number of threads.
    """

    # Activations and their gradients; tangents take a block's worth for each thread.
    ARRAYS: ClassVar[int] = 2

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
        _check(network, logits, x)
        check_curvature(network, logits, x, layers)
        plan = find_plan(network.wirings, network.n_features, network.n_groups)
        wires, self._batch = plan.wires, len(x)
        shared = shared_by(plan)
        self._memory, self._dtype = shared.memory, logits[0].dtype
        self._number = torch.empty(0, dtype=self._dtype).numpy().dtype
        row_bytes = _ROW_BYTES if wires.width * _ROW_BYTES <= _LEVEL_BYTES else _ROW_BYTES // 2
        block = row_bytes // self._dtype.itemsize
        self._layout = BlockLayout(
            wires=wires,
            order=shared.order,
            first=int(layers[0]),
            block=block,
            n_blocks=-(-self._batch // block),
            n_parts=min(MAX_PARTS, -(-self._batch // BLOCK)),
        )
        self._layers = [int(layer) for layer in layers]
        self._work = float(wires.depth * wires.width * self._batch)
        weights = torch.stack([torch.softmax(z.detach() / tau, dim=-1) for z in logits])
        coefficients = self._by_step(gate_coefficients(weights))
        values, words = self._write_inputs(x)
        workspace = empty(self._most_workers() * 2 * wires.width * block, self._number)

        outputs = self._forward(words, coefficients, values, workspace, network.group_tau)
        self.loss, gradient, hessian = loss_derivatives(loss, outputs)
        deltas = empty(self._layout.n_blocks * count_delta_rows(self._layout) * block, self._number)
        write_blocks(gradient / network.group_tau, self._blocks(deltas)[:, -wires.n_groups :])
        hessians = empty(self._layout.n_blocks * wires.n_groups**2 * block, self._number)
        write_blocks(hessian.flatten(1) / network.group_tau**2, self._blocks(hessians))
        slopes = self._backward(coefficients, values, deltas, workspace)

        probed = np.full(wires.depth, -1, dtype=np.int64)
        probed[self._layers] = np.arange(len(self._layers))
        self._primal = Primal(
            tau=float(tau),
            weights=weights.view(-1).numpy(),
            coefficients=coefficients,
            values=values,
            deltas=deltas,
            hessians=hessians,
            slopes=slopes.view(-1).numpy(),
            probed=probed,
            n_probed=len(self._layers),
        )
        self._length_forms: dict[Weight, Array] = {}
        gates = self._gates[self._layout.first :].expand(slopes.shape)
        by_gate = torch.empty_like(slopes).scatter_(1, gates, slopes)
        self.slopes = by_gate[[layer - self._layout.first for layer in self._layers]]

    def products(self, rows: Tensor) -> Tensor:
        """Return ``(∂²L/∂z²) v`` for each row v [k, n_layers · width · 16], in float64."""
        n_columns = len(self._layers) * self._layout.wires.width * N_GATES
        if rows.ndim != 2 or rows.shape[1] != n_columns or rows.device.type != "cpu":
            raise InvalidInputError(
                f"expected directions [k, {n_columns}] on the CPU, got shape {tuple(rows.shape)} on "
                f"{rows.device}"
            )
        rows = rows.detach().to(dtype=self._dtype).contiguous()
        result = new_tensor(*rows.shape)
        for start in range(0, len(rows), DIRECTIONS):
            end = min(len(rows), start + DIRECTIONS)
            self._multiply(rows[start:end], result[start:end])
        return result

    def _multiply(self, rows: Tensor, result: Tensor) -> None:
        layout = self._layout
        n_c_tangents = (layout.wires.depth - layout.first) * layout.wires.width * DIRECTIONS * 4
        workspace = self._lease_workspace()
        scratch = self._memory.lease(
            {
                "c_tangents": (n_c_tangents, self._number),
                "sums": (layout.n_parts * n_c_tangents, np.float64),
            }
        )
        product = Product(
            rows=rows.view(-1).numpy(),
            c_tangents=scratch["c_tangents"],
            workspace=workspace["workspace"],
            size=workspace_size(layout, len(rows)),
            sums=scratch["sums"],
            products=result.view(-1).numpy(),
        )
        run_in_parts(
            multiply,
            layout,
            self._primal,
            product,
            (0,) * len(rows),
            n_parts=layout.n_parts,
            work=self._work * len(rows),
        )

    def activation_products(
        self, seed: int, first: int, count: int, *, weight: Weight = "softmax"
    ) -> tuple[Tensor, Tensor]:
        """Return ``Σ d`` by layer and sample and ``Σ d²`` by sample, d = u ∘ (∂²L/∂y²) u, in float64."""
        key = NoiseKey(seed, Purpose.SIGNS, first)
        check_draws(first, count)
        layout = self._layout
        forms = new_tensor(count, len(self._layers), self._batch)
        squares = new_tensor(count, self._batch)
        if count == 0:
            return forms, squares
        n_workers, n_words = self._most_workers(), sign_words(layout)
        workspace = self._lease_workspace()
        scratch = self._memory.lease(
            {
                "signs": (n_workers * n_words, np.int64),
                "totals": (n_workers * 2 * PAIR * layout.block, np.float64),
            }
        )
        purpose = int(Purpose.SIGNS) << 24
        probing = Probing(
            length_forms=self._lengths(weight),
            batch=self._batch,
            workspace=workspace["workspace"],
            size=probe_workspace_size(layout),
            signs=scratch["signs"],
            n_words=n_words,
            totals=scratch["totals"],
            forms=forms.view(-1).numpy(),
            squares=squares.view(-1).numpy(),
        )
        run_in_parts(
            probe,
            layout,
            self._primal,
            Draws(first, count, key.seed & 0xFFFFFFFF, key.seed >> 32, purpose),
            probing,
            n_parts=layout.n_blocks,
            work=self._work * count,
        )
        return forms, squares

    def _lease_workspace(self) -> Lease:
        """Borrow tangents for every thread, as many as any kernel needs: there is one kind of them."""
        size = max(workspace_size(self._layout, DIRECTIONS), probe_workspace_size(self._layout))
        return self._memory.lease({"workspace": (self._most_workers() * size, self._number)})

    def _most_workers(self) -> int:
        return min(torch.get_num_threads(), self._layout.n_blocks)

    @functools.cached_property
    def _gates(self) -> Tensor:
        """The gate of each step: int64 [depth, width, 1]."""
        wires = self._layout.wires
        gates = self._layout.order.gates[: wires.depth * wires.width].astype(np.int64)
        return torch.from_numpy(gates).view(wires.depth, wires.width, 1)

    def _by_step(self, x: Tensor) -> Array:
        """Return [depth, width, n], a row a gate, by step and flat."""
        return x.gather(1, self._gates.expand(x.shape)).view(-1).numpy()

    def _lengths(self, weight: Weight) -> Array:
        """Return q of every gate, by step: [depth, width, 9], flat."""
        if weight not in self._length_forms:
            wires = self._layout.wires
            p = torch.from_numpy(self._primal.weights).view(wires.depth, wires.width, N_GATES)
            p = p.double()
            forms = length_forms(p, length_scales(p, self._primal.tau, weight))
            assert forms.shape[-1] == N_TERMS
            self._length_forms[weight] = self._by_step(forms.to(self._dtype))
        return self._length_forms[weight]

    def _blocks(self, array: Array) -> Tensor:
        """Return a flat array as [n_blocks, n_rows, block]."""
        return torch.from_numpy(array).view(self._layout.n_blocks, -1, self._layout.block)

    def _write_inputs(self, x: Tensor) -> tuple[Array, Array]:
        """Return memory for the activations of all blocks, and the inputs as words where they are bits.

        Other inputs are written to level 0, zero beyond the batch.
        """
        layout, n_features = self._layout, self._layout.wires.n_features
        values = empty(layout.n_blocks * count_value_rows(layout) * layout.block, self._number)
        if x.dtype != torch.bool:
            write_blocks(x.detach(), self._blocks(values)[:, :n_features])
            return values, np.empty(0, dtype=np.int64)
        words = empty(-(-self._batch // BLOCK) * n_features, np.int64)
        octets = x.contiguous().view(torch.uint8).numpy().reshape(-1)
        pack_samples(octets, n_features, self._batch, words, n_features, 1)
        return values, words

    def _forward(
        self, words: Array, coefficients: Array, values: Array, workspace: Array, group_tau: float
    ) -> Tensor:
        """Write the activations and return the class logits [batch, n_groups]."""
        layout, n_groups = self._layout, self._layout.wires.n_groups
        sums = empty(layout.n_blocks * n_groups * layout.block, values.dtype)
        run_in_parts(
            primal_forward,
            layout,
            words,
            coefficients,
            values,
            workspace,
            1.0 / group_tau,
            sums,
            n_parts=layout.n_blocks,
            work=self._work,
        )
        return read_blocks(self._blocks(sums), self._batch)

    def _backward(
        self, coefficients: Array, values: Array, deltas: Array, workspace: Array
    ) -> Tensor:
        """Write the gradients and return their sums, by step: float64 [n_layers, width, 4]."""
        layout, wires = self._layout, self._layout.wires
        sums = new_tensor(layout.n_parts, wires.depth - layout.first, wires.width, 4)
        run_in_parts(
            primal_backward,
            layout,
            coefficients,
            values,
            deltas,
            workspace,
            sums.view(-1).numpy(),
            n_parts=layout.n_parts,
            work=self._work,
        )
        return sums.sum(0)


def _check(network: NetworkSpec, logits: Sequence[Tensor], x: Tensor) -> None:
    """Raise unless the network is one that the CPU kernels know."""
    widths = [wiring.shape[1] for wiring in network.wirings]
    if len(set(widths)) > 1:
        raise InvalidInputError(
            f'the CPU kernels need layers of one width, got {widths}; use backend="reference"'
        )
    if widths[-1] % network.n_groups:
        raise InvalidInputError(f"width {widths[-1]} is not divisible by {network.n_groups} groups")
    if any(tensor.device.type != "cpu" for tensor in (x, *logits, *network.wirings)):
        raise InvalidInputError(
            'the CPU kernels need the model and the data on the CPU; move both: model.to("cpu")'
        )
