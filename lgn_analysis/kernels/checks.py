"""Checks of arguments that all backends share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.table import N_GATES
from lgn_analysis.kernels.interface import NetworkSpec


def check_curvature(
    network: NetworkSpec, logits: Sequence[Tensor], x: Tensor, layers: Sequence[int]
) -> None:
    """Raise unless the arguments of :meth:`Backend.Curvature` fit each other."""
    dtypes = {z.dtype for z in logits}
    if dtypes not in ({torch.float32}, {torch.float64}):
        raise InvalidInputError(
            f"curvature takes float32 or float64 logits, not {', '.join(sorted(map(str, dtypes)))}, all "
            "float32 or all float64; convert the model: model.float()"
        )
    shapes = [tuple(z.shape) for z in logits]
    if shapes != [(wiring.shape[1], N_GATES) for wiring in network.wirings]:
        raise InvalidInputError(
            f"expected {len(network.wirings)} logits [width, {N_GATES}], got {shapes}"
        )
    if x.ndim != 2 or x.shape[1] != network.n_features or len(x) == 0:
        raise InvalidInputError(
            f"expected at least one sample, x [batch, {network.n_features}], got {tuple(x.shape)}"
        )
    rising = sorted(set(layers))
    if not rising or list(layers) != rising or rising[0] < 0 or rising[-1] >= len(logits):
        raise InvalidInputError(
            f"expected rising layers in 0..{len(logits) - 1}, got {list(layers)}"
        )


def check_draws(first: int, count: int) -> None:
    """Raise unless signs have the draws ``first``..``first + count - 1``."""
    if first + count > 2**33:
        raise InvalidInputError(f"signs have draws 0..2**33-1, got {first + count - 1}")


def check_taus(network: NetworkSpec, taus: Sequence[float] | None, n_steps: int) -> None:
    """Raise unless ``taus`` of :meth:`Run.run` fit the network and the number of steps."""
    if taus is None:
        return
    if network.relaxation.adaptive:
        raise InvalidInputError(
            f"{type(network.relaxation).__name__} finds its own temperatures; leave taus out"
        )
    if len(taus) != n_steps or not all(0 < tau < float("inf") for tau in taus):
        raise InvalidInputError(
            f"taus must hold {n_steps} finite numbers above zero, one a step, got {list(taus)}"
        )


def check_lrs(lrs: Sequence[float] | None, n_steps: int) -> None:
    """Raise unless ``lrs`` of :meth:`Run.run` fit the number of steps."""
    if lrs is not None and (len(lrs) != n_steps or not all(0 <= lr < float("inf") for lr in lrs)):
        raise InvalidInputError(
            f"lrs must hold {n_steps} finite numbers, none below zero, one a step, got {list(lrs)}"
        )


def check_confidences(network: NetworkSpec) -> None:
    """Raise unless a :class:`Run` of an adaptive relaxation has the confidence of every layer."""
    depth = len(network.wirings)
    if network.relaxation.adaptive and len(network.confidences) != depth:
        raise InvalidInputError(
            f"{type(network.relaxation).__name__} needs the confidences of {depth} layers, "
            f"got {len(network.confidences)}"
        )
