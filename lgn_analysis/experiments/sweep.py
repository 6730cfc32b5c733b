"""Runs as data: a spec goes in, a record comes out, and a finished record is never made twice.

A record is a folder of CSVs named by the hash of its spec and of the format of records. It is
written beside its place and renamed into it, so a sweep that is killed keeps every finished run.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch
from tqdm.auto import tqdm

from lgn_analysis.data import load_dataset
from lgn_analysis.errors import LGNError
from lgn_analysis.hessian import HessianProbe, lemma1
from lgn_analysis.metrics import gate_usage
from lgn_analysis.network import LogicNetwork
from lgn_analysis.runs import DataConfig, NetworkConfig, TrainingConfig
from lgn_analysis.training import train

RECORD_FORMAT: Final = 3

TABLES: Final = ("history", "usage", "curvature", "density", "lemma")


@dataclass(frozen=True)
class ProbePlan:
    """What is measured of the curvature, on the first ``samples`` of the training split.

    Attributes:
        trace_steps: training steps at which the trace is estimated.
        trace_probes: activation-space probes of each estimate.
        density_probes: probes of the spectral density at the end; 0 leaves it out.
        density_steps: Lanczos steps of each of them.
        lemma_steps: training steps at which Lemma 1 is measured; none leaves it out.
        lemma_scales: its noise scales.
        lemma_draws: noise draws at each scale.
        lemma_trace_probes: probes of the trace that Lemma 1 predicts with.
    """

    samples: int = 256
    trace_steps: tuple[int, ...] = ()
    trace_probes: int = 4
    density_probes: int = 0
    density_steps: int = 40
    lemma_steps: tuple[int, ...] = ()
    lemma_scales: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    lemma_draws: int = 64
    lemma_trace_probes: int = 8


@dataclass(frozen=True)
class RunSpec:
    """One training run with its probes, everything that determines its record."""

    data: DataConfig
    network: NetworkConfig
    training: TrainingConfig
    probes: ProbePlan = field(default_factory=ProbePlan)

    @property
    def key(self) -> str:
        """Name of the record: a hash of the content."""
        content = json.dumps({"format": RECORD_FORMAT, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """A short name for a person."""
        net = self.network
        return f"{net.relaxation} tau={net.tau:g} {net.depth}x{net.width} seed {self.training.seed}"

    @property
    def columns(self) -> dict[str, Any]:
        """What distinguishes the run, as columns of its tables."""
        net = self.network
        return {
            "run": self.key,
            "dataset": self.data.name,
            "relaxation": net.relaxation,
            "tau": net.tau,
            "width": net.width,
            "depth": net.depth,
            "group_tau": net.group_tau,
            "init": net.init,
            "steps": self.training.steps,
            "seed": self.training.seed,
        }


@dataclass(frozen=True)
class Records:
    """The tables of many runs, each with the columns that distinguish the runs.

    Attributes:
        tables: by name, one frame over all runs; see :data:`TABLES`.
        failures: a sentence for each run that failed, by label.
    """

    tables: dict[str, pd.DataFrame]
    failures: dict[str, str]

    def of(self, specs: Iterable[RunSpec], table: str) -> pd.DataFrame:
        """Return the rows of ``table`` that belong to ``specs``."""
        frame = self.tables[table]
        keys = [spec.key for spec in specs]
        return frame[frame["run"].isin(keys)].reset_index(drop=True)


def run_sweep(
    specs: Sequence[RunSpec],
    *,
    cache: Path,
    workers: int = 1,
    executor: Executor | None = None,
    progress: bool = True,
) -> Records:
    """Return the records of all specs, running those that the cache lacks.

    Args:
        specs: the runs; equal ones run once.
        cache: folder of the records.
        workers: local processes, one torch thread each; used when no executor is given.
        executor: anything with the interface of ``concurrent.futures``.
        progress: show one progress bar for the whole.
    """
    unique = {spec.key: spec for spec in specs}
    cache.mkdir(parents=True, exist_ok=True)
    missing = [spec for key, spec in unique.items() if not (cache / key).is_dir()]
    failures: dict[str, str] = {}
    own = executor is None and bool(missing)
    if executor is None and missing:
        executor = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
        )
    # The longest first, so that no worker is left alone with one at the end.
    missing.sort(key=_cost, reverse=True)
    bar = tqdm(
        total=sum(_cost(spec) for spec in missing),
        desc=f"{len(missing)} runs",
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}",
        disable=not progress or not missing,
    )
    try:
        if executor is not None:
            futures = {executor.submit(execute, spec, cache): spec for spec in missing}
            for future in as_completed(futures):
                spec = futures[future]
                try:
                    future.result()
                except LGNError as error:
                    failures[spec.label] = str(error)
                bar.set_postfix_str(spec.label)
                bar.update(_cost(spec))
    finally:
        bar.close()
        if own and executor is not None:
            executor.shutdown(cancel_futures=True)
    done = [spec for spec in unique.values() if (cache / spec.key).is_dir()]
    tables = {name: _gather(done, cache, name) for name in TABLES}
    return Records(tables, failures)


def execute(spec: RunSpec, cache: Path) -> Path:
    """Run one spec and return the folder of its record."""
    place = cache / spec.key
    if place.is_dir():
        return place
    started = time.perf_counter()
    data = load_dataset(spec.data.name, spec.data.thresholds)
    model = spec.network.build(data)
    plan = spec.probes
    samples = (data.x_train[: plan.samples], data.y_train[: plan.samples])
    curvature: list[dict[str, float]] = []

    lemmas: list[pd.DataFrame] = []

    def probe(step: int, network: LogicNetwork, row: dict[str, float]) -> None:
        if step in plan.trace_steps:
            curvature.append({"step": step, **_trace_row(network, samples, plan)})
        if step in plan.lemma_steps:
            lemmas.append(_lemma_frame(network, samples, plan).assign(step=step))

    training = spec.training
    result = train(
        model,
        data,
        **asdict(training),
        progress=False,
        callbacks=[probe],
    )
    tables = {
        "history": result.history,
        "usage": gate_usage(model, data),
        "curvature": pd.DataFrame(curvature),
        "density": _density_frame(model, samples, plan),
        "lemma": pd.concat(lemmas, ignore_index=True) if lemmas else pd.DataFrame(),
    }
    facts = {**asdict(spec), "seconds": time.perf_counter() - started, "torch": torch.__version__}
    temporary = Path(tempfile.mkdtemp(prefix=f".{spec.key}.", dir=cache))
    try:
        for name, frame in tables.items():
            if not frame.empty:
                frame.to_csv(temporary / f"{name}.csv", index=False)
        (temporary / "spec.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
        if not place.is_dir():
            temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def _trace_row(
    model: LogicNetwork, samples: tuple[torch.Tensor, torch.Tensor], plan: ProbePlan
) -> dict[str, float]:
    probe = HessianProbe(model, samples)
    trace = probe.trace(n_probes=plan.trace_probes)
    tau = model.relaxation.tau
    return {
        "loss": probe.loss(),
        "trace_z": trace.estimate,
        "trace_z_stderr": trace.stderr,
        "trace_u": trace.estimate * tau**2,
        "trace_u_stderr": trace.stderr * tau**2,
        "n_matvecs": trace.n_matvecs,
    }


def _density_frame(
    model: LogicNetwork, samples: tuple[torch.Tensor, torch.Tensor], plan: ProbePlan
) -> pd.DataFrame:
    if not plan.density_probes:
        return pd.DataFrame()
    density = HessianProbe(model, samples).density(
        n_probes=plan.density_probes, steps=plan.density_steps
    )
    return density.to_frame()


def _lemma_frame(
    model: LogicNetwork, samples: tuple[torch.Tensor, torch.Tensor], plan: ProbePlan
) -> pd.DataFrame:
    return lemma1(
        model,
        samples,
        scales=plan.lemma_scales,
        draws=plan.lemma_draws,
        trace_probes=plan.lemma_trace_probes,
    )


def _gather(specs: Sequence[RunSpec], cache: Path, table: str) -> pd.DataFrame:
    frames = []
    for spec in specs:
        path = cache / spec.key / f"{table}.csv"
        if path.is_file():
            frame = pd.read_csv(path)
            for position, (column, value) in enumerate(spec.columns.items()):
                # A table's own tau is the run's, and its own width would be too.
                if column in frame:
                    frame = frame.drop(columns=column)
                frame.insert(position, column, value)
            frames.append(frame)
    if not frames:
        return pd.DataFrame(columns=["run"])
    return pd.concat(frames, ignore_index=True)


def _cost(spec: RunSpec) -> float:
    """Return a rough cost in gate evaluations, for order and for the progress bar."""
    gates = spec.network.width * spec.network.depth
    plan = spec.probes
    products = (
        len(plan.trace_steps) * plan.trace_probes
        + plan.density_probes * plan.density_steps
        + len(plan.lemma_steps) * (len(plan.lemma_scales) * plan.lemma_draws / 4)
        + len(plan.lemma_steps) * plan.lemma_trace_probes
    )
    return gates * (spec.training.steps * spec.training.batch_size + 6 * products * plan.samples)


def _start_worker() -> None:
    """One torch thread, and an end with the parent, which a killed parent would not bring about."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: Any) -> None:
    parent.join()
    os._exit(1)
