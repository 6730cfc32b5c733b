"""Where the numbers come from: the JSON beside every CSV."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

import lgn_analysis
from lgn_analysis.errors import InvalidInputError
from lgn_analysis.experiments import Preset, RunSpec
from lgn_analysis.experiments.failures import Failure

Facts = dict[str, Any]
"""Preset and its description, seeds, keys of the runs, command, commit, device, versions, and
``failures``: a row a run that failed."""

_VERSIONED: Final = ("torch", "numpy", "scipy", "pandas", "matplotlib", "scikit-learn")


def write_facts(
    path: Path, specs: Sequence[RunSpec], preset: Preset, failures: Sequence[Failure]
) -> None:
    """Write where the rows of an experiment come from.

    Args:
        path: the JSON file.
        specs: the experiment's runs.
        preset: the preset that they belong to.
        failures: those of any runs; only this experiment's are written.
    """
    keys = sorted({spec.key for spec in specs})
    facts: Facts = {
        "preset": preset.name,
        "description": preset.description,
        "seeds": sorted({spec.training.seed for spec in specs}),
        "runs": keys,
        "failures": [failure.to_row() for failure in failures if failure.key in keys],
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "device": _device(specs),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in _VERSIONED},
    }
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def read_facts(folder: Path, name: str) -> Facts:
    """Return the facts of an experiment; empty where there are none.

    Raises:
        InvalidInputError: the file is no JSON.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        return {}
    try:
        facts: Facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInputError(
            f"{path} is not valid JSON ({error}); `lgn-analysis reproduce` writes it again"
        ) from error
    return facts


def _device(specs: Sequence[RunSpec]) -> str:
    said = f"CPU, {platform.machine()}, {platform.system()}"
    if any(spec.device != "cpu" for spec in specs):
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "CUDA, on workers"
        said = f"{gpu}; {said}"
    return said


def _commit() -> str:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"lgn_analysis {lgn_analysis.__version__}, not in a git checkout"
