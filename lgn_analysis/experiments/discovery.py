"""The experiments there are: every module beside this one that makes a frame."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import lgn_analysis.experiments as package
from lgn_analysis.experiments.costs import Estimate, estimate_runs
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.specs import RunSpec


def experiments() -> dict[str, Any]:
    """Return the experiments by name, in alphabetical order."""
    names = [item.name for item in pkgutil.iter_modules(package.__path__)]
    modules = {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "frame")}


def all_specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of all experiments, each once."""
    found = {spec.key: spec for module in experiments().values() for spec in module.specs(preset)}
    return list(found.values())


def estimate(preset: Preset) -> Estimate:
    """Return what all runs of a preset cost, before any is made: seconds and peak memory."""
    return estimate_runs(all_specs(preset))
