"""Does Adam slow down where the second moments of a deep network are denormal, and does scaling help?

    python benchmarks/optimiser_denormals.py

Networks of soft gates at their first step, whose gradients fall by a factor of 5 a layer, and an
epsilon of 1e-20. Torch's fused AdamW and whole compiled steps take the gradient as it is and times
``gradient_scale(1e-20)``, all on one thread, and at a learning rate of 0, so that gradients stay what
they are. Results go to ``benchmarks/results/``.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from harness import Variant, as_json, no_options, ratio, summary, time_in_turns, write_results
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.kernels import cpu
from lgn_analysis.kernels.interface import AdamRule, Moments
from lgn_analysis.training.optimiser import gradient_scale

EPS: Final = 1e-20
ROUNDS: Final = 9
BATCH: Final = 128
STEPS: Final = 8
DEPTHS: Final = (12, 16, 24)
WIDTH: Final = 8000
N_FEATURES: Final = 1024
SCALES: Final = {"plain": 1.0, "scaled": gradient_scale(EPS)}


def main() -> None:
    no_options(__doc__)
    torch.set_num_threads(1)
    results: dict[str, Any] = {"rows": []}
    for depth in DEPTHS:
        compared = {name: Compared(depth, scale) for name, scale in SCALES.items()}
        for kind in ("torch_step", "compiled_step"):
            variants = {
                name: Variant(getattr(one, kind), calls=STEPS) for name, one in compared.items()
            }
            times = time_in_turns(variants, rounds=ROUNDS)
            low, middle, high = ratio(times["plain"], times["scaled"])
            denormal = {name: getattr(one, f"{kind}_denormals") for name, one in compared.items()}
            print(f"\n{depth} x {WIDTH}, {kind}")
            for name, values in times.items():
                print(f"  {name:7s} {summary(values)!s:50s} {denormal[name]():.1%} denormal")
            print(f"  plain over scaled: {middle:.2f} ({low:.2f} to {high:.2f})")
            results["rows"].append(
                {
                    "size": f"{depth} x {WIDTH}",
                    "what": kind,
                    "milliseconds": as_json(times),
                    "plain_over_scaled": round(middle, 2),
                    "denormal_second_moments": {k: round(f(), 4) for k, f in denormal.items()},
                }
            )
    print(f"\nwritten to {write_results('optimiser-denormals', results)}")


class Compared:
    """One network, its gradient times ``scale``, and both ways to step on it."""

    def __init__(self, depth: int, scale: float) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(2000, N_FEATURES, generator=generator) < 0.5
        y = torch.randint(10, (2000,), generator=generator)
        model = lgn.LogicNetwork(
            N_FEATURES, WIDTH, depth, 10, group_tau=20.0, relaxation=lgn.Soft(), seed=0
        )
        functional.cross_entropy(model(x[:BATCH]), y[:BATCH]).backward()
        self.parameters = list(model.parameters())
        for parameter in self.parameters:
            assert parameter.grad is not None
            parameter.grad.mul_(scale)
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=0.0, eps=EPS * scale, weight_decay=0.0, fused=True
        )
        logits = [parameter.detach().clone() for parameter in self.parameters]
        self.moments = [Moments(torch.zeros_like(z), torch.zeros_like(z)) for z in logits]
        samples = cpu.PackedSamples(cpu.pack_bits(x), N_FEATURES)
        rule = AdamRule(0.0, eps=EPS * scale, gradient_scale=scale)
        self.run = cpu.TrainingRun(model.as_spec(), logits, self.moments, samples, y, rule)
        self.order = torch.randint(2000, (STEPS, BATCH), generator=generator)

    def torch_step(self) -> None:
        for _ in range(STEPS):
            self.optimiser.step()

    def compiled_step(self) -> None:
        self.run.run(self.order, NoiseKey(0, Purpose.TRAINING), steps_done=0)

    def torch_step_denormals(self) -> float:
        return _denormal([self.optimiser.state[p]["exp_avg_sq"] for p in self.parameters])

    def compiled_step_denormals(self) -> float:
        return _denormal([moments.square for moments in self.moments])


def _denormal(squares: list[torch.Tensor]) -> float:
    """Return the share of numbers that are neither zero nor a normal float32."""
    values = torch.cat([square.flatten() for square in squares])
    tiny = torch.finfo(torch.float32).tiny
    return float(((values > 0) & (values < tiny)).double().mean())


if __name__ == "__main__":
    main()
