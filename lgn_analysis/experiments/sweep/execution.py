"""Runs as data: a spec goes in, a record comes out, and a finished record is never made twice.

A record is a folder of CSVs named by the hash of its spec and of the format of records. It is
written beside its place and renamed into it, so a sweep that is killed keeps every finished run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pandas as pd
import torch

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.data import Dataset
from lgn_analysis.experiments import measures
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.failures import Failure
from lgn_analysis.experiments.sweep.record import new_record, write_record
from lgn_analysis.metrics import gate_usage
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training.runs import train

TABLES: Final = (
    "history",
    "usage",
    "curvature",
    "density",
    "lemma",
    "anatomy",
    "landscape",
    "timing",
    "signal",
    "hard_lemma",
    "alignment",
    "usage_by_step",
)


@dataclass(frozen=True)
class Records:
    """The tables of many runs, each with the columns that distinguish the runs.

    Attributes:
        tables: by name, one frame over all runs; see :data:`TABLES`.
        failures: the runs among them that failed.
    """

    tables: dict[str, pd.DataFrame]
    failures: tuple[Failure, ...] = ()

    def of(self, specs: Iterable[RunSpec], table: str) -> pd.DataFrame:
        """Return the rows of ``table`` that belong to ``specs``."""
        frame = self.tables[table]
        keys = [spec.key for spec in specs]
        return frame[frame["run"].isin(keys)].reset_index(drop=True)


def execute(spec: RunSpec, cache: Path) -> Path:
    """Run one spec and return the folder of its record.

    Raises:
        InvalidInputError: the spec needs a device that is not here.
    """
    place = cache / spec.key
    if place.is_dir():
        return place
    if spec.device.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidInputError(
            f"{spec.label} is made for a CUDA device, and torch sees none; choose another preset"
        )
    started = time.perf_counter()
    data = spec.data.load()
    if spec.timing is None:
        tables = _train_and_measure(spec, data)
    else:
        tables = {"timing": measures.timing_table(spec, data)}
    facts = {**asdict(spec), "seconds": time.perf_counter() - started, "torch": torch.__version__}
    with new_record(cache, spec.key) as folder:
        write_record(folder, tables, facts)
    return place


def _train_and_measure(spec: RunSpec, data: Dataset) -> dict[str, pd.DataFrame]:
    plan = spec.probes
    model = spec.network.build(data).to(spec.device)
    samples = (data.x_train[: plan.samples], data.y_train[: plan.samples])
    at_step = {
        "curvature": (plan.trace_steps, measures.trace_table),
        "lemma": (plan.lemma_steps, measures.lemma_table),
        "anatomy": (plan.anatomy_steps, measures.anatomy_table),
        "hard_lemma": (plan.hard_lemma_steps, measures.hard_lemma_table),
    }
    parts: dict[str, list[pd.DataFrame]] = {
        name: [] for name in [*at_step, "signal", "usage_by_step"]
    }

    def measure(step: int, network: LogicNetwork, row: dict[str, float]) -> None:
        for name, (steps, table) in at_step.items():
            if step in steps:
                parts[name].append(table(network, samples, plan).assign(step=step))
        if step in plan.signal_steps:
            signals = measures.signal_table(network, data, spec)
            parts["signal"].append(signals.assign(step=step))
        if step in plan.usage_steps:
            parts["usage_by_step"].append(gate_usage(network, data).assign(step=step))

    alignment = measures.alignment_table(model, data, spec)
    result = train(model, data, **asdict(spec.training), progress=False, callbacks=[measure])
    seed = spec.training.seed
    return {
        "history": result.history,
        "usage": measures.usage_table(model, data),
        "alignment": alignment,
        "density": measures.density_table(model, samples, plan),
        "landscape": measures.landscape_table(model, samples, plan, seed=seed),
        **{
            name: pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
            for name, tables in parts.items()
        },
    }
