"""The experiments there are: every module in ``claims``."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from lgn_analysis.experiments import claims
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.costs import Estimate, estimate_runs


def experiments() -> dict[str, Any]:
    """Return the experiments by name, in alphabetical order."""
    names = [item.name for item in pkgutil.iter_modules(claims.__path__)]
    return {name: importlib.import_module(f"{claims.__name__}.{name}") for name in names}


def all_specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of all experiments, each once."""
    found = {spec.key: spec for module in experiments().values() for spec in module.specs(preset)}
    return list(found.values())


def estimate(preset: Preset) -> Estimate:
    """Return what all runs of a preset cost, before any is made: seconds and peak memory."""
    return estimate_runs(all_specs(preset))
