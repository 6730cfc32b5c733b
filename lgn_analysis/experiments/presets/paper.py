"""``paper``: the paper's own sizes on CIFAR-10 and CIFAR-100, for GPUs.

Hyperparameters are the reference code's: wiring ``unique``, 31 thresholds, group_tau 100, batch 128, Adam at
torch's ε. The same pair stands beside it with the 100 groups of the released code, 90 of which no class has,
and the pair over depth with a small ε: what decides whether ε explains the paper's comparison at its own size.
The floor and the target lie below what the paper's networks reach (0.57 on CIFAR-10, where a linear
model has 0.4), and above what an untrained one does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lgn_analysis.experiments.settings import Map, Preset, Setting, Sweep, Timing
from lgn_analysis.experiments.specs import ProbePlan, TimingPlan
from lgn_analysis.training.config import NetworkConfig

_STEPS: Final = 1_000_000
_PROBED: Final = (0, 2000, 20_000, 100_000, 400_000, _STEPS)

_CIFAR10: Final = Setting(
    name="cifar10",
    dataset="cifar10",
    thresholds=31,
    network=NetworkConfig(width=256_000, depth=12, group_tau=100.0, wiring="unique"),
    steps=_STEPS,
    floor=0.50,
    target=0.54,
    eval_every=2000,
    probes=ProbePlan(
        samples=512,
        trace_steps=_PROBED,
        trace_probes=8,
        density_probes=2,
        lemma_steps=(100_000, _STEPS),
        lemma_draws=64,
        lemma_order=4,
        anatomy_steps=_PROBED,
        landscape_directions=4,
        plane_grid=21,
    ),
    device="cuda",
)
_PLAIN: Final = replace(_CIFAR10, name="cifar10 plain", probes=ProbePlan())
_AS_RELEASED: Final = replace(
    _PLAIN, name="cifar10, 100 groups", network=replace(_CIFAR10.network, n_groups=100)
)
_WIDE: Final = replace(
    _PLAIN, name="cifar10 wide", network=replace(_CIFAR10.network, depth=6), steps=400_000
)

PAPER: Final = Preset(
    name="paper",
    description="CIFAR-10 and CIFAR-100 at the paper's sizes, 5 seeds, for GPUs",
    seeds=_CIFAR10.seeds,
    pairs=(_CIFAR10, _AS_RELEASED),
    deep_networks=(replace(_CIFAR10, name="cifar10 deep"),),
    temperatures=(Sweep(_CIFAR10, (0.01, 0.1, 0.25, 0.5, 1.0, 2.0)),),
    depths=(Sweep(replace(_PLAIN, name="cifar10 depths"), (6, 8, 10, 12)),),
    widths=(Sweep(_WIDE, (64_000, 256_000, 2_048_000)),),
    ablation=(_CIFAR10,),
    parts=(Sweep(_CIFAR10, (0.25, 1.0)),),
    maps=(
        Map(
            replace(_PLAIN, name="cifar10 map", steps=200_000),
            widths=(64_000, 256_000),
            depths=(6, 12),
            inits=("normal", "residual"),
            lengths=(10_000, 100_000),
        ),
    ),
    curvature=(_CIFAR10,),
    optimisers=(Sweep(replace(_PLAIN, name="cifar10, Adam's ε"), (6, 8, 10, 12)),),
    signals=(
        replace(
            _PLAIN,
            name="cifar10, before training",
            steps=1,
            eval_every=1,
            probes=ProbePlan(signal_steps=(0,)),
        ),
    ),
    logit_scales=(
        Sweep(replace(_PLAIN, name="cifar10, R", steps=400_000), (1000.0, 400.0, 100.0)),
    ),
    overhead=(
        Timing(_PLAIN, TimingPlan(("soft", "gumbel-soft", "gumbel-st"), rounds=30, steps=20)),
    ),
    cifar100=(
        replace(
            _PLAIN,
            name="cifar100",
            dataset="cifar100",
            floor=0.15,
            target=0.20,
        ),
    ),
)
