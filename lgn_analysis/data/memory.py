"""Refuse an encoding that cannot fit, before it is computed, with the numbers."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lgn_analysis.errors import DataError

_MEMINFO = Path("/proc/meminfo")


def available_memory() -> int | None:
    """Return the bytes that a new allocation can count on, or None where that is unknown.

    Linux says it in /proc/meminfo (free pages alone would leave out the page cache, which is given
    back on demand); elsewhere the machine's physical memory is the best that POSIX offers.
    """
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found.group(1)) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None


def require_memory(*, name: str, n_samples: int, n_values: int, n_thresholds: int) -> None:
    """Raise if the bits of a data set exceed the available memory.

    Args:
        name: the data set's name, for the message.
        n_samples: samples over all splits.
        n_values: values per sample before encoding.
        n_thresholds: bits per value.

    Raises:
        DataError: predicted size, available size, and the number of thresholds that fits.
    """
    available = available_memory()
    needed = n_samples * n_values * n_thresholds
    if available is None or needed <= available:
        return
    fits = available // (n_samples * n_values)
    advice = f"use thresholds={min(3, fits)}" if fits else "use a machine with more memory"
    raise DataError(
        f"{name!r} with {n_thresholds} thresholds needs {needed / 1e9:.2f} GB for its bits "
        f"({n_samples} samples of {n_values * n_thresholds} features, a byte each), and "
        f"{available / 1e9:.2f} GB are available; {advice}"
    )
