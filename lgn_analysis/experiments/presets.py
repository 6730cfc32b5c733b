"""Which runs a preset makes. Sizes were chosen by measuring; see each field."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from lgn_analysis.errors import InvalidInputError
from lgn_analysis.experiments.sweep import ProbePlan, RunSpec
from lgn_analysis.runs import DataConfig, NetworkConfig, TrainingConfig

NOISE_FREE: Final = "soft"
NOISY: Final = "gumbel-st"


@dataclass(frozen=True)
class Preset:
    """A scale at which all experiments are run.

    Attributes:
        dataset: name for ``load_dataset``.
        seeds: each draws a network, its data order and its noise; methods are paired by seed.
        network: the pair DLGN and GLGN; shallow, since a deep GLGN with normal initialisation does
            not leave chance level on digits in this many steps.
        steps: training steps of the pair.
        deep: the deep DLGN that shows the gap and the unused gates.
        deep_steps: training steps of the deep DLGN.
        taus: gate temperatures of C7, in rising order.
        eval_every: steps between evaluations of the pair.
        trace_steps: training steps at which traces are estimated.
        probes: the curvature that is measured at the end of the pair.
    """

    name: str
    description: str
    dataset: str
    seeds: tuple[int, ...]
    network: NetworkConfig
    steps: int
    deep: NetworkConfig
    deep_steps: int
    taus: tuple[float, ...]
    eval_every: int
    probes: ProbePlan

    def pair(self, relaxation: str) -> list[RunSpec]:
        """Return the runs of DLGN or GLGN at tau 1, with their probes."""
        return [
            self._spec(replace(self.network, relaxation=relaxation), self.steps, seed, self.probes)
            for seed in self.seeds
        ]

    def temperatures(self) -> list[RunSpec]:
        """Return the GLGN runs over tau; those at the pair's tau are the pair's own."""
        runs = []
        for tau in self.taus:
            if tau == self.network.tau:
                runs += self.pair(NOISY)
                continue
            network = replace(self.network, relaxation=NOISY, tau=tau)
            plan = replace(
                self.probes,
                trace_steps=self.probes.trace_steps[-1:],
                density_probes=0,
                lemma_steps=(),
            )
            runs += [self._spec(network, self.steps, seed, plan) for seed in self.seeds]
        return runs

    def deep_runs(self) -> list[RunSpec]:
        """Return the deep DLGN runs."""
        deep = replace(self.deep, relaxation=NOISE_FREE)
        return [self._spec(deep, self.deep_steps, seed, ProbePlan()) for seed in self.seeds]

    def _spec(self, network: NetworkConfig, steps: int, seed: int, plan: ProbePlan) -> RunSpec:
        return RunSpec(
            data=DataConfig(self.dataset),
            network=replace(network, seed=seed),
            training=TrainingConfig(steps=steps, seed=seed, eval_every=self.eval_every),
            probes=plan,
        )


QUICK: Final = Preset(
    name="quick",
    description="digits, 5 seeds, under five minutes on two cores",
    dataset="digits",
    seeds=(0, 1, 2, 3, 4),
    network=NetworkConfig(width=2000, depth=2, group_tau=10.0),
    steps=20_000,
    deep=NetworkConfig(width=2000, depth=10, group_tau=10.0),
    deep_steps=2000,
    taus=(0.1, 0.5, 1.0, 2.0),
    eval_every=100,
    probes=ProbePlan(
        samples=256,
        trace_steps=(0, 100, 300, 1000, 3000, 10_000, 20_000),
        trace_probes=4,
        density_probes=2,
        lemma_steps=(3000, 20_000),
        lemma_draws=128,
        lemma_trace_probes=8,
    ),
)

SMOKE: Final = Preset(
    name="smoke",
    description="seconds; checks that everything runs, and decides nothing",
    dataset="digits",
    seeds=(0, 1),
    network=NetworkConfig(width=500, depth=2, group_tau=10.0),
    steps=40,
    deep=NetworkConfig(width=500, depth=3, group_tau=10.0),
    deep_steps=40,
    taus=(0.5, 1.0, 2.0),
    eval_every=20,
    probes=ProbePlan(
        samples=64,
        trace_steps=(0, 40),
        trace_probes=2,
        density_probes=1,
        density_steps=8,
        lemma_steps=(20, 40),
        lemma_scales=(0.1, 1.0),
        lemma_draws=8,
        lemma_trace_probes=2,
    ),
)

PRESETS: Final = {preset.name: preset for preset in (QUICK, SMOKE)}


def find_preset(name: str) -> Preset:
    """Return the preset called ``name``.

    Raises:
        InvalidInputError: there is none.
    """
    if name not in PRESETS:
        raise InvalidInputError(f"unknown preset {name!r}; use one of {', '.join(PRESETS)}")
    return PRESETS[name]
