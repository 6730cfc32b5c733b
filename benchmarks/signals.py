"""What does it cost to measure how signals pass through a network of 12 x 8000 gates?

    python benchmarks/signals.py

``lgn.signal_propagation`` on 1024 samples of digits, 8 batches of 128, with 16 draws of the noise each
where the relaxation draws any, on one thread; beside it what the gradients alone would cost in plain PyTorch: one
gradient by the reference, times as many. Results go to ``benchmarks/results/``.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from harness import Variant, as_json, no_options, ratio, summary, time_in_turns, write_results
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.gates.noise import NoiseKey, Purpose

BATCHES: Final = 8
BATCH: Final = 128
DRAWS: Final = 16
ROUNDS: Final = 3


def main() -> None:
    no_options(__doc__)
    torch.set_num_threads(1)
    data = lgn.load_dataset("digits")
    results: dict[str, Any] = {"samples": BATCHES * BATCH, "draws": DRAWS, "rows": []}
    for relaxation in (lgn.Soft(), lgn.GumbelST()):
        gradients = BATCHES * (DRAWS if relaxation.noisy else 1)
        times = time_in_turns(variants(data, relaxation), rounds=ROUNDS, warm_up=1)
        plain = times.pop("one gradient in plain PyTorch")
        times["all gradients in plain PyTorch"] = [gradients * value for value in plain]
        low, middle, high = ratio(*reversed(times.values()))
        print(f"\n12 x 8000, {relaxation.name}, {gradients} gradients")
        for name, values in times.items():
            print(f"  {name:32s} {summary(values)}")
        print(f"  plain over ours: {middle:.1f} ({low:.1f} to {high:.1f})")
        results["rows"].append(
            {
                "relaxation": relaxation.name,
                "gradients": gradients,
                "milliseconds": as_json(times),
                "plain_over_ours": round(middle, 2),
            }
        )
    print(f"\nwritten to {write_results('signals', results)}")


def variants(data: lgn.Dataset, relaxation: lgn.Relaxation) -> dict[str, Variant]:
    """Return the measurement, and one gradient in plain PyTorch."""
    shape = (data.n_features, 8000, 12, data.n_classes, 20.0)
    model = lgn.LogicNetwork(*shape, relaxation=relaxation)
    plain = lgn.LogicNetwork(*shape, relaxation=relaxation, backend="reference")
    x, y = data.x_train[:BATCH], data.y_train[:BATCH]

    def measure() -> None:
        lgn.signal_propagation(model, data, batches=BATCHES, batch_size=BATCH, draws=DRAWS)

    def one_gradient() -> None:
        loss = functional.cross_entropy(plain(x, draw=NoiseKey(0, Purpose.TRAINING, 0)), y)
        torch.autograd.grad(loss, list(plain.parameters()))

    return {
        "signal_propagation": Variant(measure),
        "one gradient in plain PyTorch": Variant(one_gradient),
    }


if __name__ == "__main__":
    main()
