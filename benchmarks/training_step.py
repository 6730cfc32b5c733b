"""How long does one training step take, in every way that one can take it?

    python benchmarks/training_step.py               # everything, some ten minutes
    python benchmarks/training_step.py --quick       # fewer rounds, no scaling

A step is forward, cross-entropy, backward and Adam. All contenders run in one process, in turns, so
that a ratio is taken within a round. Results go to ``benchmarks/results/``; ``benchmarks/README.md``
explains them. torchlogix is optional (``pip install 'lgn_analysis[bench]'``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any, Final

import torch
from contenders import (
    Size,
    Step,
    our_model,
    our_run,
    plain_step,
    sixteen_gate_model,
    torchlogix_model,
)
from cpu_kernels import kernel_table
from harness import (
    Variant,
    as_json,
    peak_memory_bytes,
    ratio,
    summary,
    time_in_turns,
    write_results,
)

import lgn_analysis as lgn

RELAXATIONS: Final = {"gumbel-st": lgn.GumbelST(1.0), "soft": lgn.Soft(1.0)}
OURS: Final = "ours, compiled run (lgn.train)"
TORCHLOGIX: Final = ("torchlogix, eager", "torchlogix, compiled")
SIXTEEN: Final = "16 gates (difflogic's Python path)"
SMALL, LARGE, WIDE = Size(960, 1000, 4), Size(), Size(width=64_000, depth=12)
WORK: Final = 2.0e8
"""Gates times samples of one compiled run that is timed, as many as ``lgn.train`` takes at once."""
MOST_STEPS: Final = 256
LOOPS: Final = 4
"""Consecutive steps of a PyTorch loop that are timed."""


def compiled_run(size: Size, relaxation: lgn.Relaxation) -> Variant:
    """Return as many steps of a compiled run as ``lgn.train`` takes at once."""
    steps = max(1, min(MOST_STEPS, int(WORK / size.n_gates / size.batch)))
    return Variant(our_run(size, relaxation, steps), steps)


def loop(step: Step) -> Variant:
    """Return some consecutive steps of a PyTorch loop."""

    def run() -> None:
        for _ in range(LOOPS):
            step()

    return Variant(run, LOOPS)


def contenders(size: Size, relaxation: lgn.Relaxation) -> dict[str, Variant]:
    """Return every way to take a step that is installed here."""
    found = {
        OURS: compiled_run(size, relaxation),
        "ours, PyTorch loop": loop(plain_step(our_model(size, relaxation), size, torch.bool)),
        "ours, PyTorch loop, fused Adam": loop(
            plain_step(our_model(size, relaxation), size, torch.bool, fused=True)
        ),
        "reference, PyTorch loop": loop(plain_step(our_model(size, relaxation, "reference"), size)),
        SIXTEEN: loop(plain_step(sixteen_gate_model(size, relaxation), size)),
    }
    eager, to_compile = (torchlogix_model(size, relaxation) for _ in range(2))
    if eager is None or to_compile is None:
        print(
            "torchlogix is not installed, so it is not compared: pip install 'lgn_analysis[bench]'"
        )
        return found
    found[TORCHLOGIX[0]] = loop(plain_step(eager, size))
    found[TORCHLOGIX[1]] = loop(plain_step(torch.compile(to_compile), size))
    return found


def compare(size: Size, rounds: int) -> dict[str, Any]:
    """Time all contenders of one size and print the table."""
    results: dict[str, Any] = {"size": str(size)}
    for name, relaxation in RELAXATIONS.items():
        times = time_in_turns(contenders(size, relaxation), rounds=rounds)
        results[name] = as_json(times)
        print(f"\n{name} step, {size}: milliseconds, and times as long as {OURS}")
        for variant, values in sorted(times.items(), key=lambda item: min(item[1])):
            low, middle, high = ratio(values, times[OURS])
            results[name][variant]["times_ours"] = [round(r, 2) for r in (low, middle, high)]
            print(
                f"  {variant:36s} {summary(values)!s:52s} {middle:7.1f} ({low:.1f} to {high:.1f})"
            )
        rivals = [variant for variant in TORCHLOGIX if variant in times]
        if rivals:
            fastest = min(rivals, key=lambda variant: summary(times[variant]).median)
            speedup = ratio(times[fastest], times[OURS])[1]
            results[name]["speedup_over_fastest_torchlogix"] = round(speedup, 1)
            print(f"  {speedup:.1f} times faster than {fastest}")
    return results


def scale(rounds: int) -> list[dict[str, Any]]:
    """Time our compiled run over widths, depths and batches, all sizes in turns."""
    sizes = [replace(LARGE, width=width) for width in (1000, 2000, 4000, 8000, 16_000, 32_000)]
    sizes += [replace(LARGE, depth=depth) for depth in (2, 12)]
    sizes += [replace(LARGE, batch=batch) for batch in (64, 256, 512, 1024)]
    sizes += [SMALL, WIDE]
    rows = []
    print("\nscaling of the compiled run: milliseconds a step, nanoseconds a gate, and that over")
    print(f"that of {LARGE}")
    for name, relaxation in RELAXATIONS.items():
        variants = {str(size): compiled_run(size, relaxation) for size in sizes}
        times = time_in_turns(variants, rounds=rounds)
        for size in sizes:
            timing = summary(times[str(size)])
            times_large = ratio(times[str(size)], times[str(LARGE)])
            relative = [round(r * LARGE.n_gates / size.n_gates, 2) for r in times_large]
            per_gate = 1e6 * timing.median / size.n_gates
            print(f"  {name:10s} {size!s:42s} {timing!s:50s} {per_gate:7.1f} {relative[1]:6.2f}")
            rows.append(
                {
                    "relaxation": name,
                    "width": size.width,
                    "depth": size.depth,
                    "batch": size.batch,
                    "milliseconds": float(f"{timing.median:.4g}"),
                    "fastest": float(f"{timing.fastest:.4g}"),
                    "ns_per_gate": round(per_gate, 1),
                    "times_6x8000_per_gate": relative,
                }
            )
    return rows


def peak_memory(relaxation: str) -> dict[str, Any]:
    """Return the peak memory of a process that trains the widest network, and of an idle one."""

    def measure(*arguments: str) -> float:
        command = [sys.executable, __file__, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout.splitlines()[-1])["peak_gib"])

    row = {
        "relaxation": relaxation,
        "size": str(WIDE),
        "peak_gib": measure("--measure-memory", relaxation),
        "idle_gib": measure("--measure-memory", "nothing"),
    }
    print(
        f"\npeak memory, {row['relaxation']}, {row['size']}: {row['peak_gib']} GiB "
        f"({row['idle_gib']} GiB before anything is built)"
    )
    return row


def measure_memory(relaxation: str) -> None:
    """Train the widest network for some steps and print this process's peak memory."""
    if relaxation in RELAXATIONS:
        our_run(WIDE, RELAXATIONS[relaxation], 2)()
    print(json.dumps({"peak_gib": round(peak_memory_bytes() / 2**30, 2)}))


def print_kernels(rows: list[dict[str, Any]], size: Size) -> None:
    print(f"\nkernels on one thread, {size}")
    print(f"  {'kernel':34s} {'us':>9s} {'ns/gate':>8s} {'GB/s':>7s} {'copy':>7s} {'share':>6s}")
    for row in rows:
        print(
            f"  {row['kernel']:34s} {row['microseconds']:9.1f} {row['ns_per_gate']:8.2f} "
            f"{row['gb_per_s']:7.1f} {row['copy_gb_per_s']:7.1f} {row['share_of_copy']:6.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and no scaling")
    parser.add_argument("--measure-memory", metavar="RELAXATION", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_memory:
        measure_memory(options.measure_memory)
        return
    rounds = 7 if options.quick else 25
    results: dict[str, Any] = {"steps": [compare(size, rounds) for size in (LARGE, SMALL)]}
    results["kernels"] = {}
    for size in (SMALL, LARGE) if options.quick else (SMALL, LARGE, WIDE):
        rows = kernel_table(size, rounds=5 if size is WIDE else 2 * rounds)
        print_kernels(rows, size)
        results["kernels"][str(size)] = rows
    if not options.quick:
        results["scaling"] = scale(rounds)
        results["memory"] = [peak_memory(name) for name in RELAXATIONS]
    print(f"\nwritten to {write_results('training-step', results)}")


if __name__ == "__main__":
    main()
