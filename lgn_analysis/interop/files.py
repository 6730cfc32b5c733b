"""State dicts and checkpoints of difflogic, gumbel-lgn and torchlogix."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import CheckpointError, InvalidInputError
from lgn_analysis.base.validation import positive, real, shown, whole
from lgn_analysis.data import Dataset
from lgn_analysis.gates.relaxations import GumbelST, Relaxation, Soft
from lgn_analysis.interop.assembly import FoundGroupSum, FoundLayer, assemble
from lgn_analysis.interop.seeds import SeededWiring, confirm
from lgn_analysis.interop.state_dicts import StoredLayer, stored_layers
from lgn_analysis.network import LogicNetwork
from lgn_analysis.network.layer import check_relaxation

_CHECKPOINT: Final = ("model_state", "config")
"""What tells a checkpoint of gumbel-lgn from a state dict."""
_GUMBEL_LGN_FEATURES: Final = 3 * 32 * 32 * 31
_GUMBEL_LGN_GROUPS: Final = 100
_GUMBEL_LGN_CLASSES: Final = {"CIFAR10": 10, "CIFAR100": 100}


@dataclass(frozen=True)
class Architecture:
    """What a state dict does not say of its network.

    Attributes:
        n_features: number of input bits.
        n_classes: number of classes.
        group_tau: ``tau`` of its GroupSum.
        relaxation: its training forward; difflogic's is ``Soft()``, gumbel-lgn's
            ``GumbelST(gumbel_tau)`` or ``Soft()``.
        grad_factor: that of its layers.
        n_groups: ``k`` of its GroupSum; None is n_classes.
    """

    n_features: int
    n_classes: int
    group_tau: float
    relaxation: Relaxation = field(default_factory=Soft)
    grad_factor: float = 1.0
    n_groups: int | None = None

    def __post_init__(self) -> None:
        whole("n_features", self.n_features, least=1)
        whole("n_classes", self.n_classes, least=1)
        positive("group_tau", self.group_tau)
        real("grad_factor", self.grad_factor)
        check_relaxation(self.relaxation)


def load_foreign(
    path: str | os.PathLike[str],
    *,
    architecture: Architecture | None = None,
    wirings: SeededWiring | Sequence[Tensor] | None = None,
    data: Dataset | tuple[Tensor, Tensor] | None = None,
    split: str = "test",
    accuracy: float | None = None,
    freeze_connections: bool = False,
    ignore: Sequence[str] = (),
) -> LogicNetwork:
    """Return the network in a file of difflogic, gumbel-lgn or torchlogix, in ``eval()`` mode.

    The file is a state dict that ``torch.save`` wrote, or a checkpoint of gumbel-lgn, which also holds its
    configuration. It is read with ``weights_only=True``: nothing in it is run. Wirings that it holds are
    used. Those that it does not hold are never guessed: they are given, or drawn again from a seed that is
    named and confirmed by an accuracy.

    Args:
        path: the file.
        architecture: what it does not say; None for a checkpoint of gumbel-lgn.
        wirings: int64 [2, n_out] for each layer, or how they were drawn; only for a file without.
        data: bits and classes on which ``accuracy`` is known.
        split: which split of a Dataset.
        accuracy: of the discrete network on ``data``; with a :class:`SeededWiring` it is needed.
        freeze_connections: take the wiring that learnable connections chose.
        ignore: names of tensors in the file that are to be left out, for instance the thresholds of a
            binarization in front, whose bits the network takes.

    Raises:
        CheckpointError: there is no such file, or it holds no such network.
        InvalidInputError: something is missing or does not fit, or the accuracy is another.
    """
    content = read_tensors(Path(path))
    if all(key in content for key in _CHECKPOINT):
        state, config = content["model_state"], content["config"]
        if not isinstance(state, Mapping) or not isinstance(config, Mapping):
            raise CheckpointError(
                f"{path} has the keys of a checkpoint of gumbel-lgn and not its content"
            )
        architecture = architecture or _gumbel_lgn(config)
    else:
        state, config = content, {}
    if architecture is None:
        raise InvalidInputError(
            f"{path} is a state dict, which does not say its sizes and temperatures; give "
            "architecture=lgn.Architecture(n_features, n_classes, group_tau)"
        )
    try:
        stored = stored_layers(state, ignore=ignore, freeze_connections=freeze_connections)
    except InvalidInputError as error:
        raise CheckpointError(f"{path}: {error}") from error
    depth = config.get("num_layers", len(stored))
    if depth != len(stored):
        raise CheckpointError(
            f"{path} holds {len(stored)} layers and its configuration says {shown(depth)}; it is damaged"
        )
    seed = config.get("seed")
    network = _network(
        str(path), architecture, _wired(str(path), architecture, stored, wirings, seed)
    )
    if isinstance(wirings, SeededWiring) or data is not None or accuracy is not None:
        if data is None or accuracy is None:
            raise InvalidInputError(
                "a wiring drawn again from a seed is a guess until it is confirmed; give data=(x, y) "
                "and the accuracy that the discrete network has on it"
            )
        confirm(network, data, split, accuracy)
    return network.eval()


def read_tensors(path: Path) -> Mapping[str, Any]:
    """Return what ``torch.save`` wrote of a dictionary, without running anything in it."""
    if not path.is_file():
        raise CheckpointError(f"there is no file at {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a reader meets in arbitrary bytes
        raise CheckpointError(
            f"{path} holds no plain tensors that torch.load reads ({type(error).__name__}); where its "
            "project is installed, write torch.save(module.state_dict(), path)"
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__} and no state dict; write "
            "torch.save(module.state_dict(), path)"
        )
    return content


def _wired(
    path: str,
    architecture: Architecture,
    stored: Sequence[StoredLayer],
    wirings: SeededWiring | Sequence[Tensor] | None,
    seed: object,
) -> list[tuple[StoredLayer, Tensor]]:
    """Return each layer with its wiring: the file's own, or that which is given."""
    lacking = [layer.name for layer in stored if layer.wiring is None]
    if not lacking:
        if wirings is not None:
            raise InvalidInputError(f"{path} holds its wirings; leave wirings out")
        return [(layer, layer.wiring) for layer in stored if layer.wiring is not None]
    if len(lacking) < len(stored):
        raise CheckpointError(
            f"{path} holds the wirings of some layers and not of {', '.join(lacking)}; save it anew"
        )
    if wirings is None:
        named = "" if seed is None else f" (its configuration names the seed {shown(seed)})"
        raise InvalidInputError(
            f"{path} does not hold its wiring, without which its weights are no network; give "
            f"wirings=[…], one tensor [2, n_out] a layer, or wirings=lgn.SeededWiring(seed){named} with "
            "data and the accuracy on it"
        )
    if isinstance(wirings, SeededWiring):
        widths = [len(layer.logits) for layer in stored]
        sizes = zip([architecture.n_features, *widths[:-1]], widths, strict=True)
        wirings = wirings.draw(list(sizes))
    if len(wirings) != len(stored) or not all(isinstance(pairs, Tensor) for pairs in wirings):
        raise InvalidInputError(
            f"wirings must be {len(stored)} tensors, one a layer, got {len(wirings)} items; "
            "give int64 [2, n_out] each"
        )
    return list(zip(stored, wirings, strict=True))


def _network(
    path: str, architecture: Architecture, wired: Sequence[tuple[StoredLayer, Tensor]]
) -> LogicNetwork:
    n_in, layers = architecture.n_features, []
    for stored, wiring in wired:
        name = f"layer {stored.name} of {path}"
        layers.append(
            FoundLayer(
                name,
                n_in,
                stored.logits.clone().requires_grad_(True),
                wiring,
                architecture.relaxation,
                float(architecture.grad_factor),
            )
        )
        n_in = len(stored.logits)
    n_groups = architecture.n_groups or architecture.n_classes
    return assemble(layers, FoundGroupSum(n_groups, architecture.group_tau), architecture.n_classes)


def _gumbel_lgn(config: Mapping[str, Any]) -> Architecture:
    """Return what the configuration in a checkpoint of gumbel-lgn says: 100 groups, 31 thresholds."""
    dataset, stochastic = str(config.get("dataset", "CIFAR10")).upper(), config.get("stochastic")
    if dataset not in _GUMBEL_LGN_CLASSES or stochastic not in ("softmax", "gumbel"):
        raise CheckpointError(
            f"the checkpoint's configuration has dataset {shown(config.get('dataset'))} and stochastic "
            f"{shown(stochastic)}, and gumbel-lgn knows CIFAR10 and CIFAR100, softmax and gumbel; give "
            "architecture=lgn.Architecture(…)"
        )
    if "tau" not in config:
        raise CheckpointError(
            "the checkpoint's configuration has no tau, the group-sum temperature; give "
            "architecture=lgn.Architecture(…)"
        )
    relaxation = GumbelST(config.get("gumbel_tau", 1.0)) if stochastic == "gumbel" else Soft()
    return Architecture(
        _GUMBEL_LGN_FEATURES,
        _GUMBEL_LGN_CLASSES[dataset],
        config["tau"],
        relaxation=relaxation,
        grad_factor=config.get("grad_factor", 1.0),
        n_groups=_GUMBEL_LGN_GROUPS,
    )
