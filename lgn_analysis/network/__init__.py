"""Logic gate networks as PyTorch modules.

Public functions take ``[batch, features]``; inside, activations are ``[features, batch]``.

Modes: **soft** = weights ``softmax(z / tau)``, no noise, for every relaxation; **noisy** = the
relaxation's own random draw; **discrete** = ``argmax z`` on bits. ``train()`` runs the relaxation's
training forward, ``eval()`` the discrete one.
"""

from lgn_analysis.network.calling import call_layer, call_network
from lgn_analysis.network.group_sum import GroupSum
from lgn_analysis.network.inputs import as_bits, check_features
from lgn_analysis.network.layer import LogicLayer, check_choices
from lgn_analysis.network.modes import MODES, Mode
from lgn_analysis.network.network import LogicNetwork
from lgn_analysis.network.specification import (
    Specification,
    changed_by_hand,
    require_gates16,
    require_network,
    require_plain,
    specify,
)

__all__ = [
    "MODES",
    "GroupSum",
    "LogicLayer",
    "LogicNetwork",
    "Mode",
    "Specification",
    "as_bits",
    "call_layer",
    "call_network",
    "changed_by_hand",
    "check_choices",
    "check_features",
    "require_gates16",
    "require_network",
    "require_plain",
    "specify",
]
