"""The configuration of a run: every option is a field here, with its default and its help.

Command line, TOML and cached runs take them from these fields; the signatures of
:func:`lgn_analysis.train` and :class:`lgn_analysis.LogicNetwork` are held to them by a test.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, get_args, get_origin, get_type_hints

import torch

from lgn_analysis.base.errors import ConfigError, InvalidInputError
from lgn_analysis.base.validation import positive, real, seed_number, shown, whole
from lgn_analysis.data import Dataset, load_dataset, relabelled
from lgn_analysis.data.labels import LABELS, PERMUTED, TRUE
from lgn_analysis.gates.initialisation import INITIALISATIONS
from lgn_analysis.gates.parametrisations import GATES16, PARAMETRISATIONS, get_parametrisation
from lgn_analysis.gates.relaxations import CAGE, OPTIONS, RELAXATIONS, relaxation_from
from lgn_analysis.gates.schedules import CONSTANT, SCHEDULES, TauSchedule
from lgn_analysis.gates.wiring import WIRINGS
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training import optimiser

LINEAR: Final = "linear"
LOG: Final = "log"
EVAL_SPACINGS: Final = (LINEAR, LOG)
_EIGHT_A_DECADE: Final = (10, 13, 18, 24, 32, 42, 56, 75, 100)
"""``10 · 10^(k/8)``, k = 0..8, to two digits."""


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    default_text: str | None = None,
) -> Any:
    """Return a dataclass field from which the command line makes a flag.

    Args:
        default: its default.
        help: what it means, for ``--help`` and for the documentation.
        choices: the values that there are.
        default_text: how ``--help`` describes a default of None.
    """
    metadata = {"help": help, "choices": tuple(choices), "default_text": default_text}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained: options of :func:`lgn_analysis.train`."""

    steps: int = option(20_000, "optimiser steps")
    batch_size: int = option(128, "samples a step")
    lr: float = option(0.01, "Adam's learning rate")
    seed: int = option(0, "draws data order and noise")
    eval_every: int | None = option(
        None, "steps between evaluations", default_text="a fiftieth of the steps"
    )
    noise_draws: int = option(1, "noise draws of the noisy accuracy at each evaluation")
    tau_schedule: str | None = option(
        None,
        "how the gate temperature moves to tau_end",
        choices=SCHEDULES,
        default_text=CONSTANT,
    )
    tau_end: float | None = option(
        None, "gate temperature that a schedule ends at", default_text="none"
    )
    tau_steps: int | None = option(None, "steps that the schedule takes", default_text="all steps")
    eps: float = option(1e-8, "Adam's epsilon; gradients far below it move no logit")
    betas: tuple[float, float] = option((0.9, 0.999), "Adam's decay of either moment")
    weight_decay: float = option(0.0, "decoupled weight decay, as AdamW's")
    lr_schedule: str = option(
        optimiser.CONSTANT,
        "how the learning rate moves after warmup_steps: cosine falls from lr to zero; warmup is "
        "constant by its old name",
        choices=optimiser.LR_SCHEDULES,
    )
    warmup_steps: int | None = option(
        None, "steps in which the learning rate rises linearly to lr", default_text="none"
    )
    cosine_steps: int | None = option(
        None,
        "steps after warmup_steps in which cosine reaches zero",
        default_text="all that remain",
    )
    draws_per_step: int = option(1, "noise draws of a step, whose gradients are averaged")
    eval_spacing: str = option(
        LINEAR,
        "log evaluates also at steps 10, 13, 18, …, eight a decade, before the first eval_every",
        choices=EVAL_SPACINGS,
    )

    def __post_init__(self) -> None:
        optional = ("eval_every", "tau_steps", "warmup_steps", "cosine_steps")
        needed = ("steps", "batch_size", "seed", "noise_draws", "draws_per_step")
        for name in (*needed, *optional):
            value = getattr(self, name)
            if value is None and name in optional:
                continue
            value = whole(name, value, least=None if name == "seed" else 1)
            object.__setattr__(self, name, value)  # NumPy's numbers do not go into TOML
        object.__setattr__(self, "lr", positive("lr", self.lr))
        object.__setattr__(self, "eps", optimiser.checked_eps(self.eps))
        object.__setattr__(self, "betas", optimiser.checked_betas(self.betas))
        object.__setattr__(self, "weight_decay", optimiser.checked_decay(self.weight_decay))
        _ = self.learning_rates  # refuses what is no schedule
        if self.eval_spacing not in EVAL_SPACINGS:
            known = ", ".join(EVAL_SPACINGS)
            raise InvalidInputError(
                f"unknown eval_spacing {shown(self.eval_spacing)}; use one of {known}"
            )
        if not 0 <= self.seed < 2**63:
            raise InvalidInputError(f"seed must lie in 0..2**63-1, got {self.seed}")
        if self.tau_schedule == CONSTANT:
            object.__setattr__(self, "tau_schedule", None)
        if self.tau_schedule is None:
            for name in ("tau_end", "tau_steps"):
                if getattr(self, name) is not None:
                    moving = " or ".join(SCHEDULES[1:])
                    raise InvalidInputError(
                        f"{name} is given and tau stays constant; give tau_schedule {moving} too, "
                        f"or leave {name} out"
                    )
        elif self.tau_end is not None:
            object.__setattr__(self, "tau_end", real("tau_end", self.tau_end))
            self.schedule(1.0)  # refuses what is no schedule
        elif self.tau_schedule in SCHEDULES:
            raise InvalidInputError(
                f"tau_schedule {self.tau_schedule!r} needs tau_end, the temperature it moves to"
            )
        else:
            TauSchedule(self.tau_schedule, 1.0, 1.0, 1)  # refuses its name

    def resumed(self, steps: int) -> TrainingConfig:
        """Return the configuration of the same run with another number of steps.

        Its schedules were fixed when it began: more steps move no evaluation, no tau, no learning rate.
        """
        tau_steps = None if self.tau_schedule is None else self.tau_steps or self.steps
        rates = self.learning_rates
        return replace(
            self,
            steps=steps,
            eval_every=self.interval,
            tau_steps=tau_steps,
            cosine_steps=None if rates is None else rates.cosine_steps,
        )

    @property
    def learning_rates(self) -> optimiser.LrSchedule | None:
        """The learning rate's schedule, or None where it stays."""
        steps = (self.steps, self.warmup_steps, self.cosine_steps)
        return optimiser.LrSchedule.of(self.lr_schedule, self.lr, *steps)

    def schedule(self, start: float) -> TauSchedule | None:
        """Return the temperature's schedule from ``start`` on, or None where it stays."""
        if self.tau_schedule is None or self.tau_end is None:
            return None
        return TauSchedule(self.tau_schedule, start, self.tau_end, self.tau_steps or self.steps)

    @property
    def interval(self) -> int:
        """Steps between evaluations; with log spacing there are more before the first of them."""
        return self.eval_every or max(1, self.steps // 50)

    def next_evaluation(self, step: int) -> int:
        """Return the first step after ``step`` at which the run is evaluated.

        >>> TrainingConfig(steps=45, eval_every=20, eval_spacing="log").evaluated
        (0, 10, 13, 18, 20, 40, 45)
        """
        upcoming = (step // self.interval + 1) * self.interval
        if self.eval_spacing == LOG and step < self.interval:
            unit = 10 ** max(0, len(str(step)) - 2)
            later = next(n * unit for n in _EIGHT_A_DECADE if n * unit > step)
            upcoming = min(upcoming, later)
        return min(upcoming, self.steps)

    @property
    def evaluated(self) -> tuple[int, ...]:
        """The steps at which the run is evaluated, 0 and the last one among them."""
        found = [0]
        while found[-1] < self.steps:
            found.append(self.next_evaluation(found[-1]))
        return tuple(found)


@dataclass(frozen=True)
class NetworkConfig:
    """The shape and kind of a network: options of :class:`lgn_analysis.LogicNetwork`."""

    width: int = option(1000, "gates a layer, a multiple of the classes")
    depth: int = option(3, "number of layers")
    group_tau: float = option(20.0, "group-sum temperature")
    relaxation: str = option(
        "gumbel-st",
        "soft is the noise-free DLGN, gumbel-st the GLGN of the paper, hard-st and cage select "
        "gates without noise",
        choices=tuple(RELAXATIONS),
    )
    parametrisation: str = option(
        GATES16,
        "trainable numbers of a gate: sixteen logits, or four that give its truth table",
        choices=tuple(PARAMETRISATIONS),
    )
    tau: float = option(1.0, "gate temperature, with a schedule that of the first step")
    wiring: str = option("random", "which inputs the gates read", choices=WIRINGS)
    init: str = option(
        "normal",
        "initial logits; residual starts with gates that pass an input on",
        choices=INITIALISATIONS,
    )
    seed: int = option(0, "draws wiring and initial logits")
    n_groups: int | None = option(
        None, "output groups, where more than classes", default_text="the classes"
    )
    grad_factor: float = option(1.0, "multiplies the gradient at each layer's input")
    dtype: str = option("float32", "dtype of the logits", choices=("float32", "float64"))
    cage_tau_max: float | None = option(
        None,
        "temperature of CAGE's gradient at no confidence",
        default_text=f"{CAGE.tau_max:g}",
    )
    cage_tau_min: float | None = option(
        None,
        "temperature of CAGE's gradient at full confidence",
        default_text=f"{CAGE.tau_min:g}",
    )
    cage_decay: float | None = option(
        None,
        "how much of its confidence CAGE keeps at each step",
        default_text=f"{CAGE.decay:g}",
    )

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            whole(name, getattr(self, name), least=1)
        seed_number(self.seed)
        if self.n_groups is not None:
            whole("n_groups", self.n_groups, least=1)
        positive("group_tau", self.group_tau)
        positive("tau", self.tau)
        if not math.isfinite(real("grad_factor", self.grad_factor)):
            raise InvalidInputError(f"grad_factor must be finite, got {self.grad_factor}")
        for name, known in (("wiring", WIRINGS), ("init", INITIALISATIONS)):
            if getattr(self, name) not in known:
                raise InvalidInputError(
                    f"unknown {name} {getattr(self, name)!r}; use one of {', '.join(known)}"
                )
        if self.dtype not in ("float32", "float64"):
            raise ConfigError(f"dtype must be float32 or float64, got {self.dtype!r}")
        names = ("relaxation", "tau", *OPTIONS)
        # Refuses what fits no relaxation, or one that fits no such gates.
        relaxation = relaxation_from({name: getattr(self, name) for name in names})
        get_parametrisation(self.parametrisation).check(relaxation)

    def build(self, data: Dataset) -> LogicNetwork:
        """Return the network for a data set."""
        arguments = asdict(self)
        arguments["dtype"] = getattr(torch, self.dtype)
        return LogicNetwork.from_config(
            {**arguments, "n_features": data.n_features, "n_classes": data.n_classes}
        )

    @classmethod
    def of(cls, model: LogicNetwork) -> NetworkConfig:
        """Return the configuration that builds a network like ``model``."""
        if not isinstance(model, LogicNetwork):
            raise InvalidInputError(
                f"only a LogicNetwork has a configuration to train by, got {type(model).__name__}"
            )
        names = {item.name for item in fields(cls)}
        known = {name: value for name, value in model.config.items() if name in names}
        return cls(**known, dtype=str(model.dtype).removeprefix("torch."))


@dataclass(frozen=True)
class DataConfig:
    """Which data, by a name of :func:`lgn_analysis.load_dataset`."""

    name: str = option("digits", "name of a data set; `lgn-analysis datasets` lists them")
    thresholds: int | tuple[float, ...] | None = option(
        None, "number of thermometer thresholds", default_text="the data set's own"
    )
    fingerprint: str | None = None
    labels: str = option(
        TRUE,
        "training labels: permuted ones can only be learnt by heart, and independent ones, each sample "
        "with every class, not at all",
        choices=LABELS,
    )
    label_seed: int = option(0, "draws the permutation of the labels")

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise InvalidInputError(
                f"unknown labels {self.labels!r}; use one of {', '.join(LABELS)}"
            )
        object.__setattr__(self, "label_seed", seed_number(self.label_seed, "label_seed"))
        if self.label_seed and self.labels != PERMUTED:
            raise InvalidInputError(
                f"label_seed is given and labels are {self.labels}; give labels {PERMUTED}, or leave "
                "label_seed out"
            )

    def load(self) -> Dataset:
        """Return the data."""
        data = load_dataset(self.name, self.thresholds)
        return relabelled(data, self.labels, seed=self.label_seed)

    @classmethod
    def of(cls, data: Dataset) -> DataConfig:
        """Return the configuration that loads ``data``, where their name is that of a data set."""
        return cls(data.name, data.thresholds, data.fingerprint, data.labels, data.label_seed)


@dataclass(frozen=True)
class RunConfig:
    """Everything that is needed to run a training again."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values without the None ones (TOML has none)."""
        return {
            table: {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in values.items()
                if value is not None
            }
            for table, values in asdict(self).items()
        }

    @classmethod
    def from_dict(
        cls, tables: Mapping[str, Any], *, source: str = "the configuration"
    ) -> RunConfig:
        """Return the configuration in nested plain values, or raise with the name of what is unknown or wrong."""
        kinds = {"data": DataConfig, "network": NetworkConfig, "training": TrainingConfig}
        for table in tables:
            if table not in kinds:
                raise ConfigError(unknown(source, f"table [{table}]", table, kinds))
        return cls(
            **{
                table: _section(kind, tables.get(table, {}), f"{source}, table [{table}]")
                for table, kind in kinds.items()
            }
        )


def _section(kind: type[Any], values: Any, source: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source} should be a table of keys and values")
    hints = get_type_hints(kind)
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(unknown(source, f"key {key!r}", key, hints))
        accepted = _alternatives(hints[key])
        if not any(_fits(value, hint) for hint in accepted):
            wanted = " or ".join(_HINT_NAMES[get_origin(hint) or hint] for hint in accepted)
            raise ConfigError(f"{source}: {key} must be {wanted}, got {shown(value)}")
    plain = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    try:
        return kind(**plain)
    except (InvalidInputError, TypeError) as error:
        raise ConfigError(f"{source}: {error}") from error


_HINT_NAMES: Final[dict[Any, str]] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    tuple: "a list of numbers",
}


def _alternatives(hint: Any) -> list[Any]:
    """Return the types in a union other than None, which a file cannot hold."""
    union = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return [item for item in union if item is not type(None)]


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is tuple:
        return isinstance(value, (list, tuple)) and all(_fits(item, float) for item in value)
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)


def unknown(source: str, what: str, name: str, known: Any) -> str:
    """Return the message for an unknown name, with the closest known one."""
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
    return f"{source} has an unknown {what}; {hint}"
