"""How slow this machine is now, beside the one whose nanoseconds stand in :mod:`costs`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lgn_analysis.data import load_dataset
from lgn_analysis.experiments.measures import timing_table
from lgn_analysis.experiments.specs import RunSpec, TimingPlan
from lgn_analysis.experiments.sweep.compilation import compiled, parts_of
from lgn_analysis.experiments.sweep.costs import cost
from lgn_analysis.training.config import DataConfig, NetworkConfig, TrainingConfig

_SAMPLE: Final = RunSpec(
    data=DataConfig(),
    network=NetworkConfig(width=500, depth=2, group_tau=10.0),
    training=TrainingConfig(),
    timing=TimingPlan(("soft", "gumbel-st"), rounds=5, steps=200),
)
"""A third of a second, where costs were measured."""


def slowness_of(specs: Iterable[RunSpec]) -> float | None:
    """Return what training steps take now over what :func:`costs.cost` says; None where unknown.

    It is known of runs on this machine's CPU whose kernels are compiled already.
    """
    if any(spec.device != "cpu" for spec in specs) or not compiled(parts_of([_SAMPLE])):
        return None
    taken = timing_table(_SAMPLE, load_dataset(_SAMPLE.data.name))["seconds"].sum()
    return float(taken) / cost(_SAMPLE)
