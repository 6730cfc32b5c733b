"""``lgn-analysis evaluate``, ``probe`` and ``datasets``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.cli.output import echo
from lgn_analysis.cli.parsing import REAL, WHOLE, one_of


def evaluate(
    path: Annotated[Path, tyro.conf.Positional],
    *,
    dataset: str | None = None,
    split: Annotated[str, one_of("train", "val", "test")] = "test",
    noise_draws: Annotated[int, WHOLE] = 8,
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
    echo(result.to_frame().T.to_string(header=False), "")
    usage = gate_usage(model, data)
    echo(usage[["layer", "n_gates", "entropy", "unused", "constant", "unreachable"]].to_string())


def probe(
    path: Annotated[Path, tyro.conf.Positional],
    *,
    dataset: str | None = None,
    samples: Annotated[int, WHOLE] = 256,
    what: tuple[Literal["trace", "eigs", "density"], ...] = ("trace", "eigs"),
    k: Annotated[int, WHOLE] = 10,
    rtol: Annotated[float, REAL] = 0.05,
    seed: Annotated[int, WHOLE] = 0,
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
    from lgn_analysis.base.validation import seed_number, whole
    from lgn_analysis.hessian import HessianProbe

    if not what:
        raise InvalidInputError("there is nothing to probe; give --what trace, eigs or density")
    samples, seed = whole("samples", samples, least=1), seed_number(seed)
    model, data = _model_and_data(path, dataset)
    operator = HessianProbe(model, (data.x_train[:samples], data.y_train[:samples]))
    echo(operator)
    if "trace" in what:
        echo(operator.trace(rtol=rtol, seed=seed, progress=progress))
    if "eigs" in what:
        echo(operator.eigs(k=k, which="BE", seed=seed, progress=progress))
    if "density" in what:
        echo(operator.density(seed=seed, progress=progress))


def datasets() -> None:
    """List the data sets, their sizes, what each needs, and where its files were found."""
    from lgn_analysis.data.registry import DATASETS, data_root

    echo(f"{'name':<15} {'bits':>6} {'classes':>7} {'train':>6} {'val':>6} {'test':>6}  needs")
    for spec in DATASETS.values():
        sizes = " ".join(f"{size:>6}" for size in spec.sizes)
        folder = spec.find(data_root())
        needs = [f"lgn_analysis[{spec.needs}]"] if spec.needs and not folder else []
        if not (spec.offline or folder):
            needs.append("a download")
        need = ", ".join(needs) or "nothing more"
        echo(f"{spec.name:<15} {spec.n_features:>6} {spec.n_classes:>7} {sizes}  {need}")
        echo(f"{'':<15} {spec.description}" + (f"; found in {folder}" if folder else ""))


def _model_and_data(path: Path, dataset: str | None) -> tuple[Any, Any]:
    from lgn_analysis.checkpoints import read_checkpoint
    from lgn_analysis.data import load_dataset
    from lgn_analysis.training.config import RunConfig
    from lgn_analysis.training.run_directory import BEST_FILE

    checkpoint = read_checkpoint(path / BEST_FILE if path.is_dir() else path)
    if dataset is not None:
        return checkpoint.model, load_dataset(dataset)
    if "run" not in checkpoint.info:
        raise InvalidInputError(f"{path} does not say what it was trained on; give --dataset NAME")
    config = RunConfig.from_dict(checkpoint.info["run"], source=str(path)).data
    return checkpoint.model, config.load()
