"""What a run will cost, before it is made: seconds and peak memory.

On a CPU from measured nanoseconds, one thread of an AMD EPYC (family 26): a training step in
nanoseconds a gate at batch 128, a probe in nanoseconds a gate and sample. On a GPU a training step
is bound by memory, so from the bytes that it moves and a stated bandwidth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import pandas as pd

from lgn_analysis.data import DATASETS, load_dataset
from lgn_analysis.data.labels import INDEPENDENT
from lgn_analysis.experiments.measures import timing_table
from lgn_analysis.experiments.specs import RunSpec, TimingPlan
from lgn_analysis.experiments.sweep.compilation import compiled, parts_of
from lgn_analysis.gates.footprint import EVALUATED
from lgn_analysis.training.config import DataConfig, NetworkConfig, TrainingConfig

_STEP_NS: Final = {
    "soft": 80.0,
    "gumbel-soft": 90.0,
    "gumbel-st": 45.0,
    "hard-st": 35.0,
    "cage": 40.0,
}
"""Nanoseconds a gate of one training step of 128 samples."""
_STEP_SAMPLES: Final = 128
_STEP_OVERHEAD: Final = 30e-6
_EVALUATION_NS: Final = 1.0
"""Nanoseconds a gate and sample of an evaluation, soft, noisy and discrete."""
_USAGE_NS: Final = 1500.0
"""Nanoseconds a gate of counting unused gates at an evaluation."""

_PROBE_NS: Final = 40.0
_TRACE_NS: Final = 5.0
_PRODUCT_NS: Final = 1.7
_LEMMA_NS: Final = 8.0
_SCALE_NS: Final = 6.0
_HARD_LEMMA_NS: Final = 300.0
_HARD_DRAW_NS: Final = 2.0
_ANATOMY_NS: Final = 140.0
_POINT_NS: Final = 5.0
_PLANE_NS: Final = 0.5
"""Nanoseconds a gate and sample: of making a probe, of each of its probes and products, of a draw of
the lemma and of each scale in it, of the hard lemma's prediction and of each of its draws, of an anatomy,
and of a point of a landscape in double and in single precision."""
_GRADIENT_OVERHEAD: Final = 1e-3
"""Seconds of a gradient that is taken apart, beside those of two steps."""

BANDWIDTH: Final = 2.0e12
"""Bytes a second of a GPU's memory: an A100 of 80 GB."""
EFFICIENCY: Final = 0.5
_LOGIT_BYTES: Final = 16 * 4 * 8
"""Bytes a gate and step: logits and two moments read and written, a gradient written and read."""
_SAMPLE_BYTES: Final = {"soft": 28.0, "gumbel-soft": 28.0}
_SAMPLE_BYTES_HARD: Final = 16.0
"""Bytes a gate and sample: activations and their gradients, written once and read twice; where gates
are hard the activations are bits."""

_PROCESS_BYTES: Final = 5e8
_GRAPH_BYTES: Final = 8 * 16
_MOST_GRAPH: Final = 2**30


_CALIBRATION: Final = RunSpec(
    data=DataConfig(),
    network=NetworkConfig(width=500, depth=2, group_tau=10.0),
    training=TrainingConfig(),
    timing=TimingPlan(("soft", "gumbel-st"), rounds=5, steps=200),
)
"""A third of a second, where costs were measured."""


@dataclass(frozen=True)
class Estimate:
    """What a set of runs will cost.

    Attributes:
        seconds: of all runs one after another: core seconds, or seconds of one GPU.
        bytes: peak memory of the largest run.
        runs: a row a run: label, device, seconds, bytes.
    """

    seconds: float
    bytes: float
    runs: pd.DataFrame

    def wall(self, workers: int) -> float:
        """Return seconds with so many workers, each on a core or GPU of its own.

        No less than the longest run.
        """
        longest = float(self.runs["seconds"].max()) if len(self.runs) else 0.0
        return max(self.seconds / workers, longest)

    def __repr__(self) -> str:
        devices = ", ".join(sorted(self.runs["device"].unique())) if len(self.runs) else "no device"
        return (
            f"Estimate({len(self.runs)} runs on {devices}: {duration(self.seconds)} one after "
            f"another, up to {self.bytes / 2**30:.1f} GiB a run)"
        )


def estimate_runs(specs: Iterable[RunSpec]) -> Estimate:
    """Return what the runs cost, equal ones once."""
    unique = {spec.key: spec for spec in specs}.values()
    runs = pd.DataFrame(
        [
            {
                "label": spec.label,
                "device": spec.device,
                "seconds": cost(spec),
                "bytes": memory(spec),
            }
            for spec in unique
        ],
        columns=["label", "device", "seconds", "bytes"],
    )
    most = float(runs["bytes"].max()) if len(runs) else 0.0
    return Estimate(float(runs["seconds"].sum()), most, runs)


def cost(spec: RunSpec) -> float:
    """Return seconds of one run on its own core or GPU."""
    gates = spec.network.width * spec.network.depth
    if spec.timing is not None:
        plan = spec.timing
        steps = plan.warm_up + plan.rounds * plan.steps
        return sum(steps * _step(spec, gates, method) for method in plan.methods)
    training = spec.training
    evaluations = len(training.evaluated)
    passes = training.steps * training.draws_per_step
    seconds = passes * _step(spec, gates, spec.network.relaxation)
    sizes = DATASETS[spec.data.name].sizes
    evaluated = sizes[1] + sizes[2]
    if spec.device != "cpu":
        moved = gates * (evaluated * 12.0 + _LOGIT_BYTES)
        return seconds + evaluations * moved / (BANDWIDTH * EFFICIENCY) + _probes(spec, gates) / 50
    interim_analyses = gates * (evaluated * _EVALUATION_NS + _USAGE_NS) * 1e-9
    return seconds + evaluations * interim_analyses + _probes(spec, gates)


def slowness_of(specs: Iterable[RunSpec]) -> float | None:
    """Return what training steps take now over what :func:`cost` says; None where unknown.

    It is known of runs on this machine's CPU whose kernels are compiled already.
    """
    if any(spec.device != "cpu" for spec in specs) or not compiled(parts_of([_CALIBRATION])):
        return None
    taken = timing_table(_CALIBRATION, load_dataset(_CALIBRATION.data.name))["seconds"].sum()
    return float(taken) / cost(_CALIBRATION)


def _step(spec: RunSpec, gates: int, method: str) -> float:
    batch = spec.training.batch_size
    if spec.device != "cpu":
        bytes_moved = _LOGIT_BYTES + batch * _SAMPLE_BYTES.get(method, _SAMPLE_BYTES_HARD)
        return _STEP_OVERHEAD + gates * bytes_moved / (BANDWIDTH * EFFICIENCY)
    return _STEP_OVERHEAD + gates * _STEP_NS[method] * 1e-9 * batch / _STEP_SAMPLES


def _probes(spec: RunSpec, gates: int) -> float:
    plan = spec.probes
    work = len(plan.trace_steps) * (_PROBE_NS + plan.trace_probes * _TRACE_NS)
    work += plan.density_probes * plan.density_steps * _PRODUCT_NS
    draw = _LEMMA_NS + len(plan.lemma_scales) * _SCALE_NS
    work += len(plan.lemma_steps) * plan.lemma_draws * draw
    # Beside the hard lemma there is Lemma 1 at a single scale.
    both = _HARD_LEMMA_NS + plan.hard_lemma_draws * _HARD_DRAW_NS
    both += plan.lemma_draws * (_LEMMA_NS + _SCALE_NS)
    work += len(plan.hard_lemma_steps) * both
    work += len(plan.anatomy_steps) * _ANATOMY_NS
    if plan.landscape_directions:
        work += (plan.landscape_directions + 1) * plan.landscape_grid * _POINT_NS
        work += plan.plane_grid**2 * _PLANE_NS + 100 * _PRODUCT_NS
    counts = len(plan.usage_steps) * gates * _USAGE_NS * 1e-9
    gradients = len(plan.signal_steps) * plan.signal_batches * plan.signal_draws
    step = _step(spec, gates, spec.network.relaxation)
    seconds = gradients * step + plan.alignment_draws * (2 * step + _GRADIENT_OVERHEAD)
    return seconds + counts + gates * plan.samples * work * 1e-9


def memory(spec: RunSpec) -> float:
    """Return bytes that one run takes at its peak, about."""
    gates = spec.network.width * spec.network.depth
    plan = spec.probes
    data = DATASETS[spec.data.name]
    thresholds = spec.data.thresholds
    features = data.n_features
    if isinstance(thresholds, int):
        features = data.n_values * thresholds
    networks = 1 if spec.timing is None else len(spec.timing.methods)
    arrays = 4 if spec.training.draws_per_step == 1 else 5
    logits = networks * gates * 16 * 4 * arrays
    # Training keeps every layer's outputs and their gradients, an evaluation two layers at a time.
    activations = networks * gates * spec.training.batch_size * 4 * 2
    activations = max(activations, 3 * spec.network.width * EVALUATED * 4)
    probing = min(_MOST_GRAPH, gates * plan.samples * _GRAPH_BYTES) if spec.timing is None else 0
    copies = data.n_classes if spec.data.labels == INDEPENDENT else 1
    samples = sum(data.sizes) + (copies - 1) * data.sizes[0]
    return _PROCESS_BYTES + samples * features + logits + max(activations, probing)


def duration(seconds: float) -> str:
    """Return a length of time for a person.

    >>> duration(42), duration(150), duration(5000), duration(200_000)
    ('42 s', '2.5 min', '1.4 h', '2.3 days')
    """
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}"
    return f"{max(1.0, seconds):.0f} s"
