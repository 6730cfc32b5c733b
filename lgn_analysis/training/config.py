"""What a run is: its configuration in TOML, and the YAML of the paper's reference code.

``config.toml`` holds everything that is needed to run it again: the tables ``data``, ``network``
and ``training``.
"""

from __future__ import annotations

import difflib
import math
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

from lgn_analysis.base.errors import ConfigError, InvalidInputError
from lgn_analysis.base.files import replacing
from lgn_analysis.base.validation import positive, real, seed_number, shown, whole
from lgn_analysis.data import Dataset
from lgn_analysis.gates.initialisation import INITIALISATIONS
from lgn_analysis.gates.relaxations import OPTIONS, relaxation_from
from lgn_analysis.gates.schedules import CONSTANT, SCHEDULES, TauSchedule
from lgn_analysis.gates.wiring import WIRINGS
from lgn_analysis.network import LogicNetwork


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
            :class:`lgn_analysis.gates.schedules.TauSchedule`.
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
            value = whole(name, value, least=None if name == "seed" else 1)
            object.__setattr__(self, name, value)  # NumPy's numbers do not go into TOML
        object.__setattr__(self, "lr", positive("lr", self.lr))
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
        object.__setattr__(self, "tau_end", real("tau_end", self.tau_end))
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
        # Refuses what fits no relaxation.
        relaxation_from({name: getattr(self, name) for name in ("relaxation", "tau", *OPTIONS)})

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
    except (OSError, ValueError) as error:
        why = _why_unreadable(path, error)
        raise ConfigError(f"cannot read the configuration {path}: {why}") from error
    if path.suffix in (".yaml", ".yml"):
        try:
            mapping = yaml.load(text, _PlainLoader)
        # ValueError: a date that is none, or a number of too many digits.
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is not valid YAML: {_one_line(error)}") from error
        if not isinstance(mapping, dict):
            held = "nothing" if mapping is None else shown(mapping)
            raise ConfigError(
                f"{path} should hold keys and values, as the paper's YAML files do, and holds {held}"
            )
        return paper_config(mapping, source=str(path))
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {_one_line(error)}") from error
    return RunConfig.from_dict(tables, source=str(path)), []


class _PlainLoader(yaml.SafeLoader):
    """Values alone: no tag is obeyed, no key may come twice, and none may stand for another value.

    A few lines of aliases to aliases would fill any memory.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise _problem("an alias stands for a value; write the value", self.peek_event())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen if isinstance(key.value, str) else False:
                raise _problem(f"the key {key.value!r} comes twice; keep one", key)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def refuse(self, node: Any) -> None:
        raise _problem(f"the tag {node.tag} asks for more than a value; remove it", node)


_PlainLoader.add_constructor(None, _PlainLoader.refuse)


def _problem(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


_PAPER_DATASETS: Final = {"CIFAR10": "cifar10", "CIFAR100": "cifar100", "MNIST": "mnist"}
_PAPER_DTYPES: Final = {16: "float32", 32: "float32", 64: "float64"}
_PAPER_INITS: Final = {"randn": "normal", "normal": "normal", "residual": "residual"}
_PAPER_KEYS: Final = {
    "depth": "num_layers",
    "width": "num_neurons",
    "steps": "num_iterations",
    "group_tau": "tau",
    "tau": "gumbel_tau",
}
"""What these files call what this package has another name for."""
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

    name = values["dataset"]
    if not isinstance(name, str):
        raise ConfigError(f"{source}: dataset must be a text, got {shown(name)}")
    dataset = _PAPER_DATASETS.get(name.upper(), name.lower())
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
        name, _, rest = str(error).partition(" ")
        raise ConfigError(f"{source}: {_PAPER_KEYS.get(name, name)} {rest}") from error
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
        return real(key, float(value) if isinstance(value, str) else value)
    except (InvalidInputError, ValueError) as error:
        raise ConfigError(f"{source}: {key} must be a number, got {shown(value)}") from error


def _whole(source: str, values: Mapping[str, Any], key: str, default: int | None = None) -> int:
    given = values.get(key, default)
    if isinstance(given, int) and not isinstance(given, bool):
        return given  # exact, where a float would round a large seed
    value = _number(source, values, key, default)
    if not value.is_integer():
        raise ConfigError(f"{source}: {key} must be a whole number, got {shown(value)}")
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
        raise ConfigError(
            f"{source}: {key} must be one of {', '.join(choices)}, got {shown(value)}"
        )
    return choices[value]


def _unknown(source: str, what: str, name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
    return f"{source} has an unknown {what}; {hint}"


def _why_unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is none; give a TOML file, or a YAML file of the paper's code"
    if isinstance(error, IsADirectoryError):
        return f"it is a directory; give the file in it, for instance {path / 'config.toml'}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is no UTF-8; save it in that encoding"
    return _one_line(error)


def _one_line(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        mark = error.problem_mark
        return f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(str(error).split())
