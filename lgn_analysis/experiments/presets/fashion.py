"""``fashion``: the whole of Fashion-MNIST, deep, in half an hour on two cores.

It needs the official files, which Debian's package ``dataset-fashion-mnist`` holds.
"""

from __future__ import annotations

from typing import Final

from lgn_analysis.experiments.settings import Preset, Setting, Sweep
from lgn_analysis.training.config import NetworkConfig

_SEEDS: Final = tuple(range(5))

FASHION: Final = Preset(
    name="fashion",
    description="Fashion-MNIST whole, 5 seeds, half an hour on two cores; so far Adam's ε alone",
    seeds=_SEEDS,
    optimisers=(
        Sweep(
            Setting(
                name="Fashion-MNIST, Adam's ε",
                dataset="fashion-mnist",
                thresholds=3,
                network=NetworkConfig(width=2000, depth=4, group_tau=10.0),
                steps=4000,
                floor=0.75,
                target=0.78,
                seeds=_SEEDS,
                eval_every=500,
            ),
            (4, 8, 12),
        ),
    ),
)
