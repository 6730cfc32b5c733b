"""A run as data: everything that determines its record, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Set
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, Final

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import shown
from lgn_analysis.training.config import DataConfig, NetworkConfig, TrainingConfig

RECORD_FORMAT: Final = 6
"""Goes up where a record means something else than before, as where a default changes its value."""

_NAMED: Final = frozenset(
    {"name", "relaxation", "tau", "tau_end", "width", "depth", "init", "seed"}
)
"""Fields of data, network and training that labels and columns name by themselves."""


@dataclass(frozen=True)
class ProbePlan:
    """What is measured beside the history, on the first ``samples`` of the training split.

    Attributes:
        samples: how many training samples every measurement is a mean over.
        trace_steps: training steps at which the trace of the Hessian is estimated.
        trace_probes: activation-space probes of each estimate.
        density_probes: probes of the spectral density at the end; 0 leaves it out.
        density_steps: Lanczos steps of each of them.
        lemma_steps: training steps at which Lemma 1 is measured; none leaves it out.
        lemma_scales: its noise scales.
        lemma_draws: noise draws at each scale.
        lemma_trace_probes: probes of the trace that Lemma 1 predicts with.
        lemma_order: highest order of its expansion, 2 to 4.
        anatomy_steps: training steps at which the gap is taken apart by layer and order.
        landscape_directions: random directions of the landscape at the end; 0 leaves it out.
        landscape_grid: points along each of them and along the top eigenvector.
        plane_grid: points along each side of a plane through the landscape; 0 leaves it out.
        signal_steps: training steps at which signals are measured layer by layer.
        signal_batches: batches of each such measurement.
        signal_draws: noise draws of each batch.
        hard_lemma_steps: training steps at which both lemmas are held against the hard noisy forward.
        hard_lemma_draws: noise draws of each such measurement.
        alignment_draws: noise draws over which the gradient is averaged, before the first step, to be held
            against the noise-free one; 0 leaves it out.
        usage_steps: training steps at which gate usage is measured layer by layer, as it is at the end.
    """

    samples: int = 256
    trace_steps: tuple[int, ...] = ()
    trace_probes: int = 4
    density_probes: int = 0
    density_steps: int = 40
    lemma_steps: tuple[int, ...] = ()
    lemma_scales: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    lemma_draws: int = 64
    lemma_trace_probes: int = 8
    lemma_order: int = 2
    anatomy_steps: tuple[int, ...] = ()
    landscape_directions: int = 0
    landscape_grid: int = 21
    plane_grid: int = 0
    signal_steps: tuple[int, ...] = ()
    signal_batches: int = 16
    signal_draws: int = 8
    hard_lemma_steps: tuple[int, ...] = ()
    hard_lemma_draws: int = 256
    alignment_draws: int = 0
    usage_steps: tuple[int, ...] = ()

    @property
    def steps(self) -> set[int]:
        """All training steps at which something is measured."""
        return {
            *(*self.trace_steps, *self.lemma_steps, *self.anatomy_steps, *self.signal_steps),
            *(*self.hard_lemma_steps, *self.usage_steps),
        }


@dataclass(frozen=True)
class TimingPlan:
    """Timed training steps of several methods in turns, in one process, instead of a training.

    Turns in mirrored order (a b c c b a) take a drift of the machine from all methods alike.

    Attributes:
        methods: relaxations, each on a network of its own with the same seed.
        rounds: turns of each method.
        steps: training steps of a turn.
        warm_up: steps before the first turn.
    """

    methods: tuple[str, ...]
    rounds: int = 20
    steps: int = 20
    warm_up: int = 5


@dataclass(frozen=True)
class RunSpec:
    """One training run with its probes, or one timing; everything that determines its record."""

    data: DataConfig
    network: NetworkConfig
    training: TrainingConfig
    probes: ProbePlan = field(default_factory=ProbePlan)
    timing: TimingPlan | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        missed = self.probes.steps - set(self.training.evaluated) if self.timing is None else set()
        if missed:
            raise InvalidInputError(
                f"probes at steps {sorted(missed)} of {self.label}, which is evaluated at "
                f"{shown(self.training.evaluated)}; put them there"
            )

    @property
    def key(self) -> str:
        """Name of the record: a hash of what differs from its default.

        A field that is added, with a default, leaves the names of all older records as they are.
        """
        content = json.dumps({"format": RECORD_FORMAT, **_chosen(self)}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """A name for a person: what is run, then every option that is not as by default."""
        net = self.network
        tau = f"{net.tau:g}"
        if self.training.tau_end is not None:
            tau += f"→{self.training.tau_end:g}"
        kind = f"{net.relaxation} tau={tau}" if self.timing is None else "timing"
        init = "" if net.init == "normal" else f" {net.init}"
        short = f"{self.data.name} {kind} {net.depth}x{net.width}{init} seed {self.training.seed}"
        return " ".join([short, *self._options()])

    @property
    def columns(self) -> dict[str, Any]:
        """What distinguishes the run, as columns of its tables.

        With a schedule ``tau`` is the temperature it begins with, and ``tau_end`` where it ends.
        ``options`` are those without a column of their own that are not as by default.
        """
        net, training = self.network, self.training
        options = self._options({"group_tau", "steps"})
        return {
            "run": self.key,
            "dataset": self.data.name,
            "relaxation": net.relaxation,
            "tau": net.tau,
            "tau_end": net.tau if training.tau_end is None else training.tau_end,
            "width": net.width,
            "depth": net.depth,
            "group_tau": net.group_tau,
            "init": net.init,
            "steps": training.steps,
            "seed": training.seed,
            "options": " ".join(options) or "default",
        }

    def _options(self, known: Set[str] = frozenset()) -> Iterator[str]:
        """Yield ``name=value`` of the fields that differ from their defaults, but for the ``known``."""
        for config in (self.data, self.network, self.training):
            for name, value in _chosen(config).items():
                if name not in _NAMED | known:
                    yield f"{name}={_shown(value)}"
        if self.network.seed != self.training.seed:
            yield f"network_seed={self.network.seed}"


def _shown(value: Any) -> str:
    """Return a value as a word.

    >>> _shown(1e-20), _shown((0.9, 0.99)), _shown("cosine")
    ('1e-20', '0.9,0.99', 'cosine')
    """
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _chosen(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that are not as by default, those within them alike."""
    chosen = {}
    for item in fields(config):
        value = getattr(config, item.name)
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if value != default:
            chosen[item.name] = _chosen(value) if is_dataclass(value) else value
    return chosen
