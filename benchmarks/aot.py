"""What do the CUDA kernels take of a GPU? Registers, spills and shared memory, without one.

    python benchmarks/aot.py

Compiles every kernel for sm_80 and sm_90 as training and evaluation launch it, and writes
``results/aot.csv`` with ``results/aot.json`` beside it. A block has ``warps · 32`` threads; ``warps
resident`` is how many warps the registers leave room for on a multiprocessor, of 64.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from harness import RESULTS, machine, no_options

REGISTERS = 65536
WARPS = 64


def main() -> int:
    no_options(__doc__)
    try:
        from lgn_analysis.kernels.cuda.runtime.aot import compile_launch, package_launches
    except ModuleNotFoundError as error:
        print(f"nothing to compile: {error.name} is not installed")
        return 0
    launches = package_launches()
    rows = [compile_launch(launch, capability) for capability in (80, 90) for launch in launches]
    frame = pd.DataFrame([asdict(row) | {"warps resident": resident(row)} for row in rows])
    frame = frame.sort_values(["capability", "kernel", "variant"]).drop_duplicates()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "aot.csv"
    frame.drop(columns="cubin").to_csv(path, index=False)
    facts = {
        "command": "python benchmarks/aot.py",
        "python": machine()["python"],
        "torch": machine()["torch"],
        "triton": machine()["triton"],
    }
    path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    summary = frame.groupby(["kernel", "capability"])[["registers", "spilled", "shared"]].max()
    print(summary.unstack().to_string())
    print(f"\nwritten: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return 0


def resident(row: Any) -> int:
    """Return the warps of a multiprocessor that the registers leave room for."""
    block = row.registers * 32 * row.warps
    return min(WARPS, REGISTERS // block * row.warps)


if __name__ == "__main__":
    sys.exit(main())
