"""``quick``: digits in minutes; and ``smoke``, which only checks that everything runs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from lgn_analysis.experiments.settings import Map, Preset, Setting, Sweep, Timing
from lgn_analysis.experiments.specs import ProbePlan, TimingPlan
from lgn_analysis.training.config import NetworkConfig

_PROBES: Final = ProbePlan(
    samples=256,
    trace_steps=(0, 100, 300, 1000, 5000),
    trace_probes=4,
    density_probes=2,
    lemma_steps=(3000, 5000),  # the first decides, and GLGNs are trained there
    lemma_draws=24,
    anatomy_steps=(0, 100, 300, 1000, 5000),
    landscape_directions=2,
    landscape_grid=15,
    plane_grid=21,
)

# Shallow: a deep GLGN with normal initialisation does not leave chance level in this many steps.
_PAIR: Final = Setting(
    name="digits",
    network=NetworkConfig(width=1000, depth=2, group_tau=7.0),
    steps=5000,
    floor=0.88,
    target=0.90,
    probes=_PROBES,
)
_at_80_percent = partial(Setting, floor=0.80, target=0.80)
# Residual initialisation trains deep GLGNs in a few thousand steps.
_RESIDUAL: Final = _at_80_percent(
    name="digits residual",
    network=NetworkConfig(width=500, depth=4, group_tau=14.0, init="residual"),
    steps=2000,
)

QUICK: Final = Preset(
    name="quick",
    description="digits, 5 seeds, minutes on two cores",
    seeds=_PAIR.seeds,
    pairs=(_PAIR,),
    deep_networks=(
        _at_80_percent(
            name="digits deep",
            network=NetworkConfig(width=1000, depth=10, group_tau=7.0),
            steps=1500,
            seeds=(0, 1, 2),
        ),
    ),
    temperatures=(Sweep(_PAIR, (0.1, 0.5, 1.0, 2.0)),),
    depths=(Sweep(_RESIDUAL, (2, 4, 6)),),
    widths=(
        Sweep(
            _at_80_percent(
                name="digits shallow",
                network=replace(_PAIR.network, init="residual"),
                steps=2000,
            ),
            (500, 1000, 2000),
        ),
    ),
    ablation=(_PAIR,),
    parts=(Sweep(_PAIR, (1.0,)),),
    maps=(
        Map(
            replace(_RESIDUAL, name="digits map"),
            widths=(500,),
            depths=(2, 4),
            inits=("normal", "residual"),
            lengths=(500, 1500),
        ),
    ),
    curvature=(_PAIR,),
    overhead=(
        Timing(
            _at_80_percent(
                name="digits 4 × 1000",
                network=NetworkConfig(width=1000, depth=4, group_tau=20.0, init="residual"),
                steps=2000,
            ),
            TimingPlan(("soft", "gumbel-soft", "gumbel-st")),
        ),
    ),
)

_TINY: Final = Setting(
    name="digits",
    network=NetworkConfig(width=500, depth=2, group_tau=10.0),
    steps=40,
    floor=0.90,
    target=0.90,
    seeds=(0, 1),
    eval_every=20,
    probes=ProbePlan(
        samples=64,
        trace_steps=(0, 40),
        trace_probes=2,
        density_probes=2,
        density_steps=8,
        lemma_steps=(20, 40),
        lemma_scales=(0.1, 1.0),
        lemma_draws=8,
        lemma_trace_probes=2,
        lemma_order=4,
        anatomy_steps=(20, 40),
        landscape_directions=1,
        landscape_grid=7,
        plane_grid=5,
    ),
)
_TINIER: Final = replace(_TINY, steps=10, eval_every=5, probes=ProbePlan())

SMOKE: Final = Preset(
    name="smoke",
    description="seconds; checks that everything runs, and decides nothing",
    seeds=_TINY.seeds,
    pairs=(_TINY,),
    deep_networks=(
        replace(
            _TINY,
            name="digits deep",
            network=NetworkConfig(width=500, depth=3, group_tau=10.0),
            probes=ProbePlan(),
        ),
    ),
    temperatures=(Sweep(_TINY, (0.5, 1.0, 2.0)),),
    depths=(Sweep(replace(_TINIER, name="digits depth"), (1, 2, 3)),),
    widths=(Sweep(replace(_TINIER, name="digits width"), (500, 600)),),
    ablation=(_TINY,),
    parts=(Sweep(_TINY, (0.5, 1.0)),),
    maps=(
        Map(
            replace(_TINIER, name="digits map"),
            widths=(500,),
            depths=(1, 2),
            inits=("normal", "residual"),
            lengths=(5,),
        ),
    ),
    curvature=(_TINY,),
    overhead=(
        Timing(
            replace(_TINIER, name="digits tiny"),
            TimingPlan(("soft", "gumbel-soft", "gumbel-st"), rounds=3, steps=2, warm_up=1),
        ),
    ),
    optimisers=(Sweep(replace(_TINIER, name="digits, Adam's ε"), (2, 10)),),
    signals=(
        replace(
            _TINIER,
            name="digits, before training",
            probes=ProbePlan(signal_steps=(0,), signal_batches=6, signal_draws=2),
        ),
    ),
    draws=(Sweep(replace(_TINIER, name="digits, draws a step"), (2,)),),
    logit_scales=(Sweep(replace(_TINIER, name="digits, R"), (10.0, 2.0)),),
    labels=(replace(_TINIER, name="digits, labels", probes=ProbePlan(usage_steps=(0, 5, 10))),),
    lemmas=(
        replace(
            _TINIER,
            name="digits, both lemmas",
            probes=ProbePlan(samples=64, lemma_draws=4, hard_lemma_steps=(5,), hard_lemma_draws=4),
        ),
    ),
    within_step=(
        Sweep(
            replace(
                _TINIER, name="digits traces", probes=ProbePlan(samples=64, trace_steps=(5, 10))
            ),
            (1, 2),
        ),
    ),
    alignments=(replace(_TINIER, name="digits, aligned", probes=ProbePlan(alignment_draws=1024)),),
)
