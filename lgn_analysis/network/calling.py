"""Calls of layers and networks that may have been changed by hand."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import NoiseKey
from lgn_analysis.network.layer import LogicLayer
from lgn_analysis.network.modes import Mode

if TYPE_CHECKING:
    from lgn_analysis.network.network import LogicNetwork


def draws_noise(layer: nn.Module, mode: str | None) -> bool:
    """Return whether a layer draws noise in a mode; None follows ``train()`` and ``eval()``."""
    if not isinstance(layer, LogicLayer) or not layer.relaxation.noisy:
        return False
    return mode == "noisy" or (mode is None and layer.training)


def call_layer(layer: nn.Module, x: Tensor, mode: Mode | None, key: NoiseKey | None) -> Tensor:
    """Return a layer's outputs for x; a module that is no LogicLayer has no modes."""
    if not isinstance(layer, LogicLayer) or (mode is None and key is None):
        outputs: Tensor = layer(x)
        return outputs
    _require_modes(layer, f"layer {layer.index}, a {type(layer).__name__} changed by hand,")
    outputs = layer(x, mode=mode, draw=key)
    return outputs


def call_network(
    model: LogicNetwork, x: Tensor, *, mode: Mode | None = None, draw: int | NoiseKey | None = None
) -> Tensor:
    """Return the class logits [batch, n_groups] of a network that may have been changed by hand."""
    _require_modes(model, f"this {type(model).__name__}, changed by hand,")
    outputs = model(x, mode=mode, draw=draw)
    if not (isinstance(outputs, Tensor) and outputs.ndim and outputs.shape[-1] >= model.n_classes):
        came = (
            f"shape {tuple(outputs.shape)}"
            if isinstance(outputs, Tensor)
            else type(outputs).__name__
        )
        raise InvalidInputError(
            f"a network must return class logits [batch, at least {model.n_classes}], and this one, "
            f"changed by hand, returned {came}"
        )
    return outputs


def _require_modes(module: nn.Module, which: str) -> None:
    """Raise unless a module's forward takes a mode and a draw."""
    forward = vars(module).get("forward") or type(module).forward
    try:
        has_modes = _has_modes(forward)
    except TypeError:  # it cannot be hashed
        has_modes = _has_modes.__wrapped__(forward)
    if not has_modes:
        raise InvalidInputError(
            f"the forward of {which} takes no mode and no draw; "
            "define it as forward(self, x, *, mode=None, draw=None)"
        )


@functools.lru_cache(maxsize=64)
def _has_modes(forward: Callable[..., Any]) -> bool:
    parameters = inspect.signature(forward).parameters
    if any(value.kind is inspect.Parameter.VAR_KEYWORD for value in parameters.values()):
        return True
    return {"mode", "draw"} <= parameters.keys()


def watched_outputs(model: LogicNetwork, x: Tensor) -> list[Tensor]:
    """Return what every layer returned in a discrete pass over the network as it is called."""
    # A module may stand in several places: then its calls are those of the places, in order.
    outputs: dict[nn.Module, list[Any]] = {layer: [] for layer in model.layers}
    handles = [
        layer.register_forward_hook(lambda module, inputs, output: outputs[module].append(output))
        for layer in outputs
    ]
    try:
        with torch.no_grad():
            call_network(model, x, mode="discrete")
    finally:
        for handle in handles:
            handle.remove()
    layers: list[nn.Module] = list(model.layers)
    if lacking := [index for index, layer in enumerate(layers) if not outputs[layer]]:
        raise InvalidInputError(
            f"this network was changed by hand and does not call its layers {lacking}, so they "
            "have no outputs"
        )
    for index, layer in enumerate(layers):
        calls, places = outputs[layer], layers.count(layer)
        if len(calls) != places:
            raise InvalidInputError(
                f"this network was changed by hand and calls its layer {index} {len(calls)} times "
                f"where it should {places}, so that has no outputs of its own"
            )
        if not all(isinstance(output, Tensor) for output in calls):
            raise InvalidInputError(
                f"layer {index} was changed by hand and returns a {type(calls[0]).__name__}; let "
                "it return a tensor [batch, n_out]"
            )
    return [outputs[layer].pop(0) for layer in layers]
