"""What a run is: its configuration in TOML, and the YAML of the paper's reference code.

``config.toml`` holds everything that is needed to run it again: the tables ``data``, ``network``
and ``training``.
"""

from __future__ import annotations

import difflib
import operator
import os
import tomllib
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

import tomli_w
import torch
import yaml

from lgn_analysis.checkpoints import replacing
from lgn_analysis.data import Dataset
from lgn_analysis.errors import ConfigError, InvalidInputError
from lgn_analysis.network import LogicNetwork
from lgn_analysis.schedules import CONSTANT, SCHEDULES, TauSchedule


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained.

    Attributes:
        steps: optimiser steps.
        batch_size: samples a step.
        lr: Adam's learning rate.
        seed: draws data order and noise.
        eval_every: steps between evaluations; None is a fiftieth of ``steps``.
        noise_draws: noise draws of the noisy accuracy at each evaluation.
        tau_schedule: how the gate temperature moves, ``"linear"``, ``"exponential"`` or
            ``"cosine"``; None or ``"constant"`` leaves it as it is. See
            :class:`lgn_analysis.schedules.TauSchedule`.
        tau_end: gate temperature that it moves to, given exactly where it moves.
        tau_steps: over how many steps; None is all of ``steps``.
    """

    steps: int = 20_000
    batch_size: int = 128
    lr: float = 0.01
    seed: int = 0
    eval_every: int | None = None
    noise_draws: int = 1
    tau_schedule: str | None = None
    tau_end: float | None = None
    tau_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "seed", "eval_every", "noise_draws", "tau_steps"):
            value = getattr(self, name)
            if value is None and name in ("eval_every", "tau_steps"):
                continue
            try:
                value = operator.index(value)
            except TypeError:
                raise InvalidInputError(f"{name} must be a whole number, got {value!r}") from None
            if value < 1 and name != "seed":
                raise InvalidInputError(f"{name} must be at least 1, got {value}")
            object.__setattr__(self, name, value)  # NumPy's numbers do not go into TOML
        object.__setattr__(self, "lr", float(self.lr))
        if not 0 < self.lr < float("inf"):
            raise InvalidInputError(f"lr must be finite and above zero, got {self.lr}")
        if not 0 <= self.seed < 2**63:
            raise InvalidInputError(f"seed must lie in 0..2**63-1, got {self.seed}")
        self._check_schedule()

    def _check_schedule(self) -> None:
        if self.tau_schedule in (None, CONSTANT):
            object.__setattr__(self, "tau_schedule", None)
            for name in ("tau_end", "tau_steps"):
                if getattr(self, name) is not None:
                    moving = " or ".join(SCHEDULES[1:])
                    raise InvalidInputError(
                        f"{name} is given and tau stays constant; give tau_schedule {moving} too, "
                        f"or leave {name} out"
                    )
            return
        if self.tau_schedule not in SCHEDULES:
            raise InvalidInputError(
                f"unknown tau_schedule {self.tau_schedule!r}; use one of {', '.join(SCHEDULES)}"
            )
        if self.tau_end is None:
            raise InvalidInputError(
                f"tau_schedule {self.tau_schedule!r} needs tau_end, the temperature it moves to"
            )
        object.__setattr__(self, "tau_end", float(self.tau_end))
        self.schedule(1.0)  # refuses an end that is none

    def schedule(self, start: float) -> TauSchedule | None:
        """Return the temperature's schedule from ``start`` on, or None where it stays."""
        if self.tau_schedule is None or self.tau_end is None:
            return None
        return TauSchedule(self.tau_schedule, start, self.tau_end, self.tau_steps or self.steps)

    @property
    def interval(self) -> int:
        """Steps between evaluations."""
        return self.eval_every or max(1, self.steps // 50)


@dataclass(frozen=True)
class NetworkConfig:
    """The shape and kind of a network; see :class:`lgn_analysis.LogicNetwork`."""

    width: int = 1000
    depth: int = 3
    group_tau: float = 20.0
    relaxation: str = "gumbel-st"
    tau: float = 1.0
    wiring: str = "random"
    init: str = "normal"
    seed: int = 0
    n_groups: int | None = None
    grad_factor: float = 1.0
    dtype: str = "float32"
    cage_tau_max: float | None = None
    cage_tau_min: float | None = None
    cage_decay: float | None = None

    def build(self, data: Dataset) -> LogicNetwork:
        """Return the network for a data set."""
        if self.dtype not in ("float32", "float64"):
            raise ConfigError(f"dtype must be float32 or float64, got {self.dtype!r}")
        arguments = asdict(self)
        arguments["dtype"] = getattr(torch, self.dtype)
        return LogicNetwork.from_config(
            {**arguments, "n_features": data.n_features, "n_classes": data.n_classes}
        )

    @classmethod
    def of(cls, model: LogicNetwork) -> NetworkConfig:
        """Return the configuration that builds a network like ``model``."""
        names = {item.name for item in fields(cls)}
        known = {name: value for name, value in model.config.items() if name in names}
        return cls(**known, dtype=str(model.dtype).removeprefix("torch."))


@dataclass(frozen=True)
class DataConfig:
    """Which data: a name that ``load_dataset`` knows, its thresholds, and a fingerprint."""

    name: str = "digits"
    thresholds: int | tuple[float, ...] | None = None
    fingerprint: str | None = None


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
        """Return the configuration in nested plain values, or name what is unknown or wrong."""
        kinds = {"data": DataConfig, "network": NetworkConfig, "training": TrainingConfig}
        for table in tables:
            if table not in kinds:
                raise ConfigError(_unknown(source, f"table [{table}]", table, kinds))
        return cls(
            **{
                table: _section(kind, tables.get(table, {}), f"{source}, table [{table}]")
                for table, kind in kinds.items()
            }
        )


def write_config(config: RunConfig, path: str | os.PathLike[str]) -> None:
    """Write ``config`` as TOML, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(tomli_w.dumps(config.to_dict()), encoding="utf-8")


def read_config(path: str | os.PathLike[str]) -> tuple[RunConfig, list[str]]:
    """Return the configuration in a TOML file, or in a YAML file of the paper's reference code.

    Returns:
        The configuration, and a sentence for each thing in the file that is ignored.

    Raises:
        ConfigError: the file is missing, torn, or says something unknown.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    if path.suffix in (".yaml", ".yml"):
        try:
            mapping = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
            raise ConfigError(f"{path} is not valid YAML: {_one_line(error)}") from error
        if not isinstance(mapping, dict):
            raise ConfigError(f"{path} should hold keys and values, as the paper's YAML files do")
        return paper_config(mapping, source=str(path))
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {_one_line(error)}") from error
    return RunConfig.from_dict(tables, source=str(path)), []


_PAPER_DATASETS: Final = {"CIFAR10": "cifar10", "CIFAR100": "cifar100", "MNIST": "mnist"}
_PAPER_DTYPES: Final = {16: "float32", 32: "float32", 64: "float64"}
_PAPER_INITS: Final = {"randn": "normal", "normal": "normal", "residual": "residual"}
_PAPER_IGNORED: Final = ("experiment_name", "save_final_model", "save_model_per_eval")
_PAPER_REQUIRED: Final = ("dataset", "num_layers", "num_neurons", "num_iterations", "tau")


def paper_config(
    mapping: Mapping[str, Any], *, source: str = "the YAML file"
) -> tuple[RunConfig, list[str]]:
    """Return the run that a YAML file of the paper's reference code describes.

    ``tau`` is the group-sum temperature, ``gumbel_tau`` the gate temperature, ``init: randn`` is
    ``normal``, wiring is ``unique``, ``stochastic: softmax | gumbel`` is Soft | GumbelST. The
    reference code's 100 output groups for CIFAR-10 are kept only with a key ``n_groups: 100``.

    Returns:
        The configuration, and a sentence for each key that is ignored or read otherwise.
    """
    values = dict(mapping)
    notes: list[str] = []
    for key in _PAPER_REQUIRED:
        if key not in values:
            raise ConfigError(f"{source} has no key {key!r}, which says what to train")
    known = {
        *_PAPER_REQUIRED,
        *_PAPER_IGNORED,
        *("seed", "training_bit_count", "grad_factor", "gumbel_tau", "stochastic"),
        *("batch_size", "lr", "init", "n_groups", "resume_checkpoint"),
    }
    for key in values:
        if key not in known:
            raise ConfigError(_unknown(source, f"key {key!r}", str(key), known))
    if values.get("resume_checkpoint") is not None:
        raise ConfigError(
            f"{source} resumes from {values['resume_checkpoint']!r}, a checkpoint of another "
            "program; remove resume_checkpoint to train anew"
        )
    notes += [f"{key} is ignored" for key in _PAPER_IGNORED if key in values]

    name = str(values["dataset"]).upper()
    dataset = _PAPER_DATASETS.get(name, str(values["dataset"]).lower())
    stochastic = _choice(source, values, "stochastic", {"softmax": "soft", "gumbel": "gumbel-st"})
    tau = _number(source, values, "gumbel_tau", 1.0)
    if stochastic == "soft" and tau != 1.0:
        notes.append(f"gumbel_tau {tau} is ignored: stochastic softmax has gate temperature 1")
        tau = 1.0
    bits = _whole(source, values, "training_bit_count", 32)
    if bits not in _PAPER_DTYPES:
        raise ConfigError(f"{source}: training_bit_count must be 16, 32 or 64, got {bits}")
    if bits == 16:
        notes.append("training_bit_count 16 is read as 32: inputs are bits, weights are float32")
    if dataset == "cifar10" and "n_groups" not in values:
        notes.append("10 output groups, where the reference code has 100 (add n_groups: 100)")
    seed = _whole(source, values, "seed", 0)
    try:
        config = RunConfig(
            data=DataConfig(name=dataset, thresholds=31 if dataset.startswith("cifar") else None),
            network=NetworkConfig(
                width=_whole(source, values, "num_neurons"),
                depth=_whole(source, values, "num_layers"),
                group_tau=_number(source, values, "tau"),
                relaxation=stochastic,
                tau=tau,
                wiring="unique",
                init=_choice(source, values, "init", _PAPER_INITS, "randn"),
                seed=seed,
                n_groups=_whole(source, values, "n_groups") if "n_groups" in values else None,
                grad_factor=_number(source, values, "grad_factor", 1.0),
                dtype=_PAPER_DTYPES[bits],
            ),
            training=TrainingConfig(
                steps=_whole(source, values, "num_iterations"),
                batch_size=_whole(source, values, "batch_size", 128),
                lr=_number(source, values, "lr", 0.01),
                seed=seed,
                eval_every=2000,
            ),
        )
    except ConfigError:
        raise
    except InvalidInputError as error:
        raise ConfigError(f"{source}: {error}") from error
    return config, notes


def _section(kind: type[Any], values: Any, source: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source} should be a table of keys and values")
    hints = get_type_hints(kind)
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(_unknown(source, f"key {key!r}", key, hints))
        accepted = _alternatives(hints[key])
        if not any(_fits(value, hint) for hint in accepted):
            wanted = " or ".join(_HINT_NAMES[get_origin(hint) or hint] for hint in accepted)
            raise ConfigError(f"{source}: {key} must be {wanted}, got {value!r}")
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
    str: "a text",
    tuple: "a list of numbers",
}


def _alternatives(hint: Any) -> list[Any]:
    """Return the types in a union other than None, which a file cannot say."""
    union = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return [item for item in union if item is not type(None)]


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is tuple:
        return isinstance(value, (list, tuple)) and all(_fits(item, float) for item in value)
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)


def _number(
    source: str, values: Mapping[str, Any], key: str, default: float | None = None
) -> float:
    value = values.get(key, default)
    try:
        # YAML 1.1 reads 1e-2 as a text.
        return float(str(value))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source}: {key} must be a number, got {value!r}") from error


def _whole(source: str, values: Mapping[str, Any], key: str, default: int | None = None) -> int:
    given = values.get(key, default)
    if isinstance(given, int) and not isinstance(given, bool):
        return given  # exact, where a float would round a large seed
    value = _number(source, values, key, default)
    if not value.is_integer():
        raise ConfigError(f"{source}: {key} must be a whole number, got {value}")
    return int(value)


def _choice(
    source: str,
    values: Mapping[str, Any],
    key: str,
    choices: Mapping[str, str],
    default: str = "softmax",
) -> str:
    value = values.get(key, default)
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{source}: {key} must be one of {', '.join(choices)}, got {value!r}")
    return choices[value]


def _unknown(source: str, what: str, name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
    return f"{source} has an unknown {what}; {hint}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
