"""How long does gate usage over a whole split take, in soft passes of 2000 samples?

    python benchmarks/gate_usage.py

Random bits of the shape of Fashion-MNIST's; results go to ``benchmarks/results/``.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from harness import Variant, as_json, no_options, ratio, summary, time_in_turns, write_results

import lgn_analysis as lgn

ROUNDS: Final = 9
N_FEATURES: Final = 784
PASS: Final = 2000
SIZES: Final = ((6, 8000, 40_000), (12, 8000, 60_000), (12, 32_000, 60_000))
"""Depth, width and samples."""


def statistics_of(model: lgn.LogicNetwork, x: torch.Tensor) -> dict[str, Variant]:
    def soft() -> None:
        with torch.no_grad():
            model(x[:PASS], mode="soft")

    return {
        "soft pass": Variant(soft),
        "discrete forward": Variant(lambda: model(x, mode="discrete")),
        "usage without data": Variant(lambda: lgn.gate_usage(model)),
        "usage": Variant(lambda: lgn.gate_usage(model, x)),
    }


def main() -> None:
    no_options(__doc__)
    results: dict[str, Any] = {"sizes": []}
    for depth, width, n in SIZES:
        model = lgn.LogicNetwork(N_FEATURES, width, depth, n_classes=10, group_tau=20.0)
        x = torch.rand(n, N_FEATURES, generator=torch.Generator().manual_seed(0)) < 0.5
        times = time_in_turns(statistics_of(model, x), rounds=ROUNDS, warm_up=1)
        size = f"{depth} x {width}, {n} samples"
        row: dict[str, Any] = {"size": size, "milliseconds": as_json(times), "in_soft_passes": {}}
        print(f"\n{size}")
        for name, values in times.items():
            low, middle, high = ratio(values, times["soft pass"])
            row["in_soft_passes"][name] = round(middle, 3)
            print(f"  {name:20s} {summary(values)!s:54s} {middle:.2f} ({low:.2f} to {high:.2f})")
        results["sizes"].append(row)
    print(f"\nwritten to {write_results('gate-usage', results)}")


if __name__ == "__main__":
    main()
