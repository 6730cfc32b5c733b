"""Joins each claim's experiment to its figure and writes CSVs, figures and the ledger of claims.

``experiments/x.py`` → ``figures/x.csv`` (what the figure shows), ``figures/x.effects.csv`` (what
the verdict rests on), ``figures/x.json`` (where it comes from) → ``plots/x.py`` →
``figures/x.png`` and ``figures/x.pdf``.
"""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pandas as pd
from tqdm.auto import tqdm

import lgn_analysis.experiments
from lgn_analysis.errors import InvalidInputError
from lgn_analysis.experiments import Preset, RunSpec, Verdict, find_preset, open_claims, run_sweep
from lgn_analysis.plots import style

LEDGER: Final = "claims"
_VERSIONED: Final = ("torch", "numpy", "scipy", "pandas", "matplotlib", "scikit-learn")


@dataclass(frozen=True)
class Report:
    """What a reproduction came to.

    Attributes:
        verdicts: the ledger, a verdict a claim and measure.
        failures: a sentence for each run that failed, by its label.
        folder: where figures and ledger were written.
    """

    verdicts: list[Verdict]
    failures: dict[str, str]
    folder: Path

    def to_frame(self) -> pd.DataFrame:
        """Return the ledger."""
        return pd.DataFrame([verdict.to_row() for verdict in self.verdicts])


def experiment_names() -> list[str]:
    """Return the experiments: every module of ``experiments`` that makes a frame."""
    names = [item.name for item in pkgutil.iter_modules(lgn_analysis.experiments.__path__)]
    return [name for name in names if hasattr(_experiment(name), "frame")]


def reproduce(
    preset: str = "quick",
    *,
    claims: Sequence[str] = (),
    out: Path = Path("figures"),
    cache: Path = Path("runs/cache"),
    workers: int = 2,
    progress: bool = True,
) -> Report:
    """Run the experiments of a preset, draw their figures and write the ledger.

    Args:
        preset: name of the preset.
        claims: decide only these (``C1``, ``C8`` …); empty for all.
        out: folder of CSVs, figures and ledger.
        cache: folder of finished runs; a run that is there is not made again.
        workers: local processes.
        progress: show progress bars.

    Raises:
        InvalidInputError: an unknown preset or claim.
    """
    chosen = find_preset(preset)
    names = _select(claims)
    specs = list(dict.fromkeys(spec for name in names for spec in _experiment(name).specs(chosen)))
    records = run_sweep(specs, cache=cache, workers=workers, progress=progress)
    out.mkdir(parents=True, exist_ok=True)
    verdicts: list[Verdict] = []
    for name in tqdm(names, desc="figures", disable=not progress):
        experiment = _experiment(name)
        frame = experiment.frame(records, chosen)
        _write_tables(out, name, frame, experiment, chosen)
        verdicts += experiment.verdicts(frame)
        draw(name, out)
    if not claims:
        verdicts += open_claims.verdicts()
    verdicts.sort(key=_claim_order)
    write_ledger(verdicts, chosen, records.failures, out)
    return Report(verdicts, records.failures, out)


def draw(name: str, folder: Path) -> list[Path]:
    """Draw one figure from its CSV alone and return the files written.

    Raises:
        InvalidInputError: there is no such figure, or its CSV is missing.
    """
    if name not in experiment_names():
        raise InvalidInputError(
            f"unknown figure {name!r}; use one of {', '.join(experiment_names())}"
        )
    source = folder / f"{name}.csv"
    if not source.is_file():
        raise InvalidInputError(f"{source} is missing; `lgn-analysis reproduce` makes it")
    frame = pd.read_csv(source)
    plot = importlib.import_module(f"lgn_analysis.plots.{name}")
    options = getattr(_experiment(name), "FIGURE_OPTIONS", {})
    files = [folder / f"{name}.png", folder / f"{name}.pdf"]
    with style():
        figure = plot.figure(frame, **options)
        # No dates and no versions inside: equal data make equal files.
        figure.savefig(files[0], metadata={"Software": None})
        figure.savefig(files[1], metadata={"CreationDate": None, "Producer": None})
    return files


def write_ledger(
    verdicts: Sequence[Verdict], preset: Preset, failures: dict[str, str], folder: Path
) -> None:
    """Write ``claims.csv`` with every digit and ``claims.md`` for reading."""
    table = pd.DataFrame([verdict.to_row() for verdict in verdicts])
    table.to_csv(folder / f"{LEDGER}.csv", index=False)
    (folder / f"{LEDGER}.md").write_text(ledger_text(verdicts, preset, failures), encoding="utf-8")


def ledger_text(verdicts: Sequence[Verdict], preset: Preset, failures: dict[str, str]) -> str:
    """Return the ledger as Markdown."""
    lines = [
        "# Claims of *Mind the Gap*, measured here",
        "",
        f"Preset `{preset.name}`: {preset.description}. Effects are oriented so that a positive",
        "difference, or a factor above 1, is what the paper claims; intervals are t intervals over",
        "seeds. Metric, null (no effect) and smallest effect that counts were fixed in",
        "`lgn_analysis/experiments/` before the runs. A verdict speaks of its scale only.",
        "",
        "| claim | verdict | measured here | counts from | the paper | scale | rows |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_ledger_row(verdict) for verdict in verdicts]
    lines += ["", "What decided each verdict:", ""]
    lines += [
        f"- **{verdict.claim.id}** ({verdict.claim.metric}): {verdict.reason}."
        for verdict in verdicts
        if verdict.outcome != "untested"
    ]
    if failures:
        lines += ["", "Runs that failed:", ""]
        lines += [f"- {label}: {reason}" for label, reason in failures.items()]
    return "\n".join(lines) + "\n"


def format_effect(verdict: Verdict) -> str:
    """Return the effect with its interval, in the claim's unit; ratios as factors."""
    if math.isnan(verdict.effect):
        return "–"
    values = [verdict.effect, verdict.low, verdict.high]
    if verdict.claim.log:
        values = [math.exp(value) for value in values]
    effect, low, high = (f"{value:.3g}" for value in values)
    return f"{effect} {verdict.claim.unit} [{low}, {high}]".replace("  ", " ")


def _ledger_row(verdict: Verdict) -> str:
    claim = verdict.claim
    if verdict.outcome == "untested":
        return f"| {claim.id}: {claim.title} | untested: {verdict.reason} | – | – | {claim.paper} | – | – |"
    smallest = math.exp(claim.smallest) if claim.log else claim.smallest
    return (
        f"| {claim.id}: {claim.title} | **{verdict.outcome}** | {format_effect(verdict)}, "
        f"n = {verdict.n} | {smallest:.3g} {claim.unit} | {claim.paper} | {verdict.scale} | "
        f"[{verdict.source}]({verdict.source}) |"
    )


def _write_tables(
    folder: Path, name: str, frame: pd.DataFrame, experiment: ModuleType, preset: Preset
) -> None:
    frame.to_csv(folder / f"{name}.csv", index=False)
    if experiment.CLAIMS:
        experiment.effects(frame).to_csv(folder / f"{name}.effects.csv", index=False)
    specs: list[RunSpec] = experiment.specs(preset)
    facts = {
        "preset": preset.name,
        "seeds": list(preset.seeds),
        "runs": sorted({spec.key for spec in specs}),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "device": f"CPU, {platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in _VERSIONED},
    }
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _commit() -> str:
    here = Path(__file__).parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=here,
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"lgn_analysis {lgn_analysis.__version__}, not in a git checkout"


def _experiment(name: str) -> Any:
    return importlib.import_module(f"lgn_analysis.experiments.{name}")


def _select(claims: Sequence[str]) -> list[str]:
    names = experiment_names()
    if not claims:
        return names
    known = {name: {claim.id.split()[0] for claim in _experiment(name).CLAIMS} for name in names}
    available = sorted(set().union(*known.values()), key=lambda claim: int(claim[1:]))
    for claim in claims:
        if claim not in available:
            raise InvalidInputError(
                f"no experiment decides {claim!r}; choose from {', '.join(available)}"
            )
    return [name for name in names if known[name] & set(claims)]


def _claim_order(verdict: Verdict) -> tuple[int, str]:
    number = verdict.claim.id.split()[0]
    return int(number[1:]), verdict.claim.id
