"""``lgn-analysis train`` and ``diagnose``: their flags are the fields of the configuration."""

from __future__ import annotations

from dataclasses import Field, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

from tyro.conf import arg

from lgn_analysis import theory, training
from lgn_analysis.base.distributed import process_group, world
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import usable_device
from lgn_analysis.cli.output import echo
from lgn_analysis.cli.parsing import flag_type
from lgn_analysis.data import relabelled
from lgn_analysis.data.registry import random_dataset
from lgn_analysis.training.config import DataConfig, NetworkConfig, RunConfig, TrainingConfig
from lgn_analysis.training.config_files import read_config
from lgn_analysis.training.preflight import check_run
from lgn_analysis.training.run_directory import RunDirectory

_TABLES: Final = {"data": DataConfig, "network": NetworkConfig, "training": TrainingConfig}
_RENAMED: Final = {("data", "name"): "dataset"}


def _flags() -> dict[str, list[tuple[str, Field[Any]]]]:
    """Return each flag's name with the tables and fields that it sets."""
    found: dict[str, list[tuple[str, Field[Any]]]] = {}
    for table, kind in _TABLES.items():
        for item in fields(kind):
            if "help" in item.metadata:
                flag = _RENAMED.get((table, item.name), item.name)
                found.setdefault(flag, []).append((table, item))
    return found


_FLAGS: Final = _flags()


def _group(table: str) -> Any:
    """Return a dataclass of optional flags, those whose first table this is."""
    members = []
    for flag, places in _FLAGS.items():
        if places[0][0] == table:
            text = "; ".join(item.metadata["help"] for _, item in places)
            members.append((flag, flag_type(_TABLES[table], places[0][1], text), None))
    made = make_dataclass(f"{table.title()}Options", members, frozen=True)
    return Annotated[made, arg(name="")]


_DataOptions: Any = _group("data")
_NetworkOptions: Any = _group("network")
_TrainingOptions: Any = _group("training")
_Directory = Annotated[
    Path | None, arg(metavar="DIR", help_behavior_hint="(default: runs/DATA-RELAXATION-SHAPE-SEED)")
]
_File = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: none)")]
_Resumed = Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: none)")]


def train(
    data: _DataOptions,
    network: _NetworkOptions,
    optimisation: _TrainingOptions,
    *,
    out: _Directory = None,
    config: _File = None,
    resume: _Resumed = None,
    device: str = "cpu",
    progress: bool = True,
) -> None:
    """Train a logic gate network and write a run directory.

    Example: lgn-analysis train --dataset digits --width 2000 --depth 2 --group-tau 10 --steps 3000

    Args:
        data: the data.
        network: the network.
        optimisation: its training.
        out: run directory.
        config: a config.toml of an earlier run, or a YAML file of the paper's reference code; flags
            given beside it win.
        resume: continue the run in this directory to the same bits; only --steps (a new total) and
            --device go with it.
        device: torch device.
        progress: show a progress bar.
    """
    given = _given(data, network, optimisation)
    with process_group(usable_device(device)) as own_device:
        if resume is None:
            _train_anew(given, config, out, own_device, progress)
        elif set(given) - {"steps"} or config is not None or out is not None:
            raise InvalidInputError(
                f"--resume takes everything but --steps from {resume}; leave the other flags out"
            )
        else:
            _, result = training.resume(
                resume, steps=given.get("steps"), device=own_device, progress=progress
            )
            echo(result, f"run directory: {resume}")


def diagnose(
    data: _DataOptions,
    network: _NetworkOptions,
    optimisation: _TrainingOptions,
    *,
    config: _File = None,
    run: Annotated[
        Path | None, arg(metavar="PATH", help_behavior_hint="(default: a network before training)")
    ] = None,
    random_bits: bool = False,
    device: str = "cpu",
) -> None:
    """Say whether a network will train, which layers stand still, and what to change.

    The flags are those of train; nothing is trained, it takes seconds.

    Example: lgn-analysis diagnose --dataset digits --width 1000 --depth 12 --relaxation soft --group-tau 10

    Args:
        data: the data.
        network: the network.
        optimisation: its training.
        config: a config.toml of a run, or a YAML file of the paper's reference code; flags given beside
            it win.
        run: a run directory, of which the last model is diagnosed for the steps that --steps says.
        random_bits: take random bits of the data set's shape in place of its files, on which gradients
            before training hardly depend.
        device: torch device.
    """
    given = _given(data, network, optimisation)
    settings = RunConfig()
    if config is not None:
        settings, _ = read_config(config)
    model = None
    if run is not None:
        if config is not None or set(given) & {item.name for item in fields(NetworkConfig)}:
            raise InvalidInputError(
                "--run brings its network; leave out --config and what builds one"
            )
        checkpoint = RunDirectory(run).read()[0]
        model, settings = checkpoint.model, RunConfig.from_dict(checkpoint.info["run"])
    settings = _configured(given, settings)
    if random_bits:
        plain = random_dataset(settings.data.name, settings.data.thresholds)
        loaded = relabelled(plain, settings.data.labels, seed=settings.data.label_seed)
    else:
        loaded = settings.data.load()
    if model is None:
        model = settings.network.build(loaded)
    optimiser = settings.training
    found = theory.diagnose(
        model.to(usable_device(device)),
        loaded,
        steps=optimiser.steps,
        lr=optimiser.lr,
        eps=optimiser.eps,
        draws_per_step=optimiser.draws_per_step,
        batch_size=optimiser.batch_size,
        seed=optimiser.seed,
    )
    echo(loaded, model.extra_repr(), found, found.to_frame().to_string(index=False))


def _given(*groups: Any) -> dict[str, Any]:
    """Return the options that are not left out."""
    return {
        name: value
        for options in groups
        for name, value in vars(options).items()
        if value is not None
    }


def _configured(given: dict[str, Any], settings: RunConfig) -> RunConfig:
    """Return the configuration with what was given beside it."""
    if given.get("tau_schedule") == "constant":
        # A schedule in the file goes, and what belongs to it.
        given = {"tau_end": None, "tau_steps": None, **given}
    if "lr_schedule" in given:  # the same, with its warm-up
        given = {"warmup_steps": None, "cosine_steps": None, **given}
    if "dataset" in given:
        settings = replace(settings, data=DataConfig(given["dataset"]))
    elif {"thresholds", "labels", "label_seed"} & given.keys():
        settings = replace(settings, data=replace(settings.data, fingerprint=None))
    changes: dict[str, dict[str, Any]] = {table: {} for table in _TABLES}
    for flag in given:
        for table, item in _FLAGS[flag]:
            changes[table][item.name] = given[flag]
    return RunConfig(
        **{table: replace(getattr(settings, table), **values) for table, values in changes.items()}
    )


def _train_anew(
    given: dict[str, Any], config: Path | None, out: Path | None, device: Any, progress: bool
) -> None:
    settings, notes = (RunConfig(), []) if config is None else read_config(config)
    for note in notes:
        echo(f"note: {note}")
    settings = _configured(given, settings)
    data = settings.data.load()
    n_train = len(data.y_train)
    if "batch_size" not in given and settings.training.batch_size > n_train:
        echo(
            f"note: batch_size {settings.training.batch_size} exceeds the {n_train} training "
            f"samples of {data.name!r}: every step takes all of them"
        )
        settings = replace(settings, training=replace(settings.training, batch_size=n_train))
    if settings.data.fingerprint not in (None, data.fingerprint):
        echo(f"note: {data.name!r} is not the data that {config} was written for")
    network, optimisation = settings.network, settings.training
    model = network.build(data).to(device)
    if out is None:
        shape = f"{network.depth}x{network.width}"
        out = Path("runs") / f"{data.name}-{network.relaxation}-{shape}-seed{optimisation.seed}"
    directory = RunDirectory(out)
    directory.refuse_used()
    check_run(model, data, settings, directory, callbacks=())
    echo(data, model.extra_repr())
    _compile_kernels(network.relaxation, device, progress)
    result = training.train(
        model,
        data,
        **{item.name: getattr(optimisation, item.name) for item in fields(optimisation)},
        out=out,
        progress=progress,
    )
    echo(result, f"run directory: {out}")


def _compile_kernels(relaxation: str, device: Any, progress: bool) -> None:
    """Compile what training on a CPU calls, with a bar, unless it is silent or ranks share a batch."""
    from lgn_analysis.experiments.sweep.compilation import compile_kernels, training_part

    if progress and str(device) == "cpu" and world()[1] == 1:
        compile_kernels((training_part(relaxation), "evaluation"))
