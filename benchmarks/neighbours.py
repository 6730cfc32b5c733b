"""What do two threads cost a training run where another program has one of the cores?

    python benchmarks/neighbours.py

Runs of Gumbel-ST steps on one thread, on two, and on as many as are chosen, without and with a
process that never sleeps; results go to ``benchmarks/results/``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, Final

import torch
from harness import Variant, as_json, no_options, ratio, summary, time_in_turns, write_results

import lgn_analysis as lgn
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.kernels import cpu
from lgn_analysis.kernels.cpu.runtime import thread_count, threads
from lgn_analysis.kernels.interface import AdamRule, Moments

ROUNDS: Final = 9
CALLS: Final = 4
N_FEATURES: Final = 1024
BATCH: Final = 128
SIZES: Final = ((6, 8000, 32), (4, 1000, 256))
"""Depth, width and steps a call, as ``lgn.train`` makes calls."""
SHARE: Final = thread_count.TRIAL_SHARE
KINDS: Final = {"one": (1, 0.0), "two": (2, 0.0), "chosen": (2, SHARE)}
"""Threads at most, and the share of the time for trials of other numbers."""


def make_run(depth: int, width: int) -> cpu.TrainingRun:
    model = lgn.LogicNetwork(N_FEATURES, width, depth, n_classes=10, group_tau=20.0)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2000, N_FEATURES, generator=generator) < 0.5
    y = torch.randint(10, (2000,), generator=generator)
    logits = [layer.logits for layer in model.layers]
    moments = [Moments(torch.zeros_like(z), torch.zeros_like(z)) for z in logits]
    samples = cpu.PackedSamples(cpu.pack_bits(x), N_FEATURES)
    return cpu.TrainingRun(model.as_spec(), logits, moments, samples, y, AdamRule(0.01))


def variants(depth: int, width: int, n_steps: int) -> dict[str, Variant]:
    run, key = make_run(depth, width), NoiseKey(1, Purpose.TRAINING, 0)
    order = torch.randint(2000, (n_steps, BATCH), generator=torch.Generator().manual_seed(1))

    def of(most: int, share: float) -> Variant:
        counts: dict[Any, Any] = {}

        def calls() -> None:
            torch.set_num_threads(most)
            threads._counts, thread_count.TRIAL_SHARE = counts, share
            for _ in range(CALLS):
                run.run(order, key, steps_done=0)

        return Variant(calls, calls=CALLS * n_steps)

    return {name: of(*kind) for name, kind in KINDS.items()}


def main() -> None:
    no_options(__doc__)
    results: dict[str, Any] = {"rows": []}
    for n_busy in (0, 1):
        endless = [sys.executable, "-c", "while True: pass"]
        busy = [subprocess.Popen(endless) for _ in range(n_busy)]
        try:
            for size in SIZES:
                times = time_in_turns(variants(*size), rounds=ROUNDS)
                ratios = {name: ratio(values, times["one"]) for name, values in times.items()}
                load = os.getloadavg()[0]
                print(f"\n{size[0]} x {size[1]}, {n_busy} busy processes, load {load:.1f}")
                for name, values in times.items():
                    low, middle, high = ratios[name]
                    print(
                        f"  {name:8s} {summary(values)!s:54s} {middle:.2f} ({low:.2f} to {high:.2f})"
                    )
                results["rows"].append(
                    {
                        "size": f"{size[0]} x {size[1]}",
                        "busy_processes": n_busy,
                        "load": round(load, 1),
                        "milliseconds_a_step": as_json(times),
                        "over_one_thread": {k: round(r[1], 2) for k, r in ratios.items()},
                    }
                )
        finally:
            for process in busy:
                process.kill()
                process.wait()
    print(f"\nwritten to {write_results('neighbours', results)}")


if __name__ == "__main__":
    main()
