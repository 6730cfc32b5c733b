"""How many samples a second does the discrete network classify, and its soft forward?

    python benchmarks/discrete_inference.py

Both run on the CPU backend without gradients, in one process and in turns; the plain PyTorch
reference stands beside them. Results go to ``benchmarks/results/``.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from contenders import Batches, Size, our_model
from harness import (
    Variant,
    as_json,
    no_options,
    ratio,
    repeated,
    summary,
    time_in_turns,
    write_results,
)

import lgn_analysis as lgn

ROUNDS: Final = 15
SIZES: Final = (Size(960, 1000, 4, 4096), Size(batch=128), Size(batch=4096))


def passes(size: Size) -> dict[str, Variant]:
    model = our_model(size, lgn.GumbelST(), "cpu").eval()
    plain = our_model(size, lgn.GumbelST(), "reference").eval()
    x = Batches(size, torch.bool).x[: size.batch]

    def forward(network: lgn.LogicNetwork, mode: Any) -> Variant:
        def run() -> None:
            with torch.no_grad():
                network(x, mode=mode)

        return repeated(run)

    return {
        "discrete": forward(model, "discrete"),
        "soft": forward(model, "soft"),
        "discrete, reference": forward(plain, "discrete"),
        "soft, reference": forward(plain, "soft"),
    }


def main() -> None:
    no_options(__doc__)
    results: dict[str, Any] = {"sizes": []}
    for size in SIZES:
        times = time_in_turns(passes(size), rounds=ROUNDS)
        print(f"\n{size}")
        row: dict[str, Any] = {"size": str(size), "milliseconds": as_json(times)}
        row["samples_per_second"] = {}
        for name, values in times.items():
            per_second = 1e3 * size.batch / summary(values).median
            row["samples_per_second"][name] = round(per_second)
            print(f"  {name:22s} {summary(values)!s:54s} {per_second:14,.0f} samples/s")
        low, middle, high = ratio(times["soft"], times["discrete"])
        row["discrete_over_soft"] = round(middle, 1)
        print(f"  discrete is {middle:.1f} ({low:.1f} to {high:.1f}) times as fast as soft")
        results["sizes"].append(row)
    print(f"\nwritten to {write_results('discrete-inference', results)}")


if __name__ == "__main__":
    main()
