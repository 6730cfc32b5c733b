"""What is compared, as data: a setting is a network, data and training length for all methods."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lgn_analysis.data.labels import PERMUTED, TRUE
from lgn_analysis.experiments.specs import ProbePlan, RunSpec, TimingPlan
from lgn_analysis.training.config import DataConfig, NetworkConfig, TrainingConfig

NOISE_FREE: Final = "soft"
NOISY: Final = "gumbel-st"
PAIR: Final = (NOISE_FREE, NOISY)


@dataclass(frozen=True)
class Setting:
    """A network, data and training length, on which methods are compared seed by seed.

    Attributes:
        name: its name in frames and in the ledger.
        network: shape, init and reference tau; each method brings its own relaxation.
        steps: training steps.
        floor: discrete test accuracy at the end that a run must reach for its gap and its gates to
            count: an untrained network has no gap either.
        target: discrete validation accuracy that counts as converged.
        seeds: each draws a network, its data order and its noise; methods are paired by seed.
        dataset: name for ``load_dataset``.
        thresholds: number of thermometer thresholds; None is the data set's own.
        eval_every: steps between evaluations.
        eval_spacing: ``"log"`` evaluates at eight steps a decade too, from 10 to the first ``eval_every``.
        probes: what DLGN and GLGN measure; other methods measure only what they are compared by.
        device: where to train.
    """

    name: str
    network: NetworkConfig
    steps: int
    floor: float
    target: float
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    dataset: str = "digits"
    thresholds: int | None = None
    eval_every: int = 100
    eval_spacing: str = "linear"
    probes: ProbePlan = field(default_factory=ProbePlan)
    device: str = "cpu"

    def runs(
        self,
        relaxation: str,
        *,
        tau: float | None = None,
        anneal_to: float | None = None,
        training: Mapping[str, Any] | None = None,
        labels: str = TRUE,
        **network: Any,
    ) -> list[RunSpec]:
        """Return the runs of one method, a run a seed.

        At the setting's own network they carry its probes, else only a trace at the end and signals.

        Args:
            relaxation: the method.
            tau: gate temperature; None is the network's.
            anneal_to: let tau fall exponentially to this over the run.
            training: fields of the training that differ from the defaults.
            labels: training labels; permutations are drawn by the run's seed.
            network: other fields of the network that differ. A width brings its ``group_tau`` along,
                as its square root: so grows the spread of a sum over a group.
        """
        shape = replace(self.network, relaxation=relaxation)
        if tau is not None:
            shape = replace(shape, tau=tau)
        if "width" in network and "group_tau" not in network:
            grown = math.sqrt(network["width"] / shape.width)
            network = {**network, "group_tau": round(shape.group_tau * grown, 3)}
        shape = replace(shape, **network)
        own = (
            anneal_to is None and replace(shape, relaxation=self.network.relaxation) == self.network
        )
        plan = self._plan(relaxation) if own else _trace_at_end(self.probes)
        changed = dict(training or {})
        if anneal_to is not None:
            changed |= {"tau_schedule": "exponential", "tau_end": anneal_to}
        return [self._spec(shape, seed, plan, labels, **changed) for seed in self.seeds]

    def pair(self, **network: Any) -> list[RunSpec]:
        """Return the runs of DLGN and GLGN."""
        return [run for kind in PAIR for run in self.runs(kind, **network)]

    def timings(self, plan: TimingPlan) -> list[RunSpec]:
        """Return the timings of several methods in turns, a run a seed."""
        specs = [self._spec(self.network, seed, ProbePlan()) for seed in self.seeds]
        return [replace(spec, timing=plan) for spec in specs]

    def _plan(self, relaxation: str) -> ProbePlan:
        if relaxation in PAIR:
            return self.probes
        return replace(
            self.probes, density_probes=0, lemma_steps=(), landscape_directions=0, plane_grid=0
        )

    def _spec(
        self,
        network: NetworkConfig,
        seed: int,
        plan: ProbePlan,
        labels: str = TRUE,
        **training: Any,
    ) -> RunSpec:
        if seed != self.seeds[0]:  # a plane is looked at, not averaged
            plan = replace(plan, plane_grid=0)
        return RunSpec(
            data=DataConfig(
                self.dataset,
                self.thresholds,
                labels=labels,
                label_seed=seed if labels == PERMUTED else 0,
            ),
            network=replace(network, seed=seed),
            training=TrainingConfig(
                steps=self.steps,
                seed=seed,
                eval_every=self.eval_every,
                eval_spacing=self.eval_spacing,
                **training,
            ),
            probes=plan,
            device=self.device,
        )


def _trace_at_end(plan: ProbePlan) -> ProbePlan:
    """Return what is measured of other networks than the setting's: a trace at the end, and signals."""
    return ProbePlan(
        samples=plan.samples,
        trace_steps=plan.trace_steps[-1:],
        trace_probes=plan.trace_probes,
        signal_steps=plan.signal_steps,
        signal_batches=plan.signal_batches,
        signal_draws=plan.signal_draws,
    )


@dataclass(frozen=True)
class Sweep:
    """A setting at several values of one quantity: taus, depths or widths, in rising order."""

    setting: Setting
    values: tuple[float, ...]

    @property
    def whole(self) -> tuple[int, ...]:
        """The values as whole numbers, for depths and widths."""
        return tuple(int(value) for value in self.values)

    @property
    def at_depths(self) -> list[Setting]:
        """The setting at each depth, where it measures all that its probes say."""
        shapes = [replace(self.setting.network, depth=depth) for depth in self.whole]
        return [replace(self.setting, network=shape) for shape in shapes]


@dataclass(frozen=True)
class Map:
    """A setting over shapes and initialisations, looked at after several training lengths.

    Attributes:
        setting: data, steps, floor and seeds; ``steps`` is beyond the longest length, so that a
            method whose steps are cheap can use its seconds.
        lengths: training steps at which the methods are compared.
    """

    setting: Setting
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    inits: tuple[str, ...]
    lengths: tuple[int, ...]

    @property
    def runs(self) -> list[RunSpec]:
        """The runs of DLGN and GLGN at every shape."""
        return [
            run
            for init in self.inits
            for depth in self.depths
            for width in self.widths
            for run in self.setting.pair(init=init, depth=depth, width=width)
        ]


@dataclass(frozen=True)
class Timing:
    """A setting whose methods' steps are timed."""

    setting: Setting
    plan: TimingPlan


@dataclass(frozen=True)
class Preset:
    """A scale at which the experiments are run; what a field lacks is not testable there.

    Attributes:
        name: its name.
        description: one line.
        seeds: of the main comparisons, for the record.
        pairs: DLGN against GLGN with all probes: C1, C2, C3, C8, C9, and the figures of densities
            and anatomy.
        deep_networks: deep DLGNs, drawn beside the pairs, to show the paper's gap and unused gates.
        temperatures: C7, GLGNs over tau.
        depths: C4.
        widths: C5.
        ablation: C6, with soft Gumbel.
        parts: C12, all methods over tau.
        maps: C13.
        curvature: C14.
        overhead: C11, timings.
        cifar100: C10.
        signals: M1, networks before their first step.
        optimisers: M2, M3 and M4, over depth.
        draws: M5, over depth.
        labels: M6, GLGNs that stay at chance; a run counts below its floor.
        lemmas: M7, with probes of both lemmas.
        logit_scales: M9, over group_tau.
        within_step: M8, over depth, with traces at several steps.
        alignments: M5, GLGNs before their first step.
    """

    name: str
    description: str
    seeds: tuple[int, ...]
    pairs: tuple[Setting, ...] = ()
    deep_networks: tuple[Setting, ...] = ()
    temperatures: tuple[Sweep, ...] = ()
    depths: tuple[Sweep, ...] = ()
    widths: tuple[Sweep, ...] = ()
    ablation: tuple[Setting, ...] = ()
    parts: tuple[Sweep, ...] = ()
    maps: tuple[Map, ...] = ()
    curvature: tuple[Setting, ...] = ()
    overhead: tuple[Timing, ...] = ()
    cifar100: tuple[Setting, ...] = ()
    signals: tuple[Setting, ...] = ()
    optimisers: tuple[Sweep, ...] = ()
    draws: tuple[Sweep, ...] = ()
    labels: tuple[Setting, ...] = ()
    lemmas: tuple[Setting, ...] = ()
    logit_scales: tuple[Sweep, ...] = ()
    within_step: tuple[Sweep, ...] = ()
    alignments: tuple[Setting, ...] = ()
