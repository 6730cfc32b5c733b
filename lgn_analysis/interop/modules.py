"""Live modules of difflogic, gumbel-lgn and torchlogix as a LogicNetwork."""

from __future__ import annotations

from torch import nn

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.interop.agreement import check_agreement
from lgn_analysis.interop.assembly import assemble
from lgn_analysis.interop.recognition import found_group_sum, found_layer, is_flatten, sequence
from lgn_analysis.network import LogicNetwork


def convert(
    module: nn.Module,
    *,
    n_classes: int | None = None,
    freeze_connections: bool = False,
    check: bool = True,
) -> LogicNetwork:
    """Return a module of difflogic, gumbel-lgn or torchlogix 0.2.2 as a LogicNetwork of the same function.

    The module is an ``nn.Sequential``: ``Flatten``, if any, then ``LogicLayer`` (difflogic, gumbel-lgn)
    or ``LogicDense`` (torchlogix: fixed connections, ``lut_rank=2``, ``parametrization="raw"``), then
    ``GroupSum``. It is recognised by its structure; its project is not imported. The result takes bits
    [batch, n_features], holds copies of the logits and wirings, and is in the module's ``train()`` or
    ``eval()`` mode, on its device, in its dtype.

    Its training forward becomes a relaxation: ``softmax`` is ``Soft()``, ``gumbel`` is
    ``GumbelST(gumbel_tau)``; ``forward_sampling`` soft, hard, gumbel_soft and gumbel_hard are ``Soft``,
    ``HardST``, ``GumbelSoft`` and ``GumbelST`` at the module's temperature.

    Args:
        module: left as it is.
        n_classes: number of classes, where the group sum has idle groups; None is its ``k``.
        freeze_connections: take the wiring that learnable connections now choose, which then is fixed.
        check: run every layer beside the converted one: in ``eval()`` mode on random bits, where both
            must be equal, and in ``train()`` mode on random numbers, where outputs and gradients must be
            equal but for rounding, with the noise of torch's own Gumbel softmax. That a fork computes
            something else by the same names is found by this alone.

    Raises:
        InvalidInputError: it is no such module, or one that a LogicNetwork cannot represent, or it
            computes something else.
    """
    named = list(sequence(module))
    while named and is_flatten(*named[0]):
        del named[0]
    if len(named) < 2:
        raise InvalidInputError(
            "a network to convert has at least one logic layer and a GroupSum; this module has "
            f"{len(named)} part{'s' if len(named) != 1 else ''} beside Flatten"
        )
    *of_layers, last = named
    layers = [found_layer(*item, freeze_connections=freeze_connections) for item in of_layers]
    group_sum = found_group_sum(*last)
    parts = [part for _, part in of_layers]
    if len(set(map(id, (layer.logits for layer in layers)))) < len(parts):
        raise InvalidInputError(
            "two places of this module share their weights, and layers of a LogicNetwork have their "
            "own; copy them first, by copy.deepcopy"
        )
    network = assemble(layers, group_sum, n_classes)
    if check:
        check_agreement(named, network)
    return network.train(module.training)
