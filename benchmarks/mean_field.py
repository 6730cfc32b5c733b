"""How far is the closed form of mean-field theory from measured gradients?

    python benchmarks/mean_field.py

Digits, batches of 128. A ratio is the predicted rms of ∂L/∂z of a layer over the measured one, whose mean
square is over several networks; its extremes over networks stand beside it. A row a layer goes to
``benchmarks/results/mean-field.csv``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import pandas as pd
from harness import RESULTS, machine, no_options

import lgn_analysis as lgn

NETWORKS: Final = 4
MEASURED: Final = {"batches": 12, "draws": 4}
RELAXATIONS: Final = {
    "normal": (
        *(lgn.Soft(tau) for tau in (0.25, 0.5, 1.0, 2.0)),
        *(lgn.GumbelST(tau) for tau in (0.5, 1.0, 2.0)),
        *(lgn.HardST(tau) for tau in (0.5, 1.0, 2.0)),
        lgn.GumbelSoft(0.5),
        lgn.GumbelSoft(1.0),
        lgn.CAGE(),
    ),
    "residual": (
        lgn.Soft(0.5),
        lgn.Soft(1.0),
        lgn.Soft(2.0),
        lgn.GumbelST(1.0),
        lgn.HardST(1.0),
        lgn.GumbelSoft(1.0),
        lgn.CAGE(),
    ),
}
DEPTHS: Final = (4, 12)
WIDTH: Final = 2000
GROUP_TAU: Final = 100.0
OTHER_SIZES: Final[tuple[dict[str, Any], ...]] = (
    {"width": 500},
    {"width": 1000},
    {"width": 8000},
    {"group_tau": 10.0},
    {"group_tau": 2.0},
    {"wiring": "unique"},
    {"depth": 30},
    {"n_groups": 100},
    {"grad_factor": 2.0},
)


def settings() -> Iterator[dict[str, Any]]:
    """Yield arguments of networks: all relaxations at two depths, some at other sizes."""
    base = {"width": WIDTH, "group_tau": GROUP_TAU, "wiring": "random"}
    for init, kinds in RELAXATIONS.items():
        for depth, relaxation in itertools.product(DEPTHS, kinds):
            yield {"init": init, "relaxation": relaxation, "depth": depth, **base}
    for other, init in itertools.product(OTHER_SIZES, RELAXATIONS):
        for relaxation in (lgn.Soft(), lgn.GumbelST()):
            yield {"init": init, "relaxation": relaxation, **base, "depth": 8, **other}


def compare(data: lgn.Dataset, arguments: dict[str, Any], seeds: Iterable[int]) -> pd.DataFrame:
    """Return a row a layer: predicted, measured, and their ratio with its extremes over networks.

    Args:
        data: the data set.
        arguments: of the networks.
        seeds: a network each, of wiring, logits, batches and draws.
    """
    squares = []
    for seed in seeds:
        model = lgn.LogicNetwork(data.n_features, n_classes=10, seed=seed, **arguments)
        measured = lgn.signal_propagation(model, data, seed=seed, **MEASURED)
        squares.append(measured.layers["gradient_rms"].to_numpy() ** 2)
    predicted = lgn.mean_field(model, data=data).layers["gradient_rms"].to_numpy()
    of_networks = predicted / np.sqrt(squares)
    relaxation = arguments["relaxation"]
    rms = np.sqrt(np.mean(squares, axis=0))
    return pd.DataFrame(
        {
            **{name: arguments[name] for name in ("init", "depth", "width", "group_tau", "wiring")},
            "n_groups": arguments.get("n_groups", 10),
            "grad_factor": arguments.get("grad_factor", 1.0),
            "relaxation": relaxation.name,
            "tau": relaxation.tau,
            "layer": np.arange(arguments["depth"]),
            "predicted_rms": predicted,
            "measured_rms": rms,
            "ratio": predicted / rms,
            "lowest": of_networks.min(0),
            "highest": of_networks.max(0),
        }
    )


def main() -> None:
    no_options(__doc__)
    data = lgn.load_dataset("digits")
    tables = []
    for index, arguments in enumerate(settings()):
        # Seeds of its own for each: the class counts of a batch move gradients by up to a quarter.
        table = compare(data, arguments, range(NETWORKS * index, NETWORKS * (index + 1)))
        tables.append(table)
        head, ratio = table.iloc[0], table["ratio"]
        print(
            f"{head['init']:9s}{head['relaxation']:12s}tau {head['tau']:<5g}{head['depth']:3d} x "
            f"{head['width']:<5d}group_tau {head['group_tau']:<4g}{head['wiring']:7s} ratio "
            f"{ratio.median():.3f} ({ratio.min():.3f} to {ratio.max():.3f})",
            flush=True,
        )
    frame = pd.concat(tables, ignore_index=True)
    path = RESULTS / "mean-field.csv"
    frame.to_csv(path, index=False, float_format="%.5g")
    facts = {
        "command": "python benchmarks/mean_field.py",
        "data": "digits",
        "networks": NETWORKS,
        **MEASURED,
        "machine": machine(),
    }
    path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    wide = frame[frame["width"] >= WIDTH]
    within = (wide["ratio"] - 1).abs() <= 0.15
    print(
        f"\n{len(tables)} networks, {len(frame)} layers; from width {WIDTH} on: median ratio "
        f"{wide['ratio'].median():.3f}, {within.mean():.1%} of {len(wide)} layers within 15 %"
    )
    print(f"written to {path}")


if __name__ == "__main__":
    main()
