"""A LogicNetwork as a module of torchlogix."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from lgn_analysis.base.errors import InvalidInputError, MissingDependencyError
from lgn_analysis.interop.recognition import SAMPLINGS
from lgn_analysis.network import LogicNetwork, require_plain


def to_torchlogix(model: LogicNetwork) -> nn.Sequential:
    """Return a network as ``Sequential(LogicDense, …, GroupSum)`` of torchlogix, of the same function.

    Its logits and wirings are copies; its training forward is that of the relaxation, by torch's own
    generator instead of this package's noise. The inverse is :func:`lgn_analysis.convert`.

    Raises:
        MissingDependencyError: torchlogix is not installed, or not for this Python.
        InvalidInputError: the network was changed by hand, or its relaxation is CAGE, which torchlogix does
            not have.
    """
    require_plain(model, "a conversion to torchlogix")
    names = {kind: name for name, kind in SAMPLINGS.items()}
    relaxation = model.relaxation
    if type(relaxation) not in names:
        raise InvalidInputError(
            f"torchlogix has no {type(relaxation).__name__}; set model.relaxation to one of "
            f"{', '.join(kind.__name__ for kind in names)} first"
        )
    layers = _import_layers()
    parts = []
    for layer in model.layers:
        with torch.random.fork_rng([]):  # it draws a wiring, which is replaced
            dense = layers.LogicDense(
                layer.n_in,
                layer.n_out,
                grad_factor=layer.grad_factor,
                parametrization="raw",
                parametrization_kwargs={
                    "forward_sampling": names[type(relaxation)],
                    "temperature": relaxation.tau,
                },
                connections="fixed",
            ).to(model.device, model.dtype)
        with torch.no_grad():
            dense.weight.copy_(layer.logits)
            dense.connections.indices.copy_(layer.wiring)
        dense.weight.requires_grad_(layer.logits.requires_grad)
        parts.append(dense)
    group_sum = layers.GroupSum(model.group_sum.n_groups, tau=model.group_sum.group_tau)
    return nn.Sequential(*parts, group_sum).train(model.training)


def _import_layers() -> Any:
    try:
        return importlib.import_module("torchlogix.layers")
    except ImportError as error:
        raise MissingDependencyError(
            "to_torchlogix needs torchlogix, which is not installed; pip install torchlogix==0.2.2"
        ) from error
    except SyntaxError as error:
        raise MissingDependencyError(
            "torchlogix needs Python 3.12 or newer; write the model by lgn.save and convert it there"
        ) from error
