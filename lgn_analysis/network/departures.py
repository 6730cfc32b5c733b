"""Whether a network computes what its class defines, and its specification for the kernels.

The kernels for whole networks take tensors and numbers, not modules. So every fast path (forward,
training step, evaluation, usage, curvature) calls :func:`lgn_analysis.network.specify` first; a
network that it does not recognise is computed module by module, as PyTorch would.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from lgn_analysis.gates.relaxations import Soft
from lgn_analysis.kernels.interface import NetworkSpec
from lgn_analysis.network import parts
from lgn_analysis.network.group_sum import GroupSum
from lgn_analysis.network.layer import layer_departure
from lgn_analysis.network.modes import has_kernels

if TYPE_CHECKING:
    from lgn_analysis.network.network import LogicNetwork

_NONE: Final[frozenset[str]] = frozenset()


def departure(network: LogicNetwork, kind: type, resolved: str, *, training: bool = False) -> str:
    """Return why the kernels cannot compute a pass over a network; "" where they can.

    Args:
        network: the network.
        kind: LogicNetwork.
        resolved: the pass: train, noisy, soft or discrete.
        training: whether whole training steps are meant, gradients and Adam included.
    """
    reason = hand_changes(network, kind, discrete=resolved == "discrete")
    if not reason and not has_kernels(resolved, network.layers[0].relaxation):
        reason = f"no kernel computes {type(network.relaxation).__name__}"
    if training:
        reason = reason or training_departure(network)
    return reason


def hand_changes(network: LogicNetwork, kind: type, *, discrete: bool = False) -> str:
    """Return how a network departs from its class, in its parts or by hooks; "" if it does not."""
    return structural_departure(network, kind, discrete=discrete) or hook_departure(network)


def structural_departure(network: LogicNetwork, kind: type, *, discrete: bool = False) -> str:
    """Return how the parts of a network depart from its class, in words; "" if they do not.

    Its configuration and its tensors describe a network completely while this is "". Hooks are no
    part of a model, as in PyTorch's own ``state_dict``.

    Args:
        network: the network.
        kind: LogicNetwork.
        discrete: whether the discrete network is meant, in which relaxations have no part.
    """
    if reason := parts.patches():
        return reason
    if reason := parts.departure(network, kind, _NONE, _NONE, ("layers", "group_sum")):
        return f"the network {reason}"
    layers, group_sum = network._modules["layers"], network._modules["group_sum"]
    names = tuple(map(str, range(network.depth)))
    if not isinstance(layers, nn.ModuleList) or not names:
        return "its layers are no ModuleList, or none"
    if parts.departure(layers, nn.ModuleList, _NONE, _NONE, names):
        return f"its layers are no ModuleList of {network.depth}"
    of_layers = list(layers._modules.values())
    first = vars(of_layers[0])
    for index, layer in enumerate(of_layers):
        if reason := layer_departure(layer):
            return f"layer {index} {reason}"
        own = vars(layer)
        sizes = (own["n_in"], own["n_out"], own["index"])
        expected = (network.n_features if index == 0 else network.width, network.width, index)
        if sizes != expected:
            return f"layer {index} has n_in, n_out and index {sizes}, not {expected}"
        compared = ("relaxation", "parametrisation", "grad_factor")
        for name in ("parametrisation",) if discrete else compared:
            one, other = first[name], own[name]
            if one is not other and one != other:
                return f"layers 0 and {index} differ in {name}: {one} and {other}"
    logits = [vars(layer)["_parameters"]["logits"] for layer in of_layers]
    if any((z.dtype, z.device) != (logits[0].dtype, logits[0].device) for z in logits):
        return "layers differ in dtype or device"
    if len(set(map(id, logits))) < len(logits):
        return "layers share their logits"
    if reason := parts.departure(group_sum, GroupSum, _NONE, _NONE, ()):  # type: ignore[arg-type]
        return f"its group sum {reason}"
    assert isinstance(group_sum, GroupSum)
    n_groups, group_tau = group_sum.n_groups, group_sum.group_tau
    if not (type(n_groups) is int and n_groups > 0 and network.width % n_groups == 0):
        return f"its group sum has {n_groups} groups, which do not divide {network.width} gates"
    if n_groups < network.n_classes:
        return f"its group sum has {n_groups} groups for {network.n_classes} classes"
    if not (type(group_tau) in (int, float) and 0 < group_tau < math.inf):
        return f"its group sum has a group_tau of {group_tau}"
    return ""


def hook_departure(network: LogicNetwork, *, inside: bool = False) -> str:
    """Return which hooks are called beside the parts of a network, in words; "" for none.

    Args:
        network: without a :func:`structural_departure`.
        inside: leave out what PyTorch itself calls around the network's own ``forward``.
    """
    if reason := parts.global_hooks():
        return reason
    if not inside and (reason := parts.hooks(network)):
        return f"the network {reason}"
    if reason := parts.hooks(network._modules["layers"]):  # type: ignore[arg-type]
        return f"its list of layers {reason}"
    layers = list(network.layers)
    for index, layer in enumerate(layers):
        if reason := parts.hooks(layer):
            return f"layer {index} {reason}"
        if layer.backend != layers[0].backend:
            return f"layers 0 and {index} force different backends"
        if layer.training is not network.training:
            return f"layer {index} and the network are not both in train() or in eval() mode"
    if reason := parts.hooks(network.group_sum):
        return f"its group sum {reason}"
    return ""


def training_departure(network: LogicNetwork) -> str:
    """Return why whole training steps would differ from autograd and Adam, in words; "" if they would not.

    For a network without other departures.
    """
    for index, layer in enumerate(network.layers):
        z = layer.logits
        if not z.requires_grad:
            return f"the logits of layer {index} are frozen"
        if z.dtype != torch.float32 or not z.is_contiguous():
            return f"the logits of layer {index} are no contiguous float32"
        if z._backward_hooks or z._post_accumulate_grad_hooks:
            return f"the logits of layer {index} have a hook"
    if _overlap([layer.logits for layer in network.layers]):
        return "layers share memory of their logits"
    if any(c.dtype != torch.float32 for c in network.confidences):
        return "a confidence is no float32"
    return "layers share their confidence" if _overlap(network.confidences) else ""


def _overlap(tensors: Sequence[Tensor]) -> bool:
    """Return whether any two of some contiguous tensors have memory in common."""
    places = sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in tensors)
    return any(end > start for (_, end), (start, _) in itertools.pairwise(places))


def make_spec(network: LogicNetwork, resolved: str) -> NetworkSpec:
    """Return the specification of a pass; ``resolved``: train, noisy, soft or discrete."""
    first, group_sum = network.layers[0], network.group_sum
    soft, training = resolved == "soft", resolved == "train"
    keeps = training and first.relaxation.adaptive
    return NetworkSpec(
        wirings=tuple(layer.wiring for layer in network.layers),
        n_features=network.n_features,
        relaxation=Soft(first.relaxation.tau) if soft else first.relaxation,
        parametrisation=first.parametrisation,
        n_groups=group_sum.n_groups,
        group_tau=group_sum.group_tau,
        grad_factor=first.grad_factor if training else 1.0,
        gradient_dtype=network.gradient_dtype,
        confidences=tuple(layer.confidence for layer in network.layers) if keeps else (),
    )
