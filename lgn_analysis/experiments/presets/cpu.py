"""``cpu``: about an hour on two cores, digits and mnist5k; its results are the committed ones.

Sizes are those at which both methods train: a GLGN of 6 × 1000 gates with normal initialisation
needs more than 120 000 steps on digits, with residual initialisation a few thousand do.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from lgn_analysis.experiments.settings import Map, Preset, Setting, Sweep, Timing
from lgn_analysis.experiments.specs import ProbePlan, TimingPlan
from lgn_analysis.training.config import NetworkConfig

_SEEDS: Final = tuple(range(8))
_FEW: Final = tuple(range(5))
_STEPS: Final = (0, 250, 500, 1000, 3000, 10_000)

_PROBES: Final = ProbePlan(
    samples=256,
    trace_steps=(*_STEPS, 30_000),
    trace_probes=8,
    density_probes=2,
    lemma_steps=(3000, 30_000),
    lemma_draws=96,
    lemma_order=4,
    anatomy_steps=(*_STEPS, 30_000),
    landscape_directions=6,
    plane_grid=25,
)

_on_digits = partial(Setting, floor=0.85, target=0.88, seeds=_FEW)
_DIGITS: Final = _on_digits(
    name="digits",
    network=NetworkConfig(width=1000, depth=4, group_tau=20.0),
    steps=30_000,
    seeds=_SEEDS,
    eval_every=250,
    probes=replace(_PROBES, lemma_steps=(10_000, 30_000)),
)
_MNIST: Final = Setting(
    name="mnist5k",
    dataset="mnist5k",
    network=NetworkConfig(width=4000, depth=2, group_tau=30.0),
    steps=20_000,
    floor=0.80,
    target=0.82,
    seeds=_SEEDS,
    eval_every=250,
    probes=replace(
        _PROBES,
        trace_steps=(*_STEPS, 20_000),
        anatomy_steps=(*_STEPS, 20_000),
        lemma_steps=(3000, 20_000),
        lemma_draws=64,
    ),
)
_RESIDUAL: Final = _on_digits(
    name="digits residual",
    network=NetworkConfig(width=1000, depth=4, group_tau=20.0, init="residual"),
    steps=8000,
    seeds=_SEEDS,
    eval_every=400,
)
_LONG: Final = _on_digits(
    name="digits normal",
    network=NetworkConfig(width=1000, depth=4, group_tau=20.0),
    steps=150_000,
    eval_every=5000,
)
_SHALLOW: Final = _on_digits(
    name="digits shallow",
    network=NetworkConfig(width=1000, depth=2, group_tau=7.0),
    steps=10_000,
    seeds=_SEEDS,
    eval_every=500,
)
_MAP: Final = _on_digits(
    name="digits map",
    network=NetworkConfig(width=1000, depth=4, group_tau=20.0),
    steps=16_000,
    eval_every=250,
)
_TRACED: Final = _on_digits(
    name="digits normal",
    network=NetworkConfig(width=1000, depth=4, group_tau=4.0),
    steps=3000,
    seeds=tuple(range(20)),
    eval_every=250,
    probes=ProbePlan(trace_steps=(250, 1000, 3000), trace_probes=8),
)
_ALIGNED: Final = _on_digits(
    name="digits",
    network=NetworkConfig(width=1000, depth=2, group_tau=10.0),
    steps=1,
    eval_every=1,
    probes=ProbePlan(alignment_draws=2048),
)
_TURNS: Final = TimingPlan(("soft", "gumbel-soft", "gumbel-st"), rounds=30, steps=30)

CPU: Final = Preset(
    name="cpu",
    description="digits and mnist5k, 5 to 8 seeds, about an hour on two cores",
    seeds=_SEEDS,
    pairs=(_DIGITS, _MNIST),
    deep_networks=(
        _on_digits(
            name="digits deep",
            network=NetworkConfig(width=1000, depth=10, group_tau=10.0),
            steps=6000,
        ),
    ),
    temperatures=(Sweep(_DIGITS, (0.01, 0.1, 0.25, 0.5, 1.0, 2.0)),),
    depths=(Sweep(_RESIDUAL, (2, 4, 6, 8, 10, 12)), Sweep(_LONG, (2, 4, 6))),
    widths=(Sweep(_SHALLOW, (500, 1000, 2000, 4000, 8000)),),
    ablation=(_DIGITS, _MNIST),
    parts=(
        Sweep(replace(_DIGITS, seeds=_FEW), (0.25, 0.5, 1.0, 2.0)),
        Sweep(replace(_MNIST, seeds=_FEW), (1.0,)),
    ),
    maps=(
        Map(
            _MAP,
            widths=(500, 1000, 2000),
            depths=(2, 4, 6),
            inits=("normal", "residual"),
            lengths=(1000, 4000, 8000),
        ),
    ),
    curvature=(replace(_DIGITS, seeds=_FEW), replace(_MNIST, seeds=_FEW)),
    overhead=(
        Timing(replace(_MAP, name="digits 4 × 1000"), _TURNS),
        Timing(
            replace(_MNIST, name="mnist5k 6 × 4000", network=replace(_MNIST.network, depth=6)),
            replace(_TURNS, rounds=15, steps=10),
        ),
    ),
    signals=(
        _on_digits(
            name="digits, 8 × 2000",
            network=NetworkConfig(width=2000, depth=8, group_tau=10.0),
            steps=1,
            eval_every=1,
            probes=ProbePlan(signal_steps=(0,)),
        ),
    ),
    optimisers=(
        Sweep(
            _on_digits(
                name="digits, Adam's ε",
                network=NetworkConfig(width=1000, depth=4, group_tau=10.0),
                steps=8000,
                eval_every=400,
            ),
            (2, 4, 6, 8, 10, 12, 16),
        ),
    ),
    draws=(
        Sweep(
            _on_digits(
                name="digits, draws a step",
                network=NetworkConfig(width=1000, depth=4, group_tau=10.0),
                steps=20_000,
                eval_every=250,
            ),
            (2, 4),
        ),
    ),
    labels=(
        Setting(
            name="digits, labels",
            thresholds=3,
            network=NetworkConfig(width=120, depth=12, group_tau=20.0),
            steps=300_000,
            floor=0.25,
            target=0.88,
            seeds=_FEW,
            eval_every=1000,
            probes=ProbePlan(
                usage_steps=(
                    *(0, 1000, 2000, 5000, 10_000, 20_000, 50_000),
                    *(100_000, 150_000, 200_000, 250_000, 300_000),
                )
            ),
        ),
    ),
    lemmas=(
        _on_digits(
            name="digits, 3 × 500",
            network=NetworkConfig(width=500, depth=3, group_tau=10.0),
            steps=3000,
            eval_every=100,
            probes=ProbePlan(hard_lemma_steps=(0, 100, 300, 1000, 3000)),
        ),
        _on_digits(
            name="digits, 6 × 1000",
            network=NetworkConfig(width=1000, depth=6, group_tau=10.0),
            steps=3000,
            eval_every=100,
            probes=ProbePlan(hard_lemma_steps=(0, 100, 300, 1000, 3000)),
        ),
    ),
    within_step=(
        Sweep(_TRACED, (2, 4, 6)),
        Sweep(
            replace(
                _TRACED,
                name="digits residual",
                network=replace(_TRACED.network, init="residual"),
            ),
            (2, 4, 6),
        ),
    ),
    alignments=(
        replace(_ALIGNED, name="digits, 2 layers"),
        replace(
            _ALIGNED,
            name="digits, 4 layers",
            network=replace(_ALIGNED.network, depth=4),
            probes=ProbePlan(alignment_draws=8192),  # the signal of its first layer is the smaller
        ),
    ),
)
