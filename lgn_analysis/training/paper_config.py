"""The YAML files of the paper's reference code, read as configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lgn_analysis.base.errors import ConfigError, InvalidInputError
from lgn_analysis.base.validation import real, shown
from lgn_analysis.training.config import (
    DataConfig,
    NetworkConfig,
    RunConfig,
    TrainingConfig,
    unknown,
)

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
    reference code's 100 output groups for CIFAR-10 are kept only with a key ``n_groups: 100``. Its
    optimiser is torch's Adam with an epsilon of 1e-8, which are the defaults here.

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
            raise ConfigError(unknown(source, f"key {key!r}", str(key), known))
    if values.get("resume_checkpoint") is not None:
        raise ConfigError(
            f"{source} resumes from {values['resume_checkpoint']!r}, a checkpoint of another "
            "program; remove resume_checkpoint to train anew"
        )
    notes += [f"{key} is ignored" for key in _PAPER_IGNORED if key in values]

    name = values["dataset"]
    if not isinstance(name, str):
        raise ConfigError(f"{source}: dataset must be a string, got {shown(name)}")
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


def _number(
    source: str, values: Mapping[str, Any], key: str, default: float | None = None
) -> float:
    value = values.get(key, default)
    try:
        # YAML 1.1 reads 1e-2 as a string.
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
