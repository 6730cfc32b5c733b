"""Configurations: TOML there and back, what is refused, and the YAML of the paper's code."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tomli_w import dumps

from lgn_analysis.base.errors import ConfigError, InvalidInputError
from lgn_analysis.data import Dataset
from lgn_analysis.gates.relaxations import GumbelST
from lgn_analysis.training.config import (
    DataConfig,
    NetworkConfig,
    RunConfig,
    TrainingConfig,
)
from lgn_analysis.training.config_files import read_config, write_config
from lgn_analysis.training.paper_config import paper_config
from tests.tiny import NetworkFactory

FULL = RunConfig(
    data=DataConfig(
        "mine", thresholds=(0.1, 2.0, -3e-9), fingerprint="abc", labels="permuted", label_seed=3
    ),
    network=NetworkConfig(
        width=30,
        depth=2,
        group_tau=1 / 3,
        relaxation="hard-st",
        tau=0.1,
        wiring="unique",
        init="residual",
        seed=2**64 - 1,
        n_groups=6,
        grad_factor=2.0,
        dtype="float64",
    ),
    training=TrainingConfig(
        *(7, 3, 1e-4, 2**63 - 1, 2, 5),
        eps=1e-20,
        betas=(0.0, 0.99),
        weight_decay=0.1,
        lr_schedule="cosine",
        draws_per_step=4,
        eval_spacing="log",
    ),
)
SPARSE = RunConfig(data=DataConfig(thresholds=31))


@pytest.mark.parametrize("config", [RunConfig(), FULL, SPARSE], ids=["default", "full", "sparse"])
def test_toml_there_and_back(config: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    write_config(config, path)
    assert read_config(path) == (config, [])
    assert {*tomllib.loads(path.read_text())} == {"data", "network", "training"}


@given(
    group_tau=st.floats(1e-300, 1e300),
    tau=st.floats(1e-300, 1e300),
    lr=st.floats(1e-300, 1e300),
    thresholds=st.none() | st.integers(1, 99) | st.lists(st.floats(-1e9, 1e9), min_size=1),
    name=st.text(),
)
def test_every_number_and_text_survives_toml(
    group_tau: float, tau: float, lr: float, thresholds: Any, name: str
) -> None:
    if isinstance(thresholds, list):
        thresholds = tuple(thresholds)
    config = RunConfig(
        data=DataConfig(name, thresholds),
        network=NetworkConfig(group_tau=group_tau, tau=tau),
        training=TrainingConfig(lr=lr),
    )
    assert RunConfig.from_dict(tomllib.loads(dumps(config.to_dict()))) == config


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("")
    assert read_config(path) == (RunConfig(), [])


def test_a_file_from_before_a_field_was_added_has_its_default() -> None:
    """Whichever field that is: a file that lacks it is that of the field's default."""
    tables = FULL.to_dict()
    for table, values in tables.items():
        for name in values.keys() - {"labels"}:  # newer than none of them: label_seed needs it
            older = {**tables, table: {key: values[key] for key in values if key != name}}
            config = getattr(RunConfig.from_dict(older), table)
            assert getattr(config, name) == getattr(getattr(RunConfig(), table), name)


def test_whole_numbers_will_do_for_real_ones(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[training]\nlr = 1\n[network]\ngroup_tau = 10\n[data]\nthresholds = [1, 2]")
    config, _ = read_config(path)
    assert (config.training.lr, config.network.group_tau) == (1.0, 10.0)
    assert config.data.thresholds == (1, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[netwrok]", "has an unknown table [netwrok]; did you mean 'network'?"),
        ("[hue]", "has an unknown table [hue]; known are data, network, training"),
        ("width = 3", "has an unknown table [width]; known are data, network, training"),
        (
            "[network]\nwdith = 3",
            "table [network] has an unknown key 'wdith'; did you mean 'width'",
        ),
        ("[network]\nhue = 3", "has an unknown key 'hue'; known are cage_decay, cage_tau_max"),
        ("network = 3", "table [network] should be a table of keys and values"),
        ("[network]\nwidth = 'x'", "table [network]: width must be a whole number, got 'x'"),
        ("[network]\nwidth = 3.5", "width must be a whole number, got 3.5"),
        ("[network]\nwidth = true", "width must be a whole number, got True"),
        ("[network]\nn_groups = 'x'", "n_groups must be a whole number, got 'x'"),
        ("[network]\ntau = 'x'", "tau must be a number, got 'x'"),
        ("[network]\ntau = true", "tau must be a number, got True"),
        ("[network]\nwiring = 3", "wiring must be a string, got 3"),
        ("[data]\nname = 3", "name must be a string, got 3"),
        ("[data]\nthresholds = 'x'", "thresholds must be a whole number or a list of numbers, got"),
        ("[data]\nthresholds = ['x']", "thresholds must be a whole number or a list of numbers"),
        (
            "[data]\nlabels = 'shuffled'",
            "unknown labels 'shuffled'; use one of true, permuted, ind",
        ),
        ("[data]\nlabel_seed = 1", "label_seed is given and labels are true; give labels permuted"),
        ("[data]\nlabel_seed = -1", "label_seed must lie in 0..2**64-1, got -1"),
        ("[data]\nthresholds = 1.5", "thresholds must be a whole number or a list of numbers"),
        ("[training]\neval_every = 2.5", "eval_every must be a whole number, got 2.5"),
        ("[training]\nsteps = 1e4", "steps must be a whole number, got 10000.0"),
        ("[training]\nsteps = 0", "table [training]: steps must be at least 1, got 0"),
        ("[training]\nlr = nan", "lr must be finite and above zero, got nan"),
        ("[training]\nlr = -inf", "lr must be finite and above zero, got -inf"),
        ("[training", "is not valid TOML"),
        ("[training]\nlr = 1e-2_", "is not valid TOML"),
    ],
)
def test_a_config_that_says_something_wrong_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing.toml", tmp_path, tmp_path / "bytes.toml"):
        with pytest.raises(ConfigError, match="cannot read the configuration"):
            read_config(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 1e4}, r"steps must be a whole number, got 10000\.0"),
        ({"batch_size": -1}, "batch_size must be at least 1, got -1"),
        ({"noise_draws": 0}, "noise_draws must be at least 1, got 0"),
        ({"eval_every": 0}, "eval_every must be at least 1, got 0"),
        ({"eval_every": 2.5}, r"eval_every must be a whole number, got 2\.5"),
        ({"lr": 0.0}, r"lr must be finite and above zero, got 0\.0"),
        ({"eval_spacing": "cubic"}, "unknown eval_spacing 'cubic'; use one of linear, log"),
        ({"seed": -1}, r"seed must lie in 0\.\.2\*\*63-1, got -1"),
        ({"seed": 2**63}, r"seed must lie in 0\.\.2\*\*63-1"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        TrainingConfig(**arguments)


def test_numpy_numbers_become_plain_ones(tmp_path: Path) -> None:
    config = TrainingConfig(np.int64(5), np.int32(2), np.float32(0.5), np.uint8(1), np.int64(2))
    assert config == TrainingConfig(5, 2, 0.5, 1, 2)
    write_config(RunConfig(training=config), tmp_path / "config.toml")
    assert read_config(tmp_path / "config.toml")[0].training == config


@pytest.mark.parametrize(
    ("steps", "eval_every", "interval"), [(1000, None, 20), (7, None, 1), (1000, 300, 300)]
)
def test_evaluations_come_every_fiftieth_of_the_steps(
    steps: int, eval_every: int | None, interval: int
) -> None:
    assert TrainingConfig(steps, eval_every=eval_every).interval == interval


@pytest.mark.parametrize("spacing", ["linear", "log"])
@pytest.mark.parametrize("every", [1, 7, 10, 11, 13, 50, 99, 100, 130, 400, 2000, None])
@pytest.mark.parametrize("steps", [1, 9, 10, 77, 1001, 12_345])
def test_log_spacing_adds_eight_steps_a_decade_before_the_first_of_the_linear_ones(
    steps: int, every: int | None, spacing: str
) -> None:
    config = TrainingConfig(steps, eval_every=every, eval_spacing=spacing)
    expected = {0, steps, *range(0, steps + 1, config.interval)}
    if spacing == "log":
        early = {int(float(f"{10 ** (1 + k / 8):.1e}")) for k in range(40)}
        expected |= {step for step in early if step < min(steps, config.interval)}
    assert config.evaluated == tuple(sorted(expected))


def test_a_run_that_is_resumed_for_more_steps_keeps_its_evaluations() -> None:
    config = TrainingConfig(1000, eval_spacing="log")
    longer = config.resumed(2000)
    assert longer.evaluated[: len(config.evaluated)] == config.evaluated


def test_a_network_config_builds_what_it_was_read_from(
    make_network: NetworkFactory, separable_data: Dataset
) -> None:
    model = make_network(n_features=12, relaxation=GumbelST(0.3), grad_factor=2.0, n_groups=6)
    config = NetworkConfig.of(model)
    again = config.build(separable_data)
    assert again.config == model.config
    assert again.dtype == model.dtype
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_a_dtype_that_cannot_be_trained_is_refused(separable_data: Dataset) -> None:
    with pytest.raises(ConfigError, match="dtype must be float32 or float64, got 'float16'"):
        NetworkConfig(width=12, dtype="float16").build(separable_data)


# The keys are those of the reference code's own files; the values are ours.
PAPER = """
experiment_name: "mine"
dataset: "CIFAR10"
seed: 7
num_layers: 3
num_neurons: 1200
training_bit_count: 32
grad_factor: 1.5
gumbel_tau: 0.5
stochastic: "gumbel"
batch_size: 32
lr: 0.02
num_iterations: 5000
tau: 30
init: "randn"
"""


def from_yaml(text: str, tmp_path: Path) -> tuple[RunConfig, list[str]]:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return read_config(path)


def test_the_yaml_of_the_reference_code_is_read_by_its_meaning(tmp_path: Path) -> None:
    config, notes = from_yaml(PAPER, tmp_path)
    assert config == RunConfig(
        data=DataConfig("cifar10", thresholds=31),
        network=NetworkConfig(
            width=1200,
            depth=3,
            group_tau=30.0,
            relaxation="gumbel-st",
            tau=0.5,
            wiring="unique",
            init="normal",
            seed=7,
            grad_factor=1.5,
        ),
        training=TrainingConfig(5000, 32, 0.02, 7, config.training.eval_every),
    )
    assert notes == [
        "experiment_name is ignored",
        "10 output groups, where the reference code has 100 (add n_groups: 100)",
    ]


def test_the_keys_of_its_readme_are_known_and_what_is_ignored_is_said(tmp_path: Path) -> None:
    text = PAPER.replace('init: "randn"\n', "")
    text += "save_final_model: true\nsave_model_per_eval: false\nresume_checkpoint: null\n"
    config, notes = from_yaml(text, tmp_path)
    assert config == from_yaml(PAPER, tmp_path)[0]
    assert {"save_final_model is ignored", "save_model_per_eval is ignored"} <= {*notes}


def test_softmax_is_the_soft_relaxation_at_temperature_one(tmp_path: Path) -> None:
    config, notes = from_yaml(PAPER.replace('"gumbel"', '"softmax"'), tmp_path)
    assert (config.network.relaxation, config.network.tau) == ("soft", 1.0)
    assert any("gumbel_tau 0.5 is ignored" in note for note in notes)
    _, notes = from_yaml(
        PAPER.replace('"gumbel"', '"softmax"').replace("gumbel_tau: 0.5", "gumbel_tau: 1"), tmp_path
    )
    assert not any("gumbel_tau" in note for note in notes)


def test_a_hundred_groups_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    config, notes = from_yaml(PAPER + "n_groups: 100\n", tmp_path)
    assert config.network.n_groups == 100
    assert notes == ["experiment_name is ignored"]


@pytest.mark.parametrize(("text", "lr"), [("1e-2", 0.01), ("1.0e-2", 0.01), ("5E-1", 0.5)])
def test_a_learning_rate_that_yaml_reads_as_text_is_a_number(
    text: str, lr: float, tmp_path: Path
) -> None:
    assert from_yaml(PAPER.replace("lr: 0.02", f"lr: {text}"), tmp_path)[0].training.lr == lr


def test_a_whole_number_may_be_written_as_a_power(tmp_path: Path) -> None:
    config, _ = from_yaml(PAPER.replace("5000", "5e3"), tmp_path)
    assert config.training.steps == 5000


def test_a_large_seed_is_exact(tmp_path: Path) -> None:
    config, _ = from_yaml(PAPER.replace("seed: 7", f"seed: {2**53 + 1}"), tmp_path)
    assert config.training.seed == config.network.seed == 2**53 + 1


@pytest.mark.parametrize(
    ("bits", "dtype", "said"), [(16, "float32", 1), (32, "float32", 0), (64, "float64", 0)]
)
def test_bit_counts_are_dtypes(bits: int, dtype: str, said: int, tmp_path: Path) -> None:
    text = PAPER.replace("count: 32", f"count: {bits}")
    config, notes = from_yaml(text, tmp_path)
    assert config.network.dtype == dtype
    assert sum("training_bit_count" in note for note in notes) == said


@pytest.mark.parametrize(
    ("name", "expected"),
    [("MNIST", ("mnist", None)), ("CIFAR100", ("cifar100", 31)), ("digits", ("digits", None))],
)
def test_data_sets_have_our_names(
    name: str, expected: tuple[str, int | None], tmp_path: Path
) -> None:
    config, notes = from_yaml(PAPER.replace("CIFAR10", name), tmp_path)
    assert (config.data.name, config.data.thresholds) == expected
    assert not any("output groups" in note for note in notes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tau: 30\n", "", "has no key 'tau', which says what to train"),
        ("batch_size", "batchsize", "unknown key 'batchsize'; did you mean 'batch_size'?"),
        ("lr: 0.02", "3: 4", "unknown key 3; known are batch_size"),
        ("lr: 0.02", "lr: fast", "lr must be a number, got 'fast'"),
        ("lr: 0.02", "lr: null", "lr must be a number, got None"),
        ("lr: 0.02", "lr: true", "lr must be a number, got True"),
        ("lr: 0.02", "lr: -1", "lr must be finite and above zero, got -1.0"),
        ("seed: 7", "seed: 7.5", "seed must be a whole number, got 7.5"),
        ("seed: 7", "seed: true", "seed must be a number, got True"),
        ("seed: 7", "seed: .inf", "seed must be a whole number, got inf"),
        ("num_iterations: 5000", "num_iterations: 0", "num_iterations must be at least 1, got 0"),
        ('"gumbel"', '"sigmoid"', "stochastic must be one of softmax, gumbel, got 'sigmoid'"),
        ('"gumbel"', "[gumbel]", "stochastic must be one of softmax, gumbel, got ['gumbel']"),
        ("count: 32", "count: 8", "training_bit_count must be 16, 32 or 64, got 8"),
        ("seed: 7", "resume_checkpoint: x.pt", "resumes from 'x.pt', a checkpoint of another"),
        ("seed: 7", "seed: [7", "is not valid YAML"),
        ("seed: 7", "seed: 2026-99-99", "is not valid YAML"),
        (PAPER, "- 1\n- 2\n", "should hold keys and values"),
        (PAPER, "", "should hold keys and values"),
    ],
)
def test_yaml_that_says_something_wrong_is_refused(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in PAPER
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        from_yaml(PAPER.replace(old, new), tmp_path)
    assert "\n" not in str(caught.value)


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    text = PAPER + f"x: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'mark'}]\n"
    with pytest.raises(ConfigError, match="is not valid YAML"):
        from_yaml(text, tmp_path)
    assert not (tmp_path / "mark").exists()


def test_a_mapping_is_as_good_as_a_file() -> None:
    mapping = {"dataset": "MNIST", "num_layers": 2, "num_neurons": 500, "tau": 10}
    config, _ = paper_config({**mapping, "num_iterations": 9})
    assert replace(config.network, width=1) == NetworkConfig(
        width=1, depth=2, group_tau=10.0, relaxation="soft", wiring="unique"
    )
    with pytest.raises(ConfigError, match="the YAML file has no key 'num_iterations'"):
        paper_config(mapping)
