"""What the kernels cannot do is refused here, where it can still be named."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.table import N_GATES
from lgn_analysis.kernels.interface import NetworkSpec


def check_problem(
    network: NetworkSpec, logits: Sequence[Tensor], x: Tensor, layers: Sequence[int]
) -> None:
    """Raise InvalidInputError for arguments of :class:`.operator.Curvature` that do not fit."""
    depth, width = len(network.wirings), network.wirings[-1].shape[1]
    if any(wiring.shape[1] != width for wiring in network.wirings):
        widths = [wiring.shape[1] for wiring in network.wirings]
        raise InvalidInputError(
            f'the CPU kernels need layers of one width, got {widths}; use backend="reference"'
        )
    if width % network.n_groups:
        raise InvalidInputError(f"width {width} is not divisible by {network.n_groups} groups")
    dtypes = {z.dtype for z in logits}
    if dtypes not in ({torch.float32}, {torch.float64}):
        raise InvalidInputError(
            f"expected logits all float32 or all float64, got {sorted(map(str, dtypes))}; convert "
            "the model: model.float()"
        )
    if any(tensor.device.type != "cpu" for tensor in (x, *logits, *network.wirings)):
        raise InvalidInputError(
            'the CPU kernels need the model and the data on the CPU; move both: model.to("cpu")'
        )
    if len(logits) != depth or any(z.shape != (width, N_GATES) for z in logits):
        shapes = [tuple(z.shape) for z in logits]
        raise InvalidInputError(f"expected {depth} logits [{width}, {N_GATES}], got {shapes}")
    if x.ndim != 2 or x.shape[1] != network.n_features or len(x) == 0:
        raise InvalidInputError(
            f"expected at least one sample, x [batch, {network.n_features}], got {tuple(x.shape)}"
        )
    rising = sorted(set(layers))
    if not rising or list(layers) != rising or rising[0] < 0 or rising[-1] >= depth:
        raise InvalidInputError(f"expected rising layers in 0..{depth - 1}, got {list(layers)}")


def check_directions(rows: Tensor, n_columns: int) -> None:
    """Raise InvalidInputError unless ``rows`` are [k, n_columns] on the CPU."""
    if rows.ndim != 2 or rows.shape[1] != n_columns or rows.device.type != "cpu":
        raise InvalidInputError(
            f"expected directions [k, {n_columns}] on the CPU, got shape {tuple(rows.shape)} on "
            f"{rows.device}"
        )
