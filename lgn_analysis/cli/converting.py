"""``lgn-analysis convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.cli.output import echo
from lgn_analysis.cli.parsing import REAL, TEXT, WHOLE, one_of

_Whole = Annotated[int | None, WHOLE, arg(metavar="INT", help_behavior_hint="")]
_Real = Annotated[float | None, REAL, arg(metavar="FLOAT", help_behavior_hint="")]
_Text = Annotated[str | None, TEXT, arg(metavar="NAME", help_behavior_hint="")]


def convert(
    path: Annotated[Path, tyro.conf.Positional],
    *,
    out: Annotated[
        Path | None, arg(metavar="FILE", help_behavior_hint="(default: PATH.safetensors)")
    ] = None,
    n_features: _Whole = None,
    n_classes: _Whole = None,
    group_tau: _Real = None,
    n_groups: _Whole = None,
    relaxation: Annotated[str, one_of("soft", "hard-st", "gumbel-soft", "gumbel-st")] = "soft",
    tau: Annotated[float, REAL] = 1.0,
    grad_factor: Annotated[float, REAL] = 1.0,
    wiring_seed: _Whole = None,
    wiring: Annotated[str, one_of("unique", "random")] = "unique",
    wiring_split: Annotated[int, WHOLE] = 0,
    wiring_on_cpu: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    dataset: _Text = None,
    split: Annotated[str, one_of("train", "val", "test")] = "test",
    accuracy: _Real = None,
    freeze_connections: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    ignore: Annotated[tuple[str, ...], arg(metavar="NAME"), tyro.conf.UseAppendAction] = (),
) -> None:
    """Convert a file of difflogic, gumbel-lgn or torchlogix into one of this package.

    The file is what torch.save wrote of a state dict, or a checkpoint of gumbel-lgn, which says its sizes
    itself. Nothing in it is run. evaluate, probe and diagnose take the result.

    torchlogix, wiring in the file: lgn-analysis convert final_model.pt --n-features 784 --n-classes 10
    --group-tau 10

    difflogic, wiring from the seed and confirmed by an accuracy: lgn-analysis convert model.pt --n-features
    784 --n-classes 10 --group-tau 10 --wiring-seed 0 --wiring-split 60000 --dataset mnist --accuracy 0.97

    Args:
        path: the file.
        out: where to write the model.
        n_features: number of input bits; default those of --dataset.
        n_classes: number of classes; default those of --dataset.
        group_tau: tau of its GroupSum.
        n_groups: k of its GroupSum; default n_classes.
        relaxation: its training forward; that of difflogic is soft.
        tau: gate temperature of its training forward.
        grad_factor: grad_factor of its layers.
        wiring_seed: the seed that drew the wirings, where the file does not hold them; the result must
            then have --accuracy on --dataset.
        wiring: how they were drawn.
        wiring_split: length of a permutation that was drawn before them, for instance 60000 in difflogic's
            program for MNIST.
        wiring_on_cpu: the layers were made on a CPU.
        dataset: name of a data set with the bits that the network was trained on.
        split: which split --accuracy is of.
        accuracy: of the discrete network, to be met to 0.005.
        freeze_connections: take the wiring that learnable connections chose.
        ignore: name of a tensor to leave out, for instance 0.thresholds.
    """
    from lgn_analysis.checkpoints import save
    from lgn_analysis.data import load_dataset
    from lgn_analysis.gates.relaxations import make_relaxation
    from lgn_analysis.interop import Architecture, SeededWiring, load_foreign

    out = path.with_suffix(".safetensors") if out is None else out
    if out.exists():
        raise InvalidInputError(f"{out} exists; choose another --out")
    data = None if dataset is None else load_dataset(dataset)
    if data is not None:
        n_features, n_classes = n_features or data.n_features, n_classes or data.n_classes
    architecture = None
    if n_features is not None and n_classes is not None and group_tau is not None:
        architecture = Architecture(
            n_features,
            n_classes,
            group_tau,
            relaxation=make_relaxation(relaxation, tau),
            grad_factor=grad_factor,
            n_groups=n_groups,
        )
    elif group_tau is not None or (data is None and (n_features or n_classes)):
        raise InvalidInputError(
            "an architecture takes --n-features, --n-classes and --group-tau together; --dataset gives the "
            "first two"
        )
    model = load_foreign(
        path,
        architecture=architecture,
        wirings=None
        if wiring_seed is None
        else SeededWiring(wiring_seed, kind=wiring, split=wiring_split, on_cpu=wiring_on_cpu),
        data=data if accuracy is not None else None,
        split=split,
        accuracy=accuracy,
        freeze_connections=freeze_connections,
        ignore=ignore,
    )
    save(model, out)
    echo(f"{model.extra_repr()}, depth {model.depth}, {model.relaxation}", f"model: {out}")
