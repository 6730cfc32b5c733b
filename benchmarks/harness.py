"""Timing in turns, and a description of the machine.

All variants of a comparison run in one process, in turns: a round runs each once. What else the
machine does then falls on all of them, and a ratio is taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

RESULTS: Final = Path(__file__).parent / "results"
SETTLE: Final = 0.02
"""Seconds between two variants, so that none runs on cores that the one before still holds."""
PACKAGES: Final = ("torch", "numba", "llvmlite", "numpy", "triton", "torchlogix")


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call over rounds: the median, the quartiles and the fastest."""

    median: float
    low: float
    high: float
    fastest: float
    rounds: int

    def __str__(self) -> str:
        return (
            f"{self.median:.3g} ms ({self.low:.3g} to {self.high:.3g}, fastest {self.fastest:.3g})"
        )


@dataclass(frozen=True)
class Variant:
    """Something to time: ``run()`` does ``calls`` of what is measured."""

    run: Callable[[], Any]
    calls: int = 1


def repeated(run: Callable[[], Any], *, at_least: float = 0.03) -> Variant:
    """Return as many calls in a row as fill a time, so that waking up does not count."""
    run()
    start = time.perf_counter()
    run()
    calls = max(1, round(at_least / (time.perf_counter() - start)))

    def repeat() -> None:
        for _ in range(calls):
            run()

    return Variant(repeat, calls)


def time_in_turns(
    variants: Mapping[str, Variant], *, rounds: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Return milliseconds a call of each variant, a value a round."""
    for variant in variants.values():
        for _ in range(warm_up):
            variant.run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            # OpenMP's threads spin for some milliseconds after their last work, on whoever's cores.
            time.sleep(SETTLE)
            start = time.perf_counter()
            variant.run()
            times[name].append(1e3 * (time.perf_counter() - start) / variant.calls)
    return times


def summary(times: list[float]) -> Timing:
    """Return the distribution of one variant's times."""
    low, median, high = quartiles(times)
    return Timing(median, low, high, min(times), len(times))


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return the 25 %, 50 % and 75 % points."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def ratio(slow: list[float], fast: list[float]) -> tuple[float, float, float]:
    """Return quartiles of how many times faster ``fast`` was, round by round."""
    return quartiles([a / b for a, b in zip(slow, fast, strict=True)])


def machine() -> dict[str, Any]:
    """Describe the machine, without naming it."""
    return {
        "cpu": _cpu_model(),
        "vector_units": _vector_units(),
        "logical_cores": os.cpu_count(),
        "threads_used": torch.get_num_threads(),
        "memory_gib": round(_memory_bytes() / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def write_results(name: str, results: Mapping[str, Any]) -> Path:
    """Write ``results/NAME-CPU.json`` with the machine's description, and return its path."""
    RESULTS.mkdir(exist_ok=True)
    described = machine()
    slug = re.sub(r"[^a-z0-9]+", "-", f"{described['gpu'] or described['cpu']}".lower()).strip("-")
    path = RESULTS / f"{name}-{slug}-{described['logical_cores']}-cores.json"
    path.write_text(
        json.dumps({"machine": described, **results}, indent=2) + "\n", encoding="utf-8"
    )
    return path


def as_json(times: dict[str, list[float]]) -> dict[str, Any]:
    """Return the distributions of all variants as plain values, rounded to four digits."""
    return {
        name: {key: float(f"{value:.4g}") for key, value in asdict(summary(values)).items()}
        for name, values in times.items()
    }


def no_options(description: str | None) -> None:
    """Answer ``--help``, and refuse any other argument, of a script that takes none."""
    form = argparse.RawTextHelpFormatter
    argparse.ArgumentParser(description=description, formatter_class=form).parse_args()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    info = _read("/proc/cpuinfo")
    model, family = _field(info, "model name"), _field(info, "cpu family")
    if model is None:
        return platform.processor() or platform.machine()
    return f"{model} family {family} model {_field(info, 'model')}"


def _vector_units() -> str:
    flags = set((_field(_read("/proc/cpuinfo"), "flags") or "").split())
    return ", ".join(unit for unit in ("avx2", "avx512f", "asimd") if unit in flags)


def _memory_bytes() -> int:
    total = _field(_read("/proc/meminfo"), "MemTotal")
    return int(total.split()[0]) * 1024 if total else 0


def peak_memory_bytes() -> int:
    """Return the most memory that this process has held at once, 0 where the system does not say."""
    # Not getrusage: a child inherits its parent's peak.
    peak = _field(_read("/proc/self/status"), "VmHWM")
    return int(peak.split()[0]) * 1024 if peak else 0


def _field(text: str, name: str) -> str | None:
    found = re.search(rf"^{name}\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found.group(1).strip() if found else None


def _read(path: str) -> str:
    file = Path(path)
    return file.read_text(encoding="utf-8") if file.exists() else ""
