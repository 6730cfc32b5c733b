"""YAML files that are no run of the paper's reference code, and all that is said of them."""

from __future__ import annotations

from typing import Final

from tests.malformed.configurations import Configuration

_KNOWN_KEYS: Final = (
    "batch_size, dataset, experiment_name, grad_factor, gumbel_tau, init, lr, n_groups, "
    "num_iterations, num_layers, num_neurons, resume_checkpoint, save_final_model, "
    "save_model_per_eval, seed, stochastic, tau, training_bit_count"
)

PAPER: Final = """dataset: CIFAR10
seed: 1
num_layers: 2
num_neurons: 500
training_bit_count: 32
grad_factor: 1.0
gumbel_tau: 0.5
stochastic: gumbel
batch_size: 16
lr: 0.01
num_iterations: 3
tau: 10
init: randn
"""
"""A run in the keys of the paper's reference code."""


def _paper(line: str, said: str) -> Configuration:
    key = line.partition(":")[0]
    kept = [kept for kept in PAPER.splitlines() if not kept.startswith(f"{key}:")]
    return Configuration(line, "\n".join([*kept, line]), f"{{file}}: {said}")


def _without(key: str) -> Configuration:
    kept = [line for line in PAPER.splitlines() if not line.startswith(f"{key}:")]
    said = f"{{file}} has no key {key!r}, which says what to train"
    return Configuration(f"no {key}", "\n".join(kept), said)


def _tagged(tag: str, rest: str) -> Configuration:
    said = (
        f"{{file}} is not valid YAML: the tag tag:yaml.org,2002:{tag} is not a plain value; "
        "remove it (line 14, column 4)"
    )
    return Configuration(f"!!{tag}", f"{PAPER}x: !!{tag} {rest}\n", said)


_BOMB: Final = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{this}: &{this} [{', '.join([f'*{last}'] * 9)}]\n"
    for last, this in zip("abcdefgh", "bcdefghi", strict=True)
)

YAML: Final = [
    _tagged("python/object/apply:os.system", "['touch MARK']"),
    _tagged("python/object/new:os.system", "['touch MARK']"),
    _tagged("python/name:os.system", ""),
    _tagged("python/module:os", ""),
    Configuration(
        "nothing but a tag",
        "!!python/object/apply:os.system ['touch MARK']",
        "{file} is not valid YAML: the tag tag:yaml.org,2002:python/object/apply:os.system is not a "
        "plain value; remove it (line 1, column 1)",
    ),
    Configuration(
        "aliases that would fill any memory",
        f"{_BOMB}{PAPER}",
        "{file} is not valid YAML: an alias stands for a value; write the value (line 2, column 8)",
    ),
    Configuration(
        "an alias to itself",
        "&a {tau: *a}",
        "{file} is not valid YAML: an alias stands for a value; write the value (line 1, column 10)",
    ),
    Configuration(
        "a key twice",
        f"{PAPER}tau: 3\n",
        "{file} is not valid YAML: the key 'tau' comes twice; keep one (line 14, column 1)",
    ),
    Configuration(
        "a list for a key",
        f"{PAPER}? [a, b]\n: 3\n",
        "{file} is not valid YAML: found unhashable key (line 14, column 3)",
    ),
    Configuration(
        "torn",
        "a: [1, 2\n",
        "{file} is not valid YAML: expected ',' or ']', but got '<stream end>' (line 2, column 1)",
    ),
    Configuration(
        "lists in lists in lists", "[" * 3000, "{file} is not valid YAML: it is nested too deeply"
    ),
    Configuration(
        "a date that is none",
        PAPER.replace("seed: 1", "seed: 2024-99-99"),
        "{file} is not valid YAML: month must be in 1..12",
    ),
    Configuration(
        "a list",
        "- 1\n- 2\n",
        "{file} should hold keys and values, as the paper's YAML files do, and holds [1, 2]",
    ),
    Configuration(
        "empty",
        "",
        "{file} should hold keys and values, as the paper's YAML files do, and holds nothing",
    ),
    Configuration(
        "bytes",
        b"\xff\xfe\x00",
        "cannot read the configuration {file}: byte 0 is no UTF-8; save it in that encoding",
    ),
    *map(_without, ("dataset", "num_layers", "num_neurons", "num_iterations", "tau")),
    Configuration(
        "a misspelt key",
        f"{PAPER}num_layer: 3\n",
        "{file} has an unknown key 'num_layer'; did you mean 'num_layers'?",
    ),
    Configuration(
        "a number for a key",
        f"{PAPER}1: 3\n",
        f"{{file}} has an unknown key 1; known are {_KNOWN_KEYS}",
    ),
    Configuration(
        "another program's checkpoint",
        f"{PAPER}resume_checkpoint: a.pt\n",
        "{file} resumes from 'a.pt', a checkpoint of another program; remove resume_checkpoint to "
        "train anew",
    ),
    _paper("dataset: [MNIST]", "dataset must be a string, got ['MNIST']"),
    _paper("num_layers: two", "num_layers must be a number, got 'two'"),
    _paper("num_layers: 2.5", "num_layers must be a whole number, got 2.5"),
    _paper("num_layers: true", "num_layers must be a number, got True"),
    _paper("num_layers: 0", "num_layers must be at least 1, got 0"),
    _paper("num_neurons: .nan", "num_neurons must be a whole number, got nan"),
    _paper("num_neurons: -10", "num_neurons must be at least 1, got -10"),
    _paper("num_iterations: .inf", "num_iterations must be a whole number, got inf"),
    _paper("tau: 0", "tau must be finite and above zero, got 0.0"),
    _paper("tau: [1]", "tau must be a number, got [1]"),
    _paper("gumbel_tau: -1", "gumbel_tau must be finite and above zero, got -1.0"),
    _paper("lr: abc", "lr must be a number, got 'abc'"),
    _paper(
        "seed: 0x" + "f" * 5000, "seed must be below 2**64, got a number of thousands of digits"
    ),
    _paper("stochastic: gumble", "stochastic must be one of softmax, gumbel, got 'gumble'"),
    _paper("init: 3", "init must be one of randn, normal, residual, got 3"),
    _paper("training_bit_count: 8", "training_bit_count must be 16, 32 or 64, got 8"),
    _paper("n_groups:", "n_groups must be a number, got None"),
]
