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
from lgn_analysis.base.errors import DamagedFileError, InvalidInputError
from lgn_analysis.base.files import checksum, replacing
from lgn_analysis.experiments import Preset, RunSpec
from lgn_analysis.experiments.sweep.failures import Failure

FORMAT: Final = 1
Facts = dict[str, Any]
"""Format, checksums of the CSVs, preset and its description, seeds, keys of the runs, command, commit, device, versions, and
``failures``: a row a run that failed."""

_VERSIONED: Final = ("torch", "numpy", "scipy", "pandas", "matplotlib", "scikit-learn")


def write_facts(
    folder: Path,
    name: str,
    specs: Sequence[RunSpec],
    preset: Preset,
    failures: Sequence[Failure],
) -> None:
    """Write where the rows of an experiment come from, and the checksums of its CSVs.

    Args:
        folder: the folder that holds the CSVs already.
        name: the experiment.
        specs: the experiment's runs.
        preset: the preset that they belong to.
        failures: those of any runs; only this experiment's are written.
    """
    keys = sorted({spec.key for spec in specs})
    written = [folder / f"{name}{suffix}" for suffix in (".csv", ".effects.csv")]
    facts: Facts = {
        "format": FORMAT,
        "checksums": {path.name: _checksum(path) for path in written if path.is_file()},
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
    with replacing(folder / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _checksum(path: Path) -> str:
    # A checkout may end its lines otherwise, and the rows are the same.
    return checksum(path.read_bytes().replace(b"\r\n", b"\n"))


def require_intact(folder: Path, name: str) -> None:
    """Raise unless the CSVs of an experiment are those that its facts, if there are any, speak of.

    Raises:
        DamagedFileError: a CSV was changed or lost after it was written, or is of another version.
    """
    facts = read_facts(folder, name)
    if not facts:
        return
    if facts.get("format") != FORMAT:
        raise DamagedFileError(
            f"{folder / name}.json has format {facts.get('format')}, this package reads {FORMAT}; "
            "run `lgn-analysis reproduce` again"
        )
    for file, written in facts["checksums"].items():
        if not (folder / file).is_file() or _checksum(folder / file) != written:
            raise DamagedFileError(
                f"{folder / file} is not the one that {name}.json speaks of: it was changed or lost "
                "after the runs; `lgn-analysis reproduce` writes it again"
            )


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
    device = f"CPU, {platform.machine()}, {platform.system()}"
    if any(spec.device != "cpu" for spec in specs):
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "CUDA, on workers"
        device = f"{gpu}; {device}"
    return device


def _commit() -> str:
    """Return the commit of the package's code, dirty where the code has changed since."""
    try:
        changed = _git("status", "--porcelain", "--", ".")
        return _git("describe", "--always") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return f"lgn_analysis {lgn_analysis.__version__}, not in a git checkout"


def _git(*words: str) -> str:
    folder = Path(lgn_analysis.__file__).parent
    return subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, check=True, text=True
    ).stdout.strip()
