"""Layers of difflogic, gumbel-lgn and torchlogix, recognised by class names and attributes.

difflogic and gumbel-lgn: ``LogicLayer`` with ``weights`` [out, 16] and ``indices``, two int64 [out];
gumbel-lgn adds ``stochastic`` and ``gumbel_tau``. torchlogix 0.2.2: ``LogicDense`` with ``weight``,
``parametrization`` and ``connections``, whose ``indices`` are int64 [2, out]. All have ``in_dim``,
``out_dim`` and ``grad_factor``. ``GroupSum`` has ``k`` and ``tau``, and in torchlogix ``beta``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import positive, real, shown, whole
from lgn_analysis.gates.relaxations import GumbelSoft, GumbelST, HardST, Relaxation, Soft
from lgn_analysis.interop.assembly import FoundGroupSum, FoundLayer
from lgn_analysis.network import LogicNetwork, parts

SAMPLINGS: Final[dict[str, type[Relaxation]]] = {
    "soft": Soft,
    "hard": HardST,
    "gumbel_soft": GumbelSoft,
    "gumbel_hard": GumbelST,
}
"""What torchlogix calls ``forward_sampling``."""
_SEQUENCE: Final = (
    "a network to convert is an nn.Sequential of logic layers and a group sum, and {} is a {}; give "
    "the nn.Sequential inside it"
)
_CONVOLUTIONS: Final = ("LogicConv", "OrPooling")


def sequence(module: object, name: str = "module") -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of an nn.Sequential, those in an nn.Sequential inside it too, with their names.

    Raises:
        InvalidInputError: it is none, or computes more than its parts do.
    """
    if isinstance(module, LogicNetwork):
        raise InvalidInputError(f"{name} is a LogicNetwork already; use it as it is")
    if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
        raise InvalidInputError(_SEQUENCE.format(name, type(module).__name__))
    _refuse_changes(module, name)
    for index, part in enumerate(module):
        if isinstance(part, nn.Sequential):
            yield from sequence(part, f"{name}[{index}]")
        else:
            yield f"{name}[{index}]", part


def is_flatten(name: str, part: nn.Module) -> bool:
    """Return whether a part is a Flatten of all but the batch, which bits [batch, n] pass unchanged."""
    if type(part) is not nn.Flatten:
        return False
    if (part.start_dim, part.end_dim) != (1, -1):
        raise InvalidInputError(
            f"{name} is a Flatten({part.start_dim}, {part.end_dim}), which mixes samples; a network "
            "takes bits [batch, n_features]: use Flatten()"
        )
    return True


def found_layer(name: str, part: nn.Module, *, freeze_connections: bool) -> FoundLayer:
    """Return a layer of gates in the terms of this package.

    Raises:
        InvalidInputError: it is none, or one that a LogicNetwork cannot represent.
    """
    kind = type(part).__name__
    if kind == "LogicLayer":
        found = _logic_layer(name, part)
    elif kind == "LogicDense":
        found = _logic_dense(name, part, freeze_connections)
    else:
        raise InvalidInputError(_refusal(name, kind))
    _refuse_changes(part, name)
    n_out = whole(f"out_dim of {name}", _attribute(name, part, "out_dim"))
    if len(found.logits) != n_out:
        raise InvalidInputError(
            f"{name} has out_dim {n_out} and weights of {len(found.logits)} gates; make it anew"
        )
    return found


def found_group_sum(name: str, part: nn.Module) -> FoundGroupSum:
    """Return the group sum of a GroupSum."""
    if type(part).__name__ != "GroupSum":
        raise InvalidInputError(
            f"a network ends with a GroupSum, and {name} is a {type(part).__name__}; append the one "
            "that it was trained with"
        )
    _refuse_changes(part, name)
    beta = getattr(part, "beta", 0.0)
    if not isinstance(beta, int | float) or beta != 0:
        raise InvalidInputError(
            f"{name} adds beta={shown(beta)} to every sum, and a LogicNetwork adds nothing; a constant "
            "in all class logits changes no prediction and no cross-entropy: set beta = 0.0"
        )
    n_groups = whole(f"k of {name}", _attribute(name, part, "k"), least=1)
    return FoundGroupSum(n_groups, positive(f"tau of {name}", _attribute(name, part, "tau")))


def _logic_layer(name: str, part: nn.Module) -> FoundLayer:
    """Return a layer of difflogic or of gumbel-lgn."""
    indices = _attribute(name, part, "indices")
    try:
        a, b = indices
        wiring = torch.stack([a, b])
    except (TypeError, ValueError, RuntimeError):
        raise InvalidInputError(
            f"{name} has indices that are no pair of tensors [out_dim]; the wiring of a LogicLayer is "
            "one index of A and one of B for each gate"
        ) from None
    stochastic = getattr(part, "stochastic", "softmax")
    if stochastic == "softmax":
        relaxation: Relaxation = Soft()  # gumbel_tau has no part in it
    elif stochastic == "gumbel":
        relaxation = GumbelST(_attribute(name, part, "gumbel_tau"))
    else:
        raise InvalidInputError(
            f"{name} has stochastic={shown(stochastic)}, and only softmax and gumbel are known; "
            "convert a copy with one of these"
        )
    return _layer(name, part, "weights", wiring, relaxation)


def _logic_dense(name: str, part: nn.Module, freeze_connections: bool) -> FoundLayer:
    """Return a dense layer of torchlogix."""
    rank = whole(f"lut_rank of {name}", _attribute(name, part, "lut_rank"))
    if rank != 2:
        raise InvalidInputError(
            f"{name} has gates of {rank} inputs (lut_rank), and a LogicNetwork has two; train one "
            "with lut_rank=2"
        )
    if getattr(part, "export_mode", False):
        raise InvalidInputError(
            f"{name} is in export mode; take it out: torchlogix.utils.set_export_mode(module, False)"
        )
    parametrization = _attribute(name, part, "parametrization")
    if type(parametrization).__name__ != "RawLUTParametrization":
        raise InvalidInputError(
            f"{name} has a {type(parametrization).__name__}, and only parametrization='raw', 16 "
            "logits a gate, can be converted"
        )
    sampling = _attribute(name, parametrization, "forward_sampling")
    if sampling not in SAMPLINGS:
        raise InvalidInputError(
            f"{name} has forward_sampling={shown(sampling)}; use one of {', '.join(SAMPLINGS)}"
        )
    relaxation = SAMPLINGS[sampling](_attribute(name, parametrization, "temperature"))
    connections = _attribute(name, part, "connections")
    kind = type(connections).__name__
    indices = _attribute(name, connections, "indices")
    if kind == "LearnableDenseConnections":
        choice = _attribute(name, connections, "weights")
        indices = frozen_wiring(name, choice, indices, allowed=freeze_connections)
    elif kind != "FixedDenseConnections":
        raise InvalidInputError(f"{name} has connections of an unknown kind, {kind}")
    for inner in (parametrization, connections):
        _refuse_changes(inner, f"{type(inner).__name__} of {name}")
    return _layer(name, part, "weight", indices, relaxation)


def frozen_wiring(name: str, weights: Tensor, indices: Tensor, *, allowed: bool) -> Tensor:
    """Return the wiring [2, n_out] that learnable connections have chosen, argmax of weights [C, 2, n_out].

    Raises:
        InvalidInputError: this is not allowed: the connections would learn no further.
    """
    if not allowed:
        raise InvalidInputError(
            f"{name} has learnable connections, and the wiring of a LogicNetwork is fixed; give "
            "freeze_connections=True to take the choice that they make in eval() mode"
        )
    if weights.ndim != 3 or weights.shape != indices.shape:
        raise InvalidInputError(
            f"{name} has connections of weights {tuple(weights.shape)} and indices "
            f"{tuple(indices.shape)}; both are [candidates, 2, out_dim]"
        )
    return indices.gather(0, weights.detach().argmax(0, keepdim=True))[0]


def _layer(
    name: str, part: nn.Module, weights: str, wiring: Tensor, relaxation: Relaxation
) -> FoundLayer:
    logits = _attribute(name, part, weights)
    if not isinstance(logits, nn.Parameter) or not isinstance(wiring, Tensor):
        raise InvalidInputError(
            f"{name} holds a {type(logits).__name__} as {weights}; it should be a Parameter [out_dim, 16]"
        )
    return FoundLayer(
        name,
        whole(f"in_dim of {name}", _attribute(name, part, "in_dim")),
        logits,
        wiring,
        relaxation,
        real(f"grad_factor of {name}", getattr(part, "grad_factor", 1.0)),
    )


def _attribute(name: str, part: object, attribute: str) -> Any:
    if not hasattr(part, attribute):
        raise InvalidInputError(
            f"{name} is called {type(part).__name__} and has no {attribute}, so it is none of difflogic, "
            "gumbel-lgn or torchlogix 0.2.2; build it of lgn.LogicLayer instead"
        )
    return getattr(part, attribute)


def _refuse_changes(part: nn.Module, name: str) -> None:
    reason = parts.hooks(part)
    if "forward" in vars(part):
        reason = "has a forward of its own"
    if reason:
        raise InvalidInputError(f"{name} {reason}, which would not be converted; take it off first")


def _refusal(name: str, kind: str) -> str:
    if kind.endswith("Binarization"):
        return (
            f"{name} is a {kind}, and a LogicNetwork takes bits; convert what comes behind it, "
            "lgn.convert(nn.Sequential(*list(module)[1:])), and give that the bits which it makes"
        )
    if kind.startswith(_CONVOLUTIONS):
        return f"{name} is a {kind}, and lgn.convert takes dense layers; convert those behind it"
    return (
        f"{name} is a {kind}, and a network to convert has Flatten, LogicLayer or LogicDense, and "
        "GroupSum; take it out, or convert the part that has only these"
    )
