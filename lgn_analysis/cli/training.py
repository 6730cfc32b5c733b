"""``lgn-analysis train``."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Final

from tyro.conf import arg

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.cli.output import echo
from lgn_analysis.cli.parsing import REAL, WHOLE, one_of

_RELAXATIONS: Final = one_of("soft", "gumbel-soft", "gumbel-st", "hard-st", "cage")
_SCHEDULES: Final = one_of("constant", "linear", "exponential", "cosine")
_WIRINGS: Final = one_of("random", "unique")
_INITS: Final = one_of("normal", "residual")
_DTYPES: Final = one_of("float32", "float64")


def _flag(metavar: str, default: str) -> Any:
    """Return how ``--help`` shows a flag whose default comes from a configuration."""
    return arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


_CONFIG_FLAGS = frozenset(
    [
        "dataset",
        "thresholds",
        "width",
        "depth",
        "group_tau",
        "relaxation",
        "tau",
        "tau_schedule",
        "tau_end",
        "tau_steps",
        "cage_tau_max",
        "cage_tau_min",
        "cage_decay",
        "wiring",
        "init",
        "n_groups",
        "grad_factor",
        "dtype",
        "steps",
        "batch_size",
        "lr",
        "seed",
        "eval_every",
    ]
)


def train(
    *,
    dataset: Annotated[str | None, _flag("NAME", "digits")] = None,
    thresholds: Annotated[int | None, WHOLE, _flag("INT", "the data set's own")] = None,
    width: Annotated[int | None, WHOLE, _flag("INT", "1000")] = None,
    depth: Annotated[int | None, WHOLE, _flag("INT", "3")] = None,
    group_tau: Annotated[float | None, REAL, _flag("FLOAT", "20")] = None,
    relaxation: Annotated[
        str | None, _RELAXATIONS, _flag(_RELAXATIONS.metavar, "gumbel-st")
    ] = None,
    tau: Annotated[float | None, REAL, _flag("FLOAT", "1")] = None,
    tau_schedule: Annotated[str | None, _SCHEDULES, _flag(_SCHEDULES.metavar, "constant")] = None,
    tau_end: Annotated[float | None, REAL, _flag("FLOAT", "none")] = None,
    tau_steps: Annotated[int | None, WHOLE, _flag("INT", "all steps")] = None,
    cage_tau_max: Annotated[float | None, REAL, _flag("FLOAT", "3")] = None,
    cage_tau_min: Annotated[float | None, REAL, _flag("FLOAT", "0.5")] = None,
    cage_decay: Annotated[float | None, REAL, _flag("FLOAT", "0.99")] = None,
    wiring: Annotated[str | None, _WIRINGS, _flag(_WIRINGS.metavar, "random")] = None,
    init: Annotated[str | None, _INITS, _flag(_INITS.metavar, "normal")] = None,
    n_groups: Annotated[int | None, WHOLE, _flag("INT", "the classes")] = None,
    grad_factor: Annotated[float | None, REAL, _flag("FLOAT", "1")] = None,
    dtype: Annotated[str | None, _DTYPES, _flag(_DTYPES.metavar, "float32")] = None,
    steps: Annotated[int | None, WHOLE, _flag("INT", "20000")] = None,
    batch_size: Annotated[int | None, WHOLE, _flag("INT", "128")] = None,
    lr: Annotated[float | None, REAL, _flag("FLOAT", "0.01")] = None,
    seed: Annotated[int | None, WHOLE, _flag("INT", "0")] = None,
    eval_every: Annotated[int | None, WHOLE, _flag("INT", "a fiftieth of the steps")] = None,
    out: Annotated[Path | None, _flag("DIR", "runs/DATA-RELAXATION-SHAPE-SEED")] = None,
    config: Annotated[Path | None, _flag("FILE", "none")] = None,
    resume: Annotated[Path | None, _flag("DIR", "none")] = None,
    device: str = "cpu",
    progress: bool = True,
) -> None:
    """Train a logic gate network and write a run directory.

    Example: lgn-analysis train --dataset digits --width 2000 --depth 2 --group-tau 10 --steps 3000

    Args:
        dataset: name of a data set; `lgn-analysis datasets` lists them.
        thresholds: number of thermometer thresholds.
        width: gates a layer, a multiple of the classes.
        depth: number of layers.
        group_tau: group-sum temperature.
        relaxation: soft is the noise-free DLGN, gumbel-st the GLGN of the paper, hard-st and cage
            select gates without noise.
        tau: gate temperature, with a schedule that of the first step.
        tau_schedule: how the gate temperature moves to --tau-end.
        tau_end: gate temperature that a schedule moves to.
        tau_steps: steps that the schedule takes.
        cage_tau_max: temperature of CAGE's gradient at no confidence.
        cage_tau_min: temperature of CAGE's gradient at full confidence.
        cage_decay: how much of its confidence CAGE keeps at each step.
        wiring: which inputs the gates read.
        init: initial logits; residual starts with gates that pass an input on.
        n_groups: output groups, where more than classes.
        grad_factor: multiplies the gradient at each layer's input.
        dtype: dtype of the logits.
        steps: optimiser steps; with --resume a new total.
        batch_size: samples a step.
        lr: Adam's learning rate.
        seed: draws wiring, logits, data order and noise.
        eval_every: steps between evaluations.
        out: run directory.
        config: a config.toml of an earlier run, or a YAML file of the paper's reference code; flags
            given beside it win.
        resume: continue the run in this directory to the same bits; only --steps and --device go
            with it.
        device: torch device.
        progress: show a progress bar.
    """
    from lgn_analysis.base.distributed import process_group
    from lgn_analysis.base.validation import usable_device

    given = {
        name: value
        for name, value in locals().items()
        if name in _CONFIG_FLAGS and value is not None
    }
    with process_group(usable_device(device)) as own_device:
        if resume is None:
            _train_anew(given, config, out, own_device, progress)
        elif set(given) - {"steps"} or config is not None or out is not None:
            raise InvalidInputError(
                f"--resume takes everything but --steps from {resume}; leave the other flags out"
            )
        else:
            _train_on(resume, steps, own_device, progress)


def _train_on(run: Path, steps: int | None, device: Any, progress: bool) -> None:
    from lgn_analysis.training import runs

    _, result = runs.resume(run, steps=steps, device=device, progress=progress)
    echo(result, f"run directory: {run}")


def _compile_kernels(relaxation: str, device: Any, progress: bool) -> None:
    """Compile what training on a CPU calls, with a bar, unless it is silent or ranks share a batch."""
    from lgn_analysis.base import distributed
    from lgn_analysis.experiments.sweep.compilation import compile_kernels, training_part

    if progress and str(device) == "cpu" and distributed.world()[1] == 1:
        compile_kernels((training_part(relaxation), "evaluation"))


def _train_anew(
    given: dict[str, Any], config: Path | None, out: Path | None, device: Any, progress: bool
) -> None:
    from lgn_analysis.data import load_dataset
    from lgn_analysis.training import runs
    from lgn_analysis.training.config import (
        DataConfig,
        NetworkConfig,
        RunConfig,
        TrainingConfig,
        read_config,
    )
    from lgn_analysis.training.preflight import check_run
    from lgn_analysis.training.run_directory import RunDirectory

    settings, notes = (RunConfig(), []) if config is None else read_config(config)
    for note in notes:
        echo(f"note: {note}")
    if given.get("tau_schedule") == "constant":
        # A schedule in the file goes, and what belongs to it.
        given = {"tau_end": None, "tau_steps": None, **given}

    def overridden(section: Any) -> Any:
        names = {item.name for item in fields(section)} & set(given)
        return replace(section, **{name: given[name] for name in names})

    data_config: DataConfig = settings.data
    thresholds = given.get("thresholds")
    if "dataset" in given:
        data_config = DataConfig(given["dataset"], thresholds)
    elif thresholds is not None:
        data_config = DataConfig(data_config.name, thresholds)
    network: NetworkConfig = overridden(settings.network)
    schedule: TrainingConfig = overridden(settings.training)
    data = load_dataset(data_config.name, data_config.thresholds)
    if "batch_size" not in given and schedule.batch_size > (n_train := len(data.y_train)):
        echo(
            f"note: batch_size {schedule.batch_size} exceeds the {n_train} training samples of "
            f"{data.name!r}: every step takes all of them"
        )
        schedule = replace(schedule, batch_size=n_train)
    if data_config.fingerprint not in (None, data.fingerprint):
        echo(f"note: {data.name!r} is not the data that {config} was written for")
    model = network.build(data).to(device)
    if out is None:
        shape = f"{network.depth}x{network.width}"
        out = Path("runs") / f"{data.name}-{network.relaxation}-{shape}-seed{schedule.seed}"
    directory = RunDirectory(out)
    directory.refuse_used()
    run = RunConfig(data=data_config, network=network, training=schedule)
    check_run(model, data, run, directory, callbacks=())
    echo(data, model.extra_repr())
    _compile_kernels(network.relaxation, device, progress)
    result = runs.train(
        model,
        data,
        **{item.name: getattr(schedule, item.name) for item in fields(schedule)},
        out=out,
        progress=progress,
    )
    echo(result, f"run directory: {out}")
