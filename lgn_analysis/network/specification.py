"""The one answer to "is this network what its class says?", for every fast path."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.parametrisations import GATES16
from lgn_analysis.kernels.interface import NetworkSpec
from lgn_analysis.network.departures import (
    departure,
    hand_changes,
    hook_departure,
    make_spec,
    structural_departure,
)
from lgn_analysis.network.network import LogicNetwork


class Specification(NamedTuple):
    """A network as the kernels take it, or why they cannot compute it.

    Attributes:
        network: the specification; None where the network was changed by hand.
        reason: how, in words; "" where there is a specification.
    """

    network: NetworkSpec | None
    reason: str


def specify(model: nn.Module, resolved: str = "train", *, training: bool = False) -> Specification:
    """Return the specification for kernels of a network that computes what its class defines.

    Refused are another class, another ``forward`` or other contents of the network, of any layer and of
    the group sum; hooks; parametrisations; shared, resized or re-typed logits; layers that differ in
    relaxation, temperature, width, dtype or mode; and training forwards of relaxations without
    kernels. Such a network is computed by calling its modules, as PyTorch would.

    Args:
        model: any module.
        resolved: the pass that is meant: train, noisy, soft or discrete.
        training: whether the kernels are to take whole training steps, gradients and Adam included:
            then frozen logits, hooks on them and other dtypes than float32 are refused, too.
    """
    if not isinstance(model, LogicNetwork):
        return Specification(None, f"it is a {type(model).__name__}")
    reason = departure(model, LogicNetwork, resolved, training=training)
    return Specification(None, reason) if reason else Specification(make_spec(model, resolved), "")


def require_network(model: object, what: str) -> None:
    """Raise unless ``model`` is a LogicNetwork, which ``what`` needs."""
    if not isinstance(model, LogicNetwork):
        kind = model.__name__ if isinstance(model, type) else type(model).__name__
        way_out = (
            "; lgn.convert(module) makes one of the logic layers that it knows"
            if isinstance(model, nn.Module)
            else ""
        )
        raise InvalidInputError(f"{what} needs a LogicNetwork, got {kind}{way_out}")


def changed_by_hand(model: LogicNetwork, *, discrete: bool = False) -> str:
    """Return how a network departs from what its class says, in words; "" where it does not.

    Kernels need not compute it all the same; that :func:`specify` says.

    Args:
        model: the network.
        discrete: whether the discrete network is meant, in which relaxations have no part.
    """
    return hand_changes(model, LogicNetwork, discrete=discrete)


def require_plain(
    model: object, what: str, *, hooks: bool = True, any_parametrisation: bool = False
) -> None:
    """Raise unless ``model`` is a LogicNetwork that is what its class says; see :func:`specify`.

    Args:
        model: anything.
        what: what needs it.
        hooks: whether hooks are a departure, too; they are no part of a stored model.
        any_parametrisation: whether it knows others than ``gates16``.
    """
    require_network(model, what)
    assert isinstance(model, LogicNetwork)
    reason = structural_departure(model, LogicNetwork) or (hook_departure(model) if hooks else "")
    if reason:
        raise InvalidInputError(
            f"{what} needs a LogicNetwork that is what its class says, and of this one {reason}"
        )
    if not any_parametrisation:
        require_gates16(model, what)


def require_gates16(model: LogicNetwork, what: str) -> None:
    """Raise unless gates have sixteen logits each, of which ``what`` is a statement."""
    if model.parametrisation != GATES16:
        raise InvalidInputError(
            f"{what} is about the sixteen logits of parametrisation {GATES16!r}, and this network's is "
            f"{model.parametrisation!r}"
        )
