"""The commands: ``lgn-analysis train | evaluate | probe | reproduce | figures | datasets``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import arg

from lgn_analysis.errors import InvalidInputError, LGNError

Relaxations = Literal["soft", "gumbel-soft", "gumbel-st", "hard-st"]
Wirings = Literal["random", "unique"]
Inits = Literal["normal", "residual"]
Dtypes = Literal["float32", "float64"]
_RELAXATIONS = "{soft,gumbel-soft,gumbel-st,hard-st}"


def _flag(metavar: str, default: str) -> Any:
    """Return how ``--help`` shows a flag whose default comes from a configuration."""
    return arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


def train(
    *,
    dataset: Annotated[str | None, _flag("NAME", "digits")] = None,
    thresholds: Annotated[int | None, _flag("INT", "the data set's own")] = None,
    width: Annotated[int | None, _flag("INT", "1000")] = None,
    depth: Annotated[int | None, _flag("INT", "3")] = None,
    group_tau: Annotated[float | None, _flag("FLOAT", "20")] = None,
    relaxation: Annotated[Relaxations | None, _flag(_RELAXATIONS, "gumbel-st")] = None,
    tau: Annotated[float | None, _flag("FLOAT", "1")] = None,
    wiring: Annotated[Wirings | None, _flag("{random,unique}", "random")] = None,
    init: Annotated[Inits | None, _flag("{normal,residual}", "normal")] = None,
    n_groups: Annotated[int | None, _flag("INT", "the classes")] = None,
    grad_factor: Annotated[float | None, _flag("FLOAT", "1")] = None,
    dtype: Annotated[Dtypes | None, _flag("{float32,float64}", "float32")] = None,
    steps: Annotated[int | None, _flag("INT", "20000")] = None,
    batch_size: Annotated[int | None, _flag("INT", "128")] = None,
    lr: Annotated[float | None, _flag("FLOAT", "0.01")] = None,
    seed: Annotated[int | None, _flag("INT", "0")] = None,
    eval_every: Annotated[int | None, _flag("INT", "a fiftieth of the steps")] = None,
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
        relaxation: soft is the noise-free DLGN, gumbel-st the GLGN of the paper.
        tau: gate temperature.
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
    from lgn_analysis.ranks import process_group

    given = {
        name: value
        for name, value in locals().items()
        if name in _CONFIG_FLAGS and value is not None
    }
    with process_group(device) as own_device:
        if resume is None:
            _train_anew(given, config, out, own_device, progress)
        elif set(given) - {"steps"} or config is not None or out is not None:
            raise InvalidInputError(
                f"--resume takes everything but --steps from {resume}; leave the other flags out"
            )
        else:
            _train_on(resume, steps, own_device, progress)


def evaluate(
    path: Annotated[Path, tyro.conf.Positional],
    *,
    dataset: str | None = None,
    split: Literal["train", "val", "test"] = "test",
    noise_draws: int = 8,
) -> None:
    """Evaluate a model: soft, noisy and discrete accuracy and loss, the gap, and gate usage.

    Args:
        path: a run directory (its best model is taken), or a .safetensors file.
        dataset: name of the data set; default that of the run.
        split: which split.
        noise_draws: noise draws behind the noisy figures.
    """
    from lgn_analysis.metrics import evaluate as evaluate_model
    from lgn_analysis.metrics import gate_usage

    model, data = _model_and_data(path, dataset)
    result = evaluate_model(model, data, split=split, noise_draws=noise_draws)
    _say(result.to_frame().T.to_string(header=False), "")
    usage = gate_usage(model, data)
    _say(usage[["layer", "n_gates", "entropy", "unused", "constant", "unreachable"]].to_string())


def probe(
    path: Annotated[Path, tyro.conf.Positional],
    *,
    dataset: str | None = None,
    samples: int = 256,
    what: tuple[Literal["trace", "eigs", "density"], ...] = ("trace", "eigs"),
    k: int = 10,
    rtol: float = 0.05,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Probe the Hessian of a model's soft loss in its logits, on training samples.

    Args:
        path: a run directory (its best model is taken), or a .safetensors file.
        dataset: name of the data set; default that of the run.
        samples: how many training samples the loss is a mean over.
        what: any of trace (Hutchinson), eigs and density (Lanczos).
        k: number of eigenvalues, half at each end.
        rtol: half-width of the trace's 95 % interval, relative to the trace.
        seed: seed of the probe vectors.
        progress: show a progress bar.
    """
    from lgn_analysis.hessian import HessianProbe

    model, data = _model_and_data(path, dataset)
    operator = HessianProbe(model, (data.x_train[:samples], data.y_train[:samples]))
    _say(operator)
    if "trace" in what:
        _say(operator.trace(rtol=rtol, seed=seed, progress=progress))
    if "eigs" in what:
        _say(operator.eigs(k=k, which="BE", seed=seed, progress=progress))
    if "density" in what:
        _say(operator.density(seed=seed, progress=progress))


def reproduce(
    *,
    preset: str = "quick",
    claims: Annotated[str, arg(metavar="C1,C2,…")] = "",
    out: Path = Path("figures"),
    cache: Path = Path("runs/cache"),
    workers: int = 2,
    progress: bool = True,
) -> None:
    """Train and probe noise-free and noisy networks, draw the figures, write the ledger of claims.

    Finished runs are kept in the cache: stop it and start it again, and no run is repeated.

    Args:
        preset: quick (minutes, the default) or smoke (seconds, decides nothing).
        claims: decide only these, separated by commas; default all.
        out: folder for CSVs, figures and claims.md.
        cache: folder of finished runs.
        workers: processes, one thread each.
        progress: show progress bars.
    """
    from lgn_analysis import report

    chosen = tuple(claim.strip() for claim in claims.split(",") if claim.strip())
    result = report.reproduce(
        preset, claims=chosen, out=out, cache=cache, workers=workers, progress=progress
    )
    for verdict in result.verdicts:
        _say(f"{verdict.claim.id:<16} {verdict.outcome:<13} {report.format_effect(verdict)}")
    for label, reason in result.failures.items():
        _say(f"failed: {label}: {reason}")
    _say(f"figures and ledger: {out}/ (start with {out / 'claims.md'})")
    if result.failures:
        raise InvalidInputError(f"{len(result.failures)} runs failed; they are listed above")


def figures(
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    *,
    folder: Path = Path("figures"),
) -> None:
    """Draw figures again from their CSVs alone.

    Args:
        names: which figures; default all.
        folder: where the CSVs are and the figures go.
    """
    from lgn_analysis import report

    for name in names or report.experiment_names():
        for path in report.draw(name, folder):
            _say(path)


def datasets() -> None:
    """List the data sets, their sizes, and what each needs."""
    from lgn_analysis.data import DATASETS

    _say(f"{'name':<15} {'bits':>6} {'classes':>7} {'train':>6} {'val':>6} {'test':>6}  needs")
    for spec in DATASETS.values():
        sizes = " ".join(f"{size:>6}" for size in spec.sizes)
        need = f"lgn_analysis[{spec.needs}]" if spec.needs else "nothing more"
        if not spec.offline:
            need += ", a download" if spec.needs else ""
            need = need.replace("nothing more", "a download")
        _say(f"{spec.name:<15} {spec.n_features:>6} {spec.n_classes:>7} {sizes}  {need}")
        _say(f"{'':<15} {spec.description}")


COMMANDS: dict[str, Any] = {
    "train": train,
    "evaluate": evaluate,
    "probe": probe,
    "reproduce": reproduce,
    "figures": figures,
    "datasets": datasets,
}

_CONFIG_FLAGS = frozenset(
    [
        "dataset",
        "thresholds",
        "width",
        "depth",
        "group_tau",
        "relaxation",
        "tau",
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


def main(args: Sequence[str] | None = None) -> int:
    """Run a command; an error of the user is one sentence and exit status 2."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="lgn-analysis",
            description="Theory and analysis of logic gate networks.",
            args=None if args is None else list(args),
        )
    except LGNError as error:
        print(f"lgn-analysis: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lgn-analysis: stopped; a run directory resumes, a sweep goes on", file=sys.stderr)
        return 130
    return 0


def _train_on(run: Path, steps: int | None, device: Any, progress: bool) -> None:
    from lgn_analysis import training

    _, result = training.resume(run, steps=steps, device=device, progress=progress)
    _say(result, f"run directory: {run}")


def _train_anew(
    given: dict[str, Any], config: Path | None, out: Path | None, device: Any, progress: bool
) -> None:
    from lgn_analysis import training
    from lgn_analysis.data import load_dataset
    from lgn_analysis.runs import DataConfig, NetworkConfig, RunConfig, TrainingConfig, read_config

    settings, notes = (RunConfig(), []) if config is None else read_config(config)
    for note in notes:
        _say(f"note: {note}")

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
    if data_config.fingerprint not in (None, data.fingerprint):
        _say(f"note: {data.name!r} is not the data that {config} was written for")
    model = network.build(data).to(device)
    if out is None:
        shape = f"{network.depth}x{network.width}"
        out = Path("runs") / f"{data.name}-{network.relaxation}-{shape}-seed{schedule.seed}"
    _say(data, model.extra_repr())
    result = training.train(
        model,
        data,
        **{item.name: getattr(schedule, item.name) for item in fields(schedule)},
        out=out,
        progress=progress,
    )
    _say(result, f"run directory: {out}")


def _say(*lines: object) -> None:
    from lgn_analysis.ranks import world

    if world()[0] == 0:
        for line in lines:
            print(line)


def _model_and_data(path: Path, dataset: str | None) -> tuple[Any, Any]:
    from lgn_analysis.checkpoints import read_checkpoint
    from lgn_analysis.data import load_dataset
    from lgn_analysis.runs import RunConfig
    from lgn_analysis.training import BEST_FILE

    checkpoint = read_checkpoint(path / BEST_FILE if path.is_dir() else path)
    if dataset is not None:
        return checkpoint.model, load_dataset(dataset)
    if "run" not in checkpoint.info:
        raise InvalidInputError(f"{path} does not say what it was trained on; give --dataset NAME")
    config = RunConfig.from_dict(checkpoint.info["run"], source=str(path)).data
    return checkpoint.model, load_dataset(config.name, config.thresholds)


if __name__ == "__main__":
    sys.exit(main())
