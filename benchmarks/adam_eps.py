"""Which ε should Adam have: where does a smaller one help, and does it ever hurt?

    python benchmarks/adam_eps.py

DLGN and GLGN on digits, 2 to 24 layers of 1000 gates, normal initialisation, group_tau 10, lr 0.01, batches of
128, 4000 steps, 3 seeds: discrete test accuracy, gap and unused gates at the end. A row a run goes to
``benchmarks/results/adam-eps.csv``, and runs that stand there already are not made again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd
from harness import no_options
from tqdm import tqdm

import lgn_analysis as lgn

PLACE: Final = Path(__file__).parent / "results" / "adam-eps.csv"
DEPTHS: Final = (24, 16, 12, 8, 4, 2)
EPSILONS: Final = (1e-8, 1e-12, 1e-16, 1e-20)
RELAXATIONS: Final = {"soft": lgn.Soft(), "gumbel-st": lgn.GumbelST()}
SEEDS: Final = (0, 1, 2)
STEPS: Final = 4000
_KEYS: Final = ["depth", "relaxation", "eps", "seed"]


def main() -> None:
    """Make the runs that are missing, and print their means."""
    no_options(__doc__)
    data = lgn.load_dataset("digits")
    known = pd.read_csv(PLACE) if PLACE.exists() else pd.DataFrame(columns=_KEYS)
    done = set(known[_KEYS].itertuples(index=False, name=None))
    todo = [
        (depth, name, eps, seed)
        for depth in DEPTHS
        for seed in SEEDS
        for name in RELAXATIONS
        for eps in EPSILONS
        if (depth, name, eps, seed) not in done
    ]
    for key in tqdm(todo, unit="run"):
        row = dict(zip(_KEYS, key, strict=True)) | measure(data, *key)
        known = pd.concat([known, pd.DataFrame([row])], ignore_index=True)
        known.to_csv(PLACE, index=False)
    for column in ("discrete_accuracy", "unused", "gap"):
        print(
            known.pivot_table(index=["relaxation", "depth"], columns="eps", values=column).round(3)
        )


def measure(
    data: lgn.Dataset, depth: int, relaxation: str, eps: float, seed: int
) -> dict[str, float]:
    """Return what a network is after training."""
    model = lgn.LogicNetwork(
        data.n_features,
        width=1000,
        depth=depth,
        n_classes=10,
        group_tau=10.0,
        relaxation=RELAXATIONS[relaxation],
        seed=seed,
    )
    lgn.train(model, data, steps=STEPS, seed=seed, eps=eps, eval_every=STEPS, progress=False)
    found = lgn.evaluate(model, data)
    return {
        "discrete_accuracy": found.discrete_accuracy,
        "gap": found.gap,
        "unused": float(lgn.gate_usage(model, data)["unused"].mean()),
    }


if __name__ == "__main__":
    main()
