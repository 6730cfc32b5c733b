"""What users do to a network by hand: each entry changes a network in place and may need undoing.

``changes`` says whether class logits must come out differently, so that a test of two paths that both
ignore a modification cannot pass.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import weight_norm

from lgn_analysis.gates.relaxations import HardST, Relaxation, Soft
from lgn_analysis.network import GroupSum, LogicLayer, LogicNetwork


@dataclass(frozen=True)
class Modification:
    """A change by hand.

    Attributes:
        name: of the test.
        apply: changes the network; what it returns undoes what is not the network's own.
        changes: whether soft class logits change.
        refuses: what is refused, by column of the table, and what the message says.
    """

    name: str
    apply: Callable[[LogicNetwork], Callable[[], object] | None]
    changes: bool = True
    refuses: tuple[tuple[str, str], ...] = ()

    @contextmanager
    def on(self, network: LogicNetwork) -> Iterator[LogicNetwork]:
        undo = self.apply(network)
        try:
            yield network
        finally:
            if undo is not None:
                undo()


class Halved(GroupSum):
    """A group sum whose output is half as large."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


class MeanOfGroups(nn.Module):
    """Another module in the place of the group sum."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x.unflatten(-1, (3, -1)).mean(-1)


class Inverted(LogicLayer):
    """A layer of complements."""

    def forward(self, x: Tensor, *, mode: Any = None, draw: Any = None) -> Tensor:
        return 1 - super().forward(x, mode=mode, draw=draw)


class Modeless(LogicLayer):
    """A layer whose forward forgot about modes."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class Swapped(LogicLayer):
    """A layer that reads its inputs backwards, by the method under ``forward``."""

    def forward_features(self, x: Tensor, resolved: str, noise: Tensor | None) -> Tensor:
        return super().forward_features(x.flip(0), resolved, noise)

    def forward_packed(self, words: Tensor) -> Tensor:
        return super().forward_packed(words.flip(0))


class Doubled(LogicNetwork):
    """A network whose class logits are twice as large."""

    def forward(self, x: Tensor, *, mode: Any = None, draw: Any = None) -> Tensor:
        return 2 * super().forward(x, mode=mode, draw=draw)


class Looping(LogicNetwork):
    """A network that calls its second layer twice."""

    def forward(self, x: Tensor, *, mode: Any = None, draw: Any = None) -> Tensor:
        key = None if draw is None else self._noise_key(draw)
        for index in (0, 1, 1, 2):
            x = self.layers[index](x, mode=mode, draw=key)
        outputs: Tensor = self.group_sum(x)
        return outputs


class Skipping(LogicNetwork):
    """A network that leaves its second layer out."""

    def forward(self, x: Tensor, *, mode: Any = None, draw: Any = None) -> Tensor:
        key = None if draw is None else self._noise_key(draw)
        for layer in (self.layers[0], self.layers[2]):
            x = layer(x, mode=mode, draw=key)
        outputs: Tensor = self.group_sum(x)
        return outputs


class Twice(nn.Module):
    """A parametrisation."""

    def forward(self, z: Tensor) -> Tensor:
        return 2 * z


def become(part: nn.Module, kind: type) -> None:
    part.__class__ = kind


def as_group_sum(module: Callable[[LogicNetwork], nn.Module]) -> Callable[[LogicNetwork], None]:
    def apply(network: LogicNetwork) -> None:
        network.group_sum = module(network)  # type: ignore[assignment]

    return apply


def patched(part: Callable[[LogicNetwork], nn.Module], by: Callable[[Tensor], Tensor]) -> Any:
    def apply(network: LogicNetwork) -> None:
        module = part(network)
        plain = type(module).forward

        def forward(self: Any, x: Tensor, **options: Any) -> Tensor:
            return by(plain(self, x, **options))

        module.forward = types.MethodType(forward, module)  # type: ignore[method-assign]

    return apply


def patched_by_closure(network: LogicNetwork) -> None:
    layer = network.layers[1]
    layer.forward = lambda x, **options: 1 - LogicLayer.forward(layer, x, **options)  # type: ignore[method-assign]


def patch_class(network: LogicNetwork) -> Callable[[], object]:
    plain = GroupSum.forward
    GroupSum.forward = lambda self, x: 3 * plain(self, x)  # type: ignore[method-assign]
    return lambda: setattr(GroupSum, "forward", plain)


def replace_in_class(kind: type, name: str, by: Callable[[Any], Any]) -> Any:
    """Replace a method of a class, or add one that it inherits."""

    def apply(network: LogicNetwork) -> Callable[[], object]:
        own, plain = name in vars(kind), getattr(kind, name)
        setattr(kind, name, by(plain))
        return lambda: setattr(kind, name, plain) if own else delattr(kind, name)

    return apply


def call_twice_as_large(plain: Any) -> Any:
    def call(self: Any, *args: Any, **options: Any) -> Any:
        outputs = plain(self, *args, **options)
        return 2 * outputs if isinstance(self, GroupSum) else outputs

    return call


def shadowed_logits(network: LogicNetwork) -> None:
    vars(network.layers[1])["logits"] = network.layers[1].logits.detach().flip(0)


def renamed_layer(network: LogicNetwork) -> None:
    last = network.layers[2]
    del network.layers[2]  # type: ignore[attr-defined]
    network.layers.add_module("last", last)  # type: ignore[attr-defined]


def layer_twice(network: LogicNetwork) -> None:
    network.layers[2] = network.layers[1]  # type: ignore[index]


def negated_view(network: LogicNetwork) -> None:
    layer = network.layers[1]
    layer.logits = nn.Parameter(torch._neg_view(layer.logits.detach().clone()))


def overlapping(network: LogicNetwork) -> None:
    one, two = network.layers[1].logits, network.layers[2].logits
    flat = torch.cat([one.detach(), two.detach()])
    one.data, two.data = flat[: len(one)], flat[len(one) - 2 : -2]


def patched_relaxation(network: LogicNetwork) -> None:
    relaxation = replace(network.relaxation)
    plain = relaxation.training_weights
    object.__setattr__(
        relaxation, "training_weights", lambda z, g=None, *, tau=None: plain(z.flip(-1), g, tau=tau)
    )
    network.relaxation = relaxation


def wider(network: LogicNetwork) -> None:
    one, two = network.layers[1], network.layers[2]
    options: dict[str, Any] = {"relaxation": one.relaxation, "dtype": one.logits.dtype, "seed": 3}
    width = network.width + 2
    network.layers[1] = LogicLayer(one.n_in, width, index=1, **options)  # type: ignore[index]
    network.layers[2] = LogicLayer(width, two.n_out, index=2, **options)  # type: ignore[index]


def other_dtype(network: LogicNetwork) -> None:
    layer = network.layers[1]
    layer.to(torch.float32 if layer.logits.dtype == torch.float64 else torch.float64)  # type: ignore[attr-defined]


def mixed(name: str, value: Any) -> Callable[[LogicNetwork], None]:
    return lambda network: setattr(network.layers[1], name, value)


def hooked(part: Callable[[LogicNetwork], nn.Module], kind: str, hook: Any) -> Any:
    def apply(network: LogicNetwork) -> None:
        getattr(part(network), f"register_{kind}")(hook)

    return apply


def global_hook(network: LogicNetwork) -> Callable[[], object]:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        return 2 * output if isinstance(module, GroupSum) else None

    return torch_module.register_module_forward_hook(hook).remove


def inserted(module: nn.Module) -> Callable[[LogicNetwork], None]:
    def apply(network: LogicNetwork) -> None:
        network.layers.insert(1, module)  # type: ignore[attr-defined]

    return apply


def share(network: LogicNetwork) -> None:
    network.layers[2].logits = network.layers[1].logits


def rewired(network: LogicNetwork) -> None:
    with torch.no_grad():
        network.layers[1].wiring.copy_(network.layers[1].wiring.flip(1))


def rewired_behind_torch(network: LogicNetwork) -> None:
    network(torch.zeros(2, network.n_features, dtype=torch.bool), mode="discrete")
    wiring = network.layers[1].wiring
    wiring.data[:] = wiring.flip(1)


def other_wiring(network: LogicNetwork) -> None:
    network.layers[0].wiring = network.layers[0].wiring.flip(1)


def pruned(network: LogicNetwork) -> None:
    z = network.layers[1].logits
    prune.custom_from_mask(network.layers[1], "logits", torch.arange(z.numel()).view_as(z) % 3 > 0)


def torn(network: LogicNetwork) -> None:
    network.layers[1].logits = nn.Parameter(network.layers[1].logits.detach()[:2])


def one(network: LogicNetwork) -> nn.Module:
    return network.layers[1]


def head(network: LogicNetwork) -> nn.Module:
    return network.group_sum


def itself(network: LogicNetwork) -> nn.Module:
    return network


def retempered(network: LogicNetwork) -> None:
    network.layers[1].relaxation = replace(network.layers[1].relaxation, tau=0.3)


def complement(module: Any, inputs: Any, output: Tensor) -> Tensor:
    return 1 - output


def complement_first(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    x = inputs[0]
    return (~x if x.dtype == torch.bool else 1 - x,)


def halve_gradient(module: Any, grad_input: Any, grad_output: Any) -> Any:
    return tuple(None if g is None else g / 2 for g in grad_input)


def extra_parameter(network: LogicNetwork) -> None:
    network.scale = nn.Parameter(torch.ones(2, dtype=network.dtype))


def extra_module(network: LogicNetwork) -> None:
    network.dropout = nn.Dropout(0.5)


def extra_on_layer(network: LogicNetwork) -> None:
    network.layers[1].bias = nn.Parameter(torch.ones(2, dtype=network.dtype))


def frozen(network: LogicNetwork) -> None:
    network.layers[1].logits.requires_grad_(False)


def logits_hook(network: LogicNetwork) -> None:
    network.layers[1].logits.register_hook(lambda gradient: -gradient)


def accumulate_hook(network: LogicNetwork) -> None:
    def negate(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.neg_()

    network.layers[1].logits.register_post_accumulate_grad_hook(negate)


def swapped_order(network: LogicNetwork) -> None:
    one, two = network.layers[1], network.layers[2]
    network.layers[1], network.layers[2] = two, one  # type: ignore[index]


def dropped_layer(network: LogicNetwork) -> None:
    del network.layers[2]  # type: ignore[attr-defined]


def plain_list(network: LogicNetwork) -> None:
    network.layers = nn.Sequential(*network.layers)  # type: ignore[assignment]


_MIXED: Final = "the layers differ in relaxation"
_OTHER_GRADIENT: Final = "is not the derivative of its loss"

MODIFICATIONS: Final = (
    Modification("subclassed group sum", lambda n: become(n.group_sum, Halved)),
    Modification("replaced group sum", as_group_sum(lambda n: MeanOfGroups())),
    Modification("group_tau", lambda n: setattr(n.group_sum, "group_tau", 0.5)),
    Modification("n_groups", lambda n: setattr(n.group_sum, "n_groups", 6)),
    Modification("subclassed layer", lambda n: become(n.layers[1], Inverted)),
    Modification("subclassed method of a layer", lambda n: become(n.layers[1], Swapped)),
    Modification("subclassed network", lambda n: become(n, Doubled)),
    Modification("forward hook on a layer", hooked(one, "forward_hook", complement)),
    Modification("pre-hook on a layer", hooked(one, "forward_pre_hook", complement_first)),
    Modification(
        "forward hook on the network", hooked(itself, "forward_hook", lambda m, i, o: 2 * o)
    ),
    Modification("pre-hook on the network", hooked(itself, "forward_pre_hook", complement_first)),
    Modification(
        "forward hook on the group sum",
        hooked(head, "forward_hook", lambda m, i, o: o + o.square()),
    ),
    Modification("pre-hook on the group sum", hooked(head, "forward_pre_hook", complement_first)),
    Modification(
        "backward hook on a layer",
        hooked(one, "full_backward_hook", halve_gradient),
        changes=False,
        refuses=(("probe", _OTHER_GRADIENT),),
    ),
    Modification(
        "backward hook on the group sum",
        hooked(head, "full_backward_hook", halve_gradient),
        changes=False,
        refuses=(("probe", _OTHER_GRADIENT),),
    ),
    Modification("hook on logits", logits_hook, changes=False),
    Modification("hook on accumulated gradients", accumulate_hook, changes=False),
    Modification("hook on all modules", global_hook),
    Modification("patched layer", patched(one, lambda y: 1 - y)),
    Modification("layer patched by a closure", patched_by_closure),
    Modification("patched group sum", patched(head, lambda y: y - 2)),
    Modification("patched network", patched(itself, lambda y: 2 * y)),
    Modification("patched class", patch_class),
    Modification(
        "call of a class",
        replace_in_class(GroupSum, "__call__", call_twice_as_large),
    ),
    Modification(
        "hook by the call of all modules",
        replace_in_class(nn.Module, "__call__", call_twice_as_large),
    ),
    Modification(
        "patched method of the layers' class",
        replace_in_class(
            LogicLayer,
            "forward_features",
            lambda plain: lambda self, x, mode, noise: 1 - plain(self, x, mode, noise),
        ),
    ),
    Modification(
        "patched class of relaxations",
        replace_in_class(
            Relaxation,
            "training_weights",
            lambda plain: lambda self, z, g=None, *, tau=None: plain(self, z.flip(-1), g, tau=tau),
        ),
        changes=False,
    ),
    Modification("patched relaxation", patched_relaxation, changes=False),
    Modification("logits behind an attribute", shadowed_logits),
    Modification("renamed layer", renamed_layer, changes=False),
    Modification("layer in two places", layer_twice),
    Modification("negated view of logits", negated_view),
    Modification("overlapping logits", overlapping),
    Modification(
        "gradient factors a sample",
        lambda n: (
            [setattr(layer, "grad_factor", torch.full((1,), 2.0)) for layer in n.layers] and None
        ),
        changes=False,
    ),
    Modification(
        "network that calls a layer twice",
        lambda n: become(n, Looping),
        refuses=(("usage", "calls its layer 1 2 times where it should 1"),),
    ),
    Modification(
        "parametrised logits",
        lambda n: parametrize.register_parametrization(n.layers[1], "logits", Twice()) and None,
    ),
    Modification(
        "weight norm", lambda n: weight_norm(n.layers[1], "logits") and None, changes=False
    ),
    Modification("pruned logits", pruned),
    Modification("shared logits", share),
    Modification("frozen logits", frozen, changes=False),
    Modification("resized layers", wider),
    Modification(
        "re-typed layer",
        other_dtype,
        changes=False,
        refuses=(("probe", "the parameters mix dtypes"),),
    ),
    Modification(
        "mixed relaxations", mixed("relaxation", Soft(0.5)), refuses=(("evaluate", _MIXED),)
    ),
    Modification(
        "mixed hard relaxations",
        mixed("relaxation", HardST()),
        changes=False,
        refuses=(("evaluate", _MIXED),),
    ),
    Modification("mixed temperatures", retempered),
    Modification("mixed gradient factors", mixed("grad_factor", 2.0), changes=False),
    Modification("mixed backends", mixed("backend", "reference"), changes=False),
    Modification("rewired in place", rewired),
    Modification("rewired behind torch's back", rewired_behind_torch),
    Modification("another wiring", other_wiring),
    Modification("extra parameter", extra_parameter, changes=False),
    Modification("extra parameter on a layer", extra_on_layer, changes=False),
    Modification("extra module", extra_module, changes=False),
    Modification(
        "inserted module",
        inserted(nn.Identity()),
        changes=False,
        refuses=(("usage", "layer 1 is a Identity"),),
    ),
    Modification("layers in another order", swapped_order),
    Modification("layer taken out", dropped_layer),
    Modification("layer in eval mode", lambda n: n.layers[1].eval() and None, changes=False),
    Modification("another list of layers", plain_list, changes=False),
    Modification(
        "network that leaves a layer out",
        lambda n: become(n, Skipping),
        refuses=(("usage", "does not call its layers [1]"),),
    ),
    Modification("logits torn", torn, refuses=(("probe", "gates, and by hand it was given"),)),
    Modification(
        "layer without modes",
        lambda n: become(n.layers[1], Modeless),
        refuses=(("probe", "takes no mode and no draw"),),
    ),
)
