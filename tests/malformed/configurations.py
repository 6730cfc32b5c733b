"""Configurations that are none: the text of a file, and all that is said of it.

``{file}`` stands for the file's path, and a last … for what a library adds in words of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Configuration:
    """A file that cannot be read as a run.

    Attributes:
        name: what is wrong with it.
        text: what it holds.
        sentence: what is said, in full.
    """

    name: str
    text: str | bytes
    sentence: str


def _toml(table: str, line: str, said: str) -> Configuration:
    return Configuration(
        f"[{table}] {line}", f"[{table}]\n{line}\n", f"{{file}}, table [{table}]: {said}"
    )


_NEEDS_SCHEDULE: Final = "give tau_schedule linear or exponential or cosine too, or leave"
TOML: Final = [
    Configuration(
        "a misspelt table",
        "[netwrok]",
        "{file} has an unknown table [netwrok]; did you mean 'network'?",
    ),
    Configuration(
        "a key outside a table",
        "width = 3",
        "{file} has an unknown table [width]; known are data, network, training",
    ),
    Configuration(
        "a misspelt key",
        "[network]\nwidht = 3",
        "{file}, table [network] has an unknown key 'widht'; did you mean 'width'?",
    ),
    Configuration(
        "a number for a table",
        "network = 3",
        "{file}, table [network] should be a table of keys and values",
    ),
    Configuration(
        "a list of tables",
        "[[network]]\nwidth = 3",
        "{file}, table [network] should be a table of keys and values",
    ),
    Configuration(
        "torn in a table's name",
        "[network\nwidth = ",
        "{file} is not valid TOML: Expected ']' at the end of a table declaration …",
    ),
    Configuration(
        "a key twice",
        "[network]\nwidth = 3\nwidth = 4",
        "{file} is not valid TOML: Cannot overwrite a value …",
    ),
    Configuration(
        "another program's format",
        '{"network": {}}',
        "{file} is not valid TOML: Invalid statement …",
    ),
    Configuration(
        "lists in lists in lists",
        "a = " + "[" * 5000,
        "{file} is not valid TOML: it is nested too deeply",
    ),
    Configuration(
        "UTF-16",
        b"\xff\xfe[\x00",
        "cannot read the configuration {file}: byte 0 is no UTF-8; save it in that encoding",
    ),
    _toml("network", "width = '12'", "width must be a whole number, got '12'"),
    _toml("network", "width = true", "width must be a whole number, got True"),
    _toml("network", "width = 12.0", "width must be a whole number, got 12.0"),
    _toml("network", "width = 0", "width must be at least 1, got 0"),
    _toml("network", "width = -10", "width must be at least 1, got -10"),
    _toml(
        "network",
        "width = 2024-01-01",
        "width must be a whole number, got datetime.date(2024, 1, 1)",
    ),
    _toml(
        "network",
        "width = 0x" + "f" * 5000,
        "width must be below 2**64, got a number of thousands of digits",
    ),
    _toml("network", "depth = 0", "depth must be at least 1, got 0"),
    _toml("network", "group_tau = nan", "group_tau must be finite and above zero, got nan"),
    _toml("network", "group_tau = -1.0", "group_tau must be finite and above zero, got -1.0"),
    _toml("network", "tau = 0", "tau must be finite and above zero, got 0"),
    _toml("network", "tau = inf", "tau must be finite and above zero, got inf"),
    _toml("network", "grad_factor = inf", "grad_factor must be finite, got inf"),
    _toml("network", "seed = -1", "seed must lie in 0..2**64-1, got -1"),
    _toml("network", "n_groups = 0", "n_groups must be at least 1, got 0"),
    _toml("network", "dtype = 'float16'", "dtype must be float32 or float64, got 'float16'"),
    _toml("network", "wiring = 'dense'", "unknown wiring 'dense'; use one of random, unique"),
    _toml("network", "init = 'zeros'", "unknown init 'zeros'; use one of normal, residual"),
    _toml(
        "network",
        "relaxation = 'gumbel'",
        "unknown relaxation 'gumbel'; use one of soft, gumbel-soft, gumbel-st, hard-st, cage",
    ),
    _toml(
        "network",
        "cage_decay = 0.9",
        "cage_decay is an option of relaxation 'cage', and this is 'gumbel-st'; leave it out",
    ),
    _toml(
        "network",
        "cage_tau_min = 4.0\nrelaxation = 'cage'",
        "CAGE needs 0 < tau_min <= tau_max, both finite; got tau_min=4.0, tau_max=3.0",
    ),
    _toml("training", "steps = 0", "steps must be at least 1, got 0"),
    _toml("training", "steps = 1e3", "steps must be a whole number, got 1000.0"),
    _toml("training", "steps = [1]", "steps must be a whole number, got [1]"),
    _toml("training", "batch_size = -1", "batch_size must be at least 1, got -1"),
    _toml("training", "lr = 'fast'", "lr must be a number, got 'fast'"),
    _toml("training", "lr = nan", "lr must be finite and above zero, got nan"),
    _toml("training", "eps = 0", "eps must be finite and above zero, got 0"),
    _toml("training", "betas = 0.9", "betas must be a list of numbers, got 0.9"),
    _toml("training", "betas = [0.9]", "betas must be two numbers, got (0.9,)"),
    _toml("training", "betas = [0.9, 1]", "betas must lie in [0, 1), got (0.9, 1)"),
    _toml("training", "weight_decay = -1", "weight_decay must be finite and at least 0, got -1"),
    _toml("training", "draws_per_step = 0", "draws_per_step must be at least 1, got 0"),
    _toml(
        "training",
        "lr_schedule = 'linear'",
        "unknown lr_schedule 'linear'; use one of constant, cosine, warmup",
    ),
    _toml("training", "seed = -1", "seed must lie in 0..2**63-1, got -1"),
    _toml("training", "eval_every = 0", "eval_every must be at least 1, got 0"),
    _toml("training", "noise_draws = true", "noise_draws must be a whole number, got True"),
    _toml(
        "training",
        "tau_end = 0.1",
        f"tau_end is given and tau stays constant; {_NEEDS_SCHEDULE} tau_end out",
    ),
    _toml(
        "training",
        "tau_schedule = 'constant'\ntau_steps = 5",
        f"tau_steps is given and tau stays constant; {_NEEDS_SCHEDULE} tau_steps out",
    ),
    _toml(
        "training",
        "tau_schedule = 'linear'",
        "tau_schedule 'linear' needs tau_end, the temperature it moves to",
    ),
    _toml(
        "training",
        "tau_schedule = 'step'\ntau_end = 0.1",
        "unknown tau_schedule 'step'; use one of constant, linear, exponential, cosine",
    ),
    _toml(
        "training",
        "tau_schedule = 'cosine'\ntau_end = 0",
        "tau_end must be finite and above zero, got 0.0",
    ),
    _toml("data", "name = 3", "name must be a string, got 3"),
    _toml(
        "data",
        "thresholds = true",
        "thresholds must be a whole number or a list of numbers, got True",
    ),
    _toml(
        "data",
        "thresholds = [1, 'a']",
        "thresholds must be a whole number or a list of numbers, got [1, 'a']",
    ),
]
