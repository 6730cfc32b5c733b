"""Free memory, and an error before an allocation that cannot fit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch

from lgn_analysis.base.errors import InvalidInputError

MEMINFO: Final = Path("/proc/meminfo")
CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUPS: Final = Path("/proc/self/cgroup")

_NO_LIMIT: Final = 2**60
"""Control groups of the first version write a larger number where there is no limit."""


def require_memory(
    n_bytes: int,
    what: str,
    advice: str,
    *,
    device: torch.device | str = "cpu",
    error: type[InvalidInputError] = InvalidInputError,
) -> None:
    """Raise unless ``n_bytes`` are free; where free memory is unknown, nothing is refused.

    Args:
        n_bytes: what is going to be allocated, predicted.
        what: what takes it, a plural: "the activations of 12 x 64000 gates on 4096 samples".
        advice: what to do about it: "lower batch_size".
        device: where.
        error: what is raised.

    Raises:
        InvalidInputError: naming both sizes.
    """
    free = available_memory(device)
    if free is None or n_bytes <= free:
        return
    place = "" if torch.device(device).type == "cpu" else f" on {device}"
    raise error(
        f"{what} need {format_bytes(n_bytes)} and {format_bytes(free)} are free{place}; {advice}"
    )


def available_memory(device: torch.device | str = "cpu") -> int | None:
    """Return the bytes that a new allocation can count on, or None where that is unknown.

    On a GPU: free memory of the driver, and what PyTorch holds unused. On Linux: MemAvailable of
    /proc/meminfo (free pages alone would leave out the page cache, which is given back on demand) and
    the limits of the control groups that containers and job schedulers set. Elsewhere: the machine's
    physical memory.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    if device.type != "cpu":
        return None
    known = [n_bytes for n_bytes in (machine_memory(), *_group_memory()) if n_bytes is not None]
    return min(known, default=None)


def format_bytes(n_bytes: int) -> str:
    """Return a size in the unit that fits it.

    >>> format_bytes(12 * 2**30), format_bytes(3 * 2**19), format_bytes(0)
    ('12 GiB', '1.5 MiB', '0 bytes')
    """
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if n_bytes >= unit:
            size = n_bytes / unit
            return f"{size:.3g} {name}" if size < 1000 else f"{size:.0f} {name}"
    return f"{n_bytes / 2**10:.3g} KiB" if n_bytes >= 2**10 else f"{n_bytes} bytes"


def machine_memory() -> int | None:
    """Return the free memory of the machine, or None where it is unknown."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found.group(1)) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None


def _group_memory() -> Iterator[int]:
    """Yield what is left in each control group of this process that has a limit."""
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            names = ("memory.max", "memory.current", "inactive_file")
            folder = CGROUPS
        elif "memory" in kinds.split(","):
            names = (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
            folder = CGROUPS / "memory"
        else:
            continue
        own = folder / path.lstrip("/")
        # In a container the path may be that of the host, of which only the root is to be seen.
        for group in {folder, *(place for place in (own, *own.parents) if folder in place.parents)}:
            left = _left(group, *names)
            if left is not None:
                yield left


def _left(group: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """Return a group's limit less what it uses, its page cache left out; None without a limit."""
    try:
        allowed = (group / limit).read_text().strip()
        if not allowed.isdigit() or int(allowed) > _NO_LIMIT:  # "max"
            return None
        used, stat = (group / usage).read_text(), (group / "memory.stat").read_text()
    except OSError:
        return None
    cache = re.search(rf"^{reclaimable} (\d+)$", stat, re.MULTILINE)
    return max(0, int(allowed) - int(used) + (int(cache.group(1)) if cache else 0))
