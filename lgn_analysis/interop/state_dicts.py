"""The layers in a state dict: which tensors belong to which, and what their shapes say.

difflogic and gumbel-lgn: ``{i}.weights`` [out, 16], and nothing else. torchlogix 0.2.2, dense:
``{i}.weight`` [out, 16], ``{i}.connections.indices`` int64 [2, out]; with learnable connections
``{i}.connections.weights`` and ``.indices`` [candidates, 2, out]; in export mode ``_export_lut_ids``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.table import N_GATES
from lgn_analysis.interop.recognition import frozen_wiring

_DERIVED: Final = ("_export_lut_ids", "connections._export_indices")
"""What torchlogix's export mode computes of the rest."""
_INDICES: Final = ("connections.indices", "indices")


@dataclass(frozen=True)
class StoredLayer:
    """Logits [n_out, 16] of a layer, and its wiring [2, n_out] where the file holds it."""

    name: str
    logits: Tensor
    wiring: Tensor | None


def stored_layers(
    state: Mapping[str, Any], *, ignore: Sequence[str], freeze_connections: bool
) -> list[StoredLayer]:
    """Return the layers in a state dict, in order.

    Raises:
        InvalidInputError: it holds none, others than dense layers of two-input gates, or more.
    """
    if unknown := [name for name in ignore if name not in state]:
        raise InvalidInputError(f"there is no {unknown[0]} to ignore; it holds {_some(state)}")
    tensors = {name: value for name, value in state.items() if name not in ignore}
    if wrong := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
        raise InvalidInputError(
            f"{wrong[0]} is a {type(tensors[wrong[0]]).__name__} and no tensor; save module.state_dict()"
        )
    if trees := [name for name in tensors if "tree_weights" in name or ".selection" in name]:
        raise InvalidInputError(
            f"{trees[0]} belongs to a convolution, and only dense layers are read; save those alone"
        )
    layers = [
        _stored_layer(prefix, key, tensors, freeze_connections)
        for prefix, key in sorted(_heads(tensors), key=lambda head: _natural(head[0]))
    ]
    for prefix, _ in _heads(tensors):
        for name in (*_DERIVED, *_INDICES, "connections.weights"):
            tensors.pop(prefix + name, None)
    left = [name for name in tensors if not _is_head(name)]
    if not layers:
        raise InvalidInputError(
            f"it holds no logic layer, no weights or weight [gates, {N_GATES}], only {_some(state)}"
        )
    if left:
        raise InvalidInputError(
            f"it also holds {left[0]}, which is no part of a LogicNetwork; give ignore=({left[0]!r},) to "
            "leave it out, and apply it yourself where it makes the bits"
        )
    return layers


def _is_head(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last in ("weights", "weight") and ".connections." not in f".{name}"


def _heads(tensors: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Return (prefix, name) of each layer's logits, for instance ("1.", "weights")."""
    return [
        (head + dot, last)
        for head, dot, last in (n.rpartition(".") for n in filter(_is_head, tensors))
    ]


def _stored_layer(
    prefix: str, key: str, tensors: Mapping[str, Tensor], freeze_connections: bool
) -> StoredLayer:
    name, logits = prefix.rstrip(".") or "0", tensors[prefix + key]
    wiring = next((tensors[prefix + i] for i in _INDICES if prefix + i in tensors), None)
    choice = tensors.get(f"{prefix}connections.weights")
    if choice is not None and wiring is not None:
        wiring = frozen_wiring(f"layer {name}", choice, wiring, allowed=freeze_connections)
    if wiring is not None and (wiring.ndim != 2 or len(wiring) != 2):
        raise InvalidInputError(
            f"layer {name} has connections of shape {tuple(wiring.shape)}, and gates of two inputs have "
            "[2, gates]; other ranks cannot be converted"
        )
    if logits.ndim != 2 or logits.shape[-1] != N_GATES:
        raise InvalidInputError(
            f"layer {name} has weights of shape {tuple(logits.shape)}, and parametrisations other than "
            f"[gates, {N_GATES}] (torchlogix: warp, light, lut_rank above 2) cannot be converted"
        )
    return StoredLayer(name, logits, wiring)


def _natural(prefix: str) -> list[tuple[int, str]]:
    """Return a sorting key by which 2 comes before 10."""
    parts = re.split(r"\.", prefix)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _some(state: Mapping[str, Any]) -> str:
    names = list(state)
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "") if names else "nothing"
