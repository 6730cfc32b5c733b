"""The commands as a user runs them; bad input is one sentence, status 2, and no file is touched."""

import inspect
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.cli import COMMANDS, main
from lgn_analysis.experiments.sweep import compilation
from lgn_analysis.gates.relaxations import OPTIONS
from lgn_analysis.training.config import DataConfig, NetworkConfig, TrainingConfig
from lgn_analysis.training.config_files import read_config

SMALL = ["--width", "500", "--depth", "2", "--steps", "4", "--batch-size", "16", "--no-progress"]


def run(capsys, *args):
    """Return exit status, standard output and standard error of a command."""
    status = main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def trained(tmp_path, capsys):
    out = tmp_path / "run"
    assert run(capsys, "train", *SMALL, "--seed", 4, "--out", out)[0] == 0
    return out


def snapshot(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def test_training_writes_a_run_directory_that_evaluates_and_resumes(trained, capsys):
    names = {path.name for path in trained.iterdir()}
    files = {"config.toml", "history.csv", "last.safetensors", "best.safetensors"}
    assert names == files | {".lock"}
    status, out, _ = run(capsys, "evaluate", trained, "--noise-draws", 2)
    assert status == 0
    assert "discrete_accuracy" in out
    status, out, _ = run(capsys, "train", "--resume", trained, "--steps", 6, "--no-progress")
    assert status == 0
    assert pd.read_csv(trained / "history.csv")["step"].max() == 6


def test_a_run_can_be_made_again_from_its_config(trained, tmp_path, capsys):
    again = tmp_path / "again"
    args = ["train", "--config", trained / "config.toml", "--out", again, "--no-progress"]
    assert run(capsys, *args)[0] == 0
    first, second = (pd.read_csv(folder / "history.csv") for folder in (trained, again))
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), second.drop(columns="seconds"))


def test_flags_win_over_a_config(trained, tmp_path, capsys):
    out = tmp_path / "other"
    config = trained / "config.toml"
    args = ["train", "--config", config, "--tau", 0.5, "--out", out, "--no-progress"]
    assert run(capsys, *args)[0] == 0
    assert lgn.load(out / "last.safetensors").relaxation.tau == 0.5


def test_a_schedule_and_cage_go_from_flags_to_the_config_and_back(tmp_path, capsys):
    falling = ["--relaxation", "soft", "--tau-schedule", "linear", "--tau-end", 0.25]
    adaptive = ["--relaxation", "cage", "--tau", 0.9, "--cage-decay", 0.5, "--cage-tau-max", 2]
    kinds = {"falling": lgn.Soft(0.25), "cage": lgn.CAGE(0.9, decay=0.5, tau_max=2.0)}
    for flags, (name, kind) in zip((falling, adaptive), kinds.items(), strict=True):
        out, again = tmp_path / name, tmp_path / f"{name}-again"
        assert run(capsys, "train", *SMALL, *flags, "--out", out)[0] == 0
        assert lgn.load(out / "last.safetensors").relaxation == kind
        args = ["train", "--config", out / "config.toml", "--out", again, "--no-progress"]
        assert run(capsys, *args)[0] == 0
        assert (out / "config.toml").read_bytes() == (again / "config.toml").read_bytes()
        first, second = (pd.read_csv(folder / "history.csv") for folder in (out, again))
        pd.testing.assert_frame_equal(first.drop(columns="seconds"), second.drop(columns="seconds"))
        assert run(capsys, "train", "--resume", out, "--steps", 6, "--no-progress")[0] == 0
        assert run(capsys, "evaluate", out)[0] == 0
    still = ["--tau-schedule", "constant", "--out", tmp_path / "still", "--no-progress"]
    config = tmp_path / "falling" / "config.toml"
    assert run(capsys, "train", "--config", config, *still)[0] == 0
    assert lgn.load(tmp_path / "still" / "last.safetensors").relaxation.tau == 1.0


def test_options_of_the_optimiser_go_from_flags_to_the_config_and_back(tmp_path, capsys):
    moving = ["--lr-schedule", "warmup", "--warmup-steps", 3, "--betas", 0.8, 0.99]
    other = ["--eps", 1e-20, "--weight-decay", 0.1, "--draws-per-step", 2, "--eval-spacing", "log"]
    out, again = tmp_path / "run", tmp_path / "again"
    assert run(capsys, "train", *SMALL, *moving, *other, "--out", out)[0] == 0
    training = read_config(out / "config.toml")[0].training
    assert (training.lr_schedule, training.warmup_steps) == ("warmup", 3)
    assert (training.eps, training.betas) == (1e-20, (0.8, 0.99))
    assert (training.weight_decay, training.draws_per_step) == (0.1, 2)
    assert training.eval_spacing == "log"
    args = ["train", "--config", out / "config.toml", "--no-progress"]
    assert run(capsys, *args, "--out", again)[0] == 0
    assert (out / "config.toml").read_bytes() == (again / "config.toml").read_bytes()
    first, second = (lgn.load(folder / "last.safetensors") for folder in (out, again))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
    still = ["--lr-schedule", "constant", "--out", tmp_path / "still"]
    assert run(capsys, *args, *still)[0] == 0
    training = read_config(tmp_path / "still" / "config.toml")[0].training
    assert (training.lr_schedule, training.warmup_steps) == ("constant", None)


def test_training_labels_go_from_flags_to_the_config_and_back(tmp_path, capsys):
    flags = ["--labels", "permuted", "--label-seed", 3]
    assert run(capsys, "train", *SMALL, *flags, "--out", tmp_path / "run")[0] == 0
    config = tmp_path / "run" / "config.toml"
    data = read_config(config)[0].data
    assert (data.labels, data.label_seed) == ("permuted", 3)
    assert run(capsys, "evaluate", tmp_path / "run")[0] == 0
    other = ["--label-seed", 4, "--no-progress"]
    status, said, _ = run(
        capsys, "train", "--config", config, *other, "--out", tmp_path / "another"
    )
    assert status == 0
    assert "is not the data that" not in said
    again = read_config(tmp_path / "another" / "config.toml")[0].data
    assert again.label_seed == 4
    assert again.fingerprint != data.fingerprint


def test_the_default_batch_of_a_small_data_set_is_all_of_it(tmp_path, capsys):
    flags = ["--dataset", "monk1", "--width", "20", "--steps", "2", "--no-progress"]
    status, out, _ = run(capsys, "train", *flags, "--out", tmp_path / "run")
    assert status == 0
    assert "note: batch_size 128 exceeds the 99 training samples of 'monk1': every step" in out
    config, _ = read_config(tmp_path / "run" / "config.toml")
    assert config.training.batch_size == 99


def test_the_yaml_of_the_reference_code_is_accepted_and_what_is_ignored_is_said(tmp_path, capsys):
    config = tmp_path / "paper.yaml"
    config.write_text(
        "experiment_name: x\ndataset: digits\nseed: 1\nnum_layers: 2\nnum_neurons: 500\n"
        "training_bit_count: 32\ngrad_factor: 1.0\ngumbel_tau: 0.5\nstochastic: gumbel\n"
        "batch_size: 16\nlr: 0.01\nnum_iterations: 3\ntau: 10\ninit: randn\n"
        "save_final_model: true\n"
    )
    out = tmp_path / "run"
    status, said, _ = run(capsys, "train", "--config", config, "--out", out, "--no-progress")
    assert status == 0
    assert "save_final_model is ignored" in said
    model = lgn.load(out / "last.safetensors")
    assert model.relaxation == lgn.GumbelST(0.5)
    assert model.config["wiring"] == "unique"


def test_probing_a_run_prints_intervals(trained, capsys):
    args = ["probe", trained, "--samples", 16, "--rtol", 0.5, "--k", 2, "--no-progress"]
    status, out, _ = run(capsys, *args, "--what", "trace")
    assert status == 0
    assert "TraceResult" in out


def test_a_configuration_of_the_paper_is_diagnosed_without_its_data(tmp_path, capsys):
    config = tmp_path / "paper.yaml"
    config.write_text(
        "dataset: digits\nseed: 1\nnum_layers: 12\nnum_neurons: 1000\ntraining_bit_count: 32\n"
        "grad_factor: 1.0\ngumbel_tau: 1.0\nstochastic: softmax\nbatch_size: 128\nlr: 0.01\n"
        "num_iterations: 48000\ntau: 100\ninit: randn\n"
    )
    status, said, err = run(capsys, "diagnose", "--config", config, "--random-bits")
    assert status == 0, err
    assert "of 12 layers stand still" in said
    assert "there are 48000" in said


def test_a_network_is_diagnosed_before_training_and_a_run_by_its_last_model(trained, capsys):
    shape = ["--dataset", "monk1", "--width", 60, "--depth", 12, "--relaxation", "soft"]
    status, out, _ = run(capsys, "diagnose", *shape, "--group-tau", 2, "--steps", 500)
    assert status == 0
    assert "of 12 layers stand still" in out
    assert "eps 1e-16: 0 layers stand still" in out
    status, out, _ = run(capsys, "diagnose", "--run", trained, "--steps", 500)
    assert status == 0
    assert "fewest_steps" in out
    status, _, err = run(capsys, "diagnose", "--run", trained, "--width", 60)
    assert status == 2
    assert "--run brings its network" in err


def test_the_data_sets_are_listed(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("LGN_ANALYSIS_DATA", str(tmp_path))
    monkeypatch.setattr("lgn_analysis.data.vision.DISTRIBUTION", tmp_path)
    status, out, _ = run(capsys, "datasets")
    assert status == 0
    for name in lgn.DATASETS:
        assert name in out
    assert "found in" not in out


def test_the_list_says_where_files_were_found(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("LGN_ANALYSIS_DATA", str(tmp_path))
    folder = tmp_path / "adult"
    folder.mkdir()
    for file in ("adult.data", "adult.test"):
        (folder / file).touch()
    assert f"found in {folder}" in run(capsys, "datasets")[1]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_teaches_every_flag(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"] if command else ["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "usage: lgn-analysis" in out


BAD = [
    (["train", "--dataset", "digit"], "did you mean 'digits'"),
    (["train", "--width", "1001"], "use 1000 or 1010"),
    (["train", "--width", "400"], "use a width of at least 480"),
    (["train", "--batch-size", "5000", "--width", "500"], "exceeds the 1257 training samples"),
    (["train", "--lr", "-1"], "lr must be finite and above zero"),
    (["train", "--tau", "0"], "tau must be finite and above zero"),
    (["train", "--tau-end", "0.1"], "tau_end is given and tau stays constant"),
    (["train", "--tau-schedule", "linear"], "needs tau_end"),
    (["train", "--relaxation", "soft", "--cage-decay", "0.9"], "is an option of relaxation 'cage'"),
    (["train", "--relaxation", "cage", "--cage-tau-min", "4"], "0 < tau_min <= tau_max"),
    (
        ["train", "--relaxation", "cage", "--tau-schedule", "linear", "--tau-end", "0.1"],
        "CAGE adapts its temperature by itself",
    ),
    (["train", "--betas", "0.9", "high"], "--betas must be two numbers, got '0.9 high'"),
    (["train", "--betas", "0.9"], "--betas"),
    (["train", "--relaxation", "soft", "--draws-per-step", "2"], "Soft draws no noise"),
    (["train", "--seed", "-1"], "seed must lie in"),
    (["train", "--config", "missing.toml"], "cannot read the configuration"),
    (["train", "--config", "torn.toml"], "is not valid TOML"),
    (["train", "--config", "typo.toml"], "did you mean 'width'"),
    (["train", "--config", "torn.yaml"], "is not valid YAML"),
    (["train", "--resume", "nowhere"], "no run directory"),
    (["train", "--resume", "run", "--lr", "0.1"], "leave the other flags out"),
    (["train", "--out", "run"], "exists and is not empty"),
    (["evaluate", "nowhere"], "no checkpoint"),
    (["evaluate", "torn.safetensors"], "not a whole safetensors file"),
    (["evaluate", "run", "--dataset", "monk1"], "expected inputs [batch, 960]"),
    (["reproduce", "--preset", "huge"], "unknown preset"),
    (["reproduce", "--claims", "C99"], "no experiment decides 'C99'"),
    (["reproduce", "--workers", "0"], "workers must be at least 1"),
    (["reproduce", "--scheduler", "nowhere"], "no Dask scheduler answers at 'nowhere'"),
    (["figures"], "no experiment has left a CSV"),
    (["figures", "unknown"], "no experiment has left a CSV"),
    (["figures", "--folder", "run"], "no experiment has left a CSV in run"),
]


@pytest.mark.parametrize(("args", "sentence"), BAD, ids=[" ".join(args) for args, _ in BAD])
def test_bad_input_is_one_sentence_and_leaves_files_as_they_were(
    args, sentence, trained, capsys, monkeypatch
):
    folder = trained.parent
    monkeypatch.chdir(folder)
    monkeypatch.setattr(compilation, "compile_kernels", None)  # refused before it is called
    (folder / "torn.toml").write_text("[network\nwidth = ")
    (folder / "typo.toml").write_text("[network]\nwidht = 10\n")
    (folder / "torn.yaml").write_text("a: [1, 2\n")
    whole = (trained / "last.safetensors").read_bytes()
    (folder / "torn.safetensors").write_bytes(whole[: len(whole) // 2])
    before = snapshot(folder)
    status, _, err = run(capsys, *args)
    assert status == 2
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert snapshot(folder) == before


def test_a_bad_flag_is_refused_by_the_parser(capsys):
    status, _, err = run(capsys, "train", "--relaxation", "nonsense")
    assert (status, err) == (
        2,
        "lgn-analysis: --relaxation must be one of soft, gumbel-soft, gumbel-st, hard-st, cage, got "
        "'nonsense'; see lgn-analysis train --help\n",
    )


def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "lgn_analysis.cli", "evaluate", "nowhere"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("lgn-analysis: there is no checkpoint")


def test_a_saved_model_gives_the_same_outputs_in_a_new_process(trained):
    script = (
        "import json, sys, torch, lgn_analysis as lgn\n"
        "model = lgn.load(sys.argv[1])\n"
        "x = lgn.load_dataset('digits').x_test[:7]\n"
        "print(json.dumps({m: model(x, mode=m, draw=3).tolist() for m in sys.argv[2:]}))\n"
    )
    path = trained / "best.safetensors"
    modes = ["soft", "noisy", "discrete"]
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), *modes],
        capture_output=True,
        text=True,
        check=True,
    )
    model = lgn.load(path)
    x = lgn.load_dataset("digits").x_test[:7]
    for mode, values in json.loads(done.stdout).items():
        assert torch.equal(torch.tensor(values), model(x, mode=mode, draw=3))


def test_every_option_of_a_run_is_a_flag():
    from lgn_analysis.cli.training import _FLAGS

    for kind in (DataConfig, NetworkConfig, TrainingConfig):
        for item in fields(kind):
            if item.name not in ("name", "fingerprint"):
                assert item.metadata["help"]
                assert item in [found for _, found in _FLAGS[item.name]]


@pytest.mark.parametrize(
    ("function", "config"), [(lgn.train, TrainingConfig), (lgn.LogicNetwork, NetworkConfig)]
)
def test_a_signature_has_the_options_and_defaults_of_its_configuration(function, config):
    parameters = inspect.signature(function).parameters
    of_relaxations = {"relaxation", "tau", *OPTIONS}
    required = {"width", "depth", "group_tau"}
    for item in fields(config):
        if config is NetworkConfig and item.name in of_relaxations | required | {"dtype"}:
            continue  # an argument without a default, or one in an object of its own
        assert parameters[item.name].default == item.default, item.name
