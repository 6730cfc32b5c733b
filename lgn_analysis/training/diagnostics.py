"""Which layer first has values that are not finite, in words."""

from __future__ import annotations

import torch
from torch import Tensor

from lgn_analysis.network import LogicLayer, LogicNetwork, call_layer


def bad_logits(model: LogicNetwork) -> str:
    """Return which logits are not finite; empty where all are."""
    for layer in model.logic_layers:
        bad = ~layer.logits.detach().isfinite().all(-1)
        if bad.any():
            first = int(bad.nonzero()[0])
            return (
                f"layer {layer.index} has logits that are not finite (in {int(bad.sum())} of "
                f"{len(bad)} gates, the first of them gate {first})"
            )
    return ""


def where_it_fails(model: LogicNetwork, x: Tensor) -> str:
    """Return the first thing that is not finite on the way to the class scores; empty without one."""
    if reason := bad_logits(model):
        return reason
    with torch.no_grad():
        values = x
        for index, layer in enumerate(model.layers):
            values = call_layer(layer, values, "soft", None)
            if not values.isfinite().all():
                tau = f": tau {layer.relaxation.tau} is out of their range"
                return (
                    f"layer {index} has outputs that are not finite from logits that are"
                    f"{tau if isinstance(layer, LogicLayer) else ''}"
                )
        if not model.group_sum(values).isfinite().all():
            return (
                "the class scores overflow, which are sums of gates divided by group_tau "
                f"{getattr(model.group_sum, 'group_tau', '')}"
            )
    return ""
