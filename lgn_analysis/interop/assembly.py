"""A LogicNetwork from the layers that were found in a module or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import whole
from lgn_analysis.gates.initialisation import RESIDUAL_GATE, RESIDUAL_LOGIT
from lgn_analysis.gates.relaxations import Relaxation
from lgn_analysis.gates.table import N_GATES
from lgn_analysis.gates.wiring import check_wiring
from lgn_analysis.network import LogicNetwork

DTYPES: Final = (torch.float32, torch.float64)
_NEAR: Final = 0.01


@dataclass(frozen=True)
class FoundLayer:
    """A layer of another project in the terms of this one.

    Attributes:
        name: what errors call it, for instance ``module[1]``.
        logits: [n_out, 16], in the order of :data:`lgn_analysis.gates.table.GATE_NAMES`, which is that
            of difflogic, gumbel-lgn and torchlogix, too.
        wiring: integers [2, n_out].
    """

    name: str
    n_in: int
    logits: Tensor
    wiring: Tensor
    relaxation: Relaxation
    grad_factor: float


@dataclass(frozen=True)
class FoundGroupSum:
    """The sum over groups behind the layers."""

    n_groups: int
    group_tau: float


def assemble(
    layers: Sequence[FoundLayer], group_sum: FoundGroupSum, n_classes: int | None
) -> LogicNetwork:
    """Return the network of these layers, with copies of their logits and wirings.

    Raises:
        InvalidInputError: they are none of one network of this package, with the layer and what to do.
    """
    for layer in layers:
        _check(layer)
    first, width = layers[0], len(layers[0].logits)
    n_in = first.n_in
    for layer in layers:
        n_out = len(layer.logits)
        if layer.n_in != n_in:
            raise InvalidInputError(
                f"{layer.name} reads {layer.n_in} inputs, and what comes before it gives {n_in}"
            )
        if n_out != width:
            raise InvalidInputError(
                f"{layer.name} has {n_out} gates and {first.name} has {width}, and a LogicNetwork has "
                "one width; build it of lgn.LogicLayer and lgn.GroupSum in an nn.Sequential instead"
            )
        for what in ("relaxation", "grad_factor"):
            one, other = getattr(first, what), getattr(layer, what)
            if one != other:
                raise InvalidInputError(
                    f"{first.name} has the {what} {one} and {layer.name} has {other}, and a "
                    "LogicNetwork has one; make them equal"
                )
        n_in = n_out
    if len({(layer.logits.dtype, layer.logits.device) for layer in layers}) > 1:
        raise InvalidInputError(
            "its layers differ in dtype or device; move all of them to one by module.to(…)"
        )
    n_groups = whole("the number of groups", group_sum.n_groups, least=1)
    network = LogicNetwork(
        first.n_in,
        width,
        len(layers),
        n_groups if n_classes is None else n_classes,
        group_sum.group_tau,
        relaxation=first.relaxation,
        init=_initialisation(layers),
        n_groups=n_groups,
        grad_factor=first.grad_factor,
        dtype=first.logits.dtype,
    ).to(first.logits.device)
    with torch.no_grad():
        for own, found in zip(network.layers, layers, strict=True):
            own.logits.copy_(found.logits)
            own.wiring.copy_(found.wiring)
            own.logits.requires_grad_(found.logits.requires_grad)
    return network


def _initialisation(layers: Sequence[FoundLayer]) -> str:
    """Return by which initialisation theory is to describe the network: residual where it shows.

    torchlogix's residual probability of 0.951 is a logit of 4.999, the 5 of this package.
    """
    for layer in layers:
        excess = layer.logits.detach().clone()
        excess[:, RESIDUAL_GATE] -= RESIDUAL_LOGIT
        if not bool((excess.abs() < _NEAR).all()):
            return "normal"
    return "residual"


def _check(layer: FoundLayer) -> None:
    """Raise unless logits and wiring are those of a layer of two-input gates."""
    z = layer.logits
    if z.ndim != 2 or z.shape[-1] != N_GATES:
        raise InvalidInputError(
            f"{layer.name} has weights of shape {tuple(z.shape)}, and a layer of two-input gates has "
            f"[gates, {N_GATES}]; other parametrisations and ranks cannot be converted"
        )
    if z.dtype not in DTYPES:
        raise InvalidInputError(
            f"{layer.name} has weights of {str(z.dtype).removeprefix('torch.')}; convert them first, "
            "by module.float()"
        )
    try:
        check_wiring(layer.wiring, layer.n_in, len(z))
    except InvalidInputError as error:
        raise InvalidInputError(f"{layer.name}: {error}") from error
