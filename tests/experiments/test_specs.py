"""The name of a record follows from what its run differs in from the defaults."""

from dataclasses import asdict, dataclass, fields, make_dataclass, replace

import pytest

from lgn_analysis.experiments.specs import ProbePlan, RunSpec, TimingPlan
from lgn_analysis.training.config import DataConfig, NetworkConfig, TrainingConfig

SPEC = RunSpec(
    data=DataConfig("digits"),
    network=NetworkConfig(width=500, seed=3),
    training=TrainingConfig(steps=10),
    probes=ProbePlan(trace_steps=(10,)),
)


def with_another_field(value):
    """Return ``value`` as its class would be with one more field, and the field's default."""
    kind = make_dataclass(
        type(value).__name__, [("added", int, 7)], bases=(type(value),), frozen=True
    )
    return kind(**{name: getattr(value, name) for name in asdict(value)})


@pytest.mark.parametrize("part", ["data", "network", "training", "probes"])
def test_a_field_that_is_added_with_a_default_leaves_keys_as_they_are(part):
    extended = with_another_field(getattr(SPEC, part))
    assert extended.added == 7
    assert replace(SPEC, **{part: extended}).key == SPEC.key
    assert replace(SPEC, **{part: replace(extended, added=8)}).key != SPEC.key


def test_a_field_of_the_run_itself_leaves_keys_as_they_are():
    @dataclass(frozen=True)
    class Extended(RunSpec):
        added: str = "none"

    fields = {name: getattr(SPEC, name) for name in asdict(SPEC)}
    assert Extended(**fields).key == SPEC.key
    assert Extended(**fields, added="some").key != SPEC.key


def test_every_field_that_is_given_another_value_makes_another_key():
    others = [
        replace(SPEC, data=DataConfig("mnist5k")),
        replace(SPEC, data=DataConfig(labels="independent")),
        replace(SPEC, data=DataConfig(labels="permuted")),
        replace(SPEC, data=DataConfig(labels="permuted", label_seed=1)),
        replace(SPEC, network=replace(SPEC.network, width=600)),
        replace(SPEC, network=replace(SPEC.network, seed=0)),
        replace(SPEC, training=replace(SPEC.training, tau_schedule="linear", tau_end=0.1)),
        replace(SPEC, probes=ProbePlan()),
        replace(SPEC, timing=TimingPlan(("soft",))),
        replace(SPEC, timing=TimingPlan(("soft",), rounds=3)),
        replace(SPEC, device="cuda"),
    ]
    assert len({spec.key for spec in [SPEC, *others]}) == len(others) + 1


def test_keys_are_those_that_records_were_made_under():
    assert SPEC.key == "6ec1de4acbd7fb30"
    assert RunSpec(DataConfig(), NetworkConfig(), TrainingConfig()).key == "9509dd7b66834b75"


def test_a_default_that_is_given_is_no_other_run():
    assert replace(SPEC, network=replace(SPEC.network, depth=NetworkConfig().depth)) == SPEC
    assert RunSpec(**{**vars(SPEC), "device": "cpu"}).key == SPEC.key


FALLING = {"tau_schedule": "linear", "tau_end": 0.5}
CHANGES = {
    "data": {
        "name": "mnist5k",
        "thresholds": (0.25, 0.5),
        "fingerprint": "abc",
        "labels": "independent",
        "label_seed": 3,
    },
    "network": {
        "width": 700,
        "depth": 4,
        "group_tau": 7.5,
        "relaxation": "soft",
        "parametrisation": "walsh",
        "tau": 0.5,
        "wiring": "unique",
        "init": "residual",
        "seed": 5,
        "n_groups": 30,
        "grad_factor": 1.5,
        "dtype": "float64",
        "cage_tau_max": 2.5,
        "cage_tau_min": 0.25,
        "cage_decay": 0.5,
    },
    "training": {
        "steps": 500,
        "batch_size": 64,
        "lr": 0.02,
        "seed": 5,
        "eval_every": 100,
        "noise_draws": 4,
        "tau_schedule": "exponential",
        "tau_end": 0.25,
        "tau_steps": 300,
        "eps": 1e-20,
        "betas": (0.25, 0.5),
        "weight_decay": 0.1,
        "lr_schedule": "cosine",
        "warmup_steps": 30,
        "cosine_steps": 300,
        "draws_per_step": 4,
        "eval_spacing": "log",
    },
}
"""Of every field another value than its default."""
NEEDED = {
    **dict.fromkeys(("tau_end", "tau_schedule", "tau_steps"), FALLING),
    **{name: {"relaxation": "cage"} for name in ("cage_tau_max", "cage_tau_min", "cage_decay")},
    "cosine_steps": {"lr_schedule": "cosine"},
    "label_seed": {"labels": "permuted"},
}
"""What a field needs beside it."""


def test_every_field_of_a_run_is_changed_below():
    for part, changes in CHANGES.items():
        assert [*changes] == [item.name for item in fields(getattr(SPEC, part))]


@pytest.mark.parametrize(
    ("part", "name"), [(part, name) for part, names in CHANGES.items() for name in names]
)
def test_runs_that_differ_in_one_field_have_other_labels_and_other_columns(part, name):
    base = replace(SPEC, **{part: replace(getattr(SPEC, part), **NEEDED.get(name, {}))})
    changed = replace(getattr(base, part), **{name: CHANGES[part][name]})
    other = replace(base, **{part: changed})
    assert other.key != base.key
    assert other.label != base.label
    assert {**other.columns, "run": base.key} != base.columns


def test_a_label_names_what_a_run_is_and_the_options_that_are_not_as_by_default():
    plain = RunSpec(DataConfig(), NetworkConfig(), TrainingConfig())
    assert plain.label == "digits gumbel-st tau=1 3x1000 seed 0"
    assert plain.columns["options"] == "default"
    training = TrainingConfig(steps=500, seed=3, eps=1e-20, betas=(0.9, 0.99), draws_per_step=4)
    run = replace(plain, training=training, network=NetworkConfig(group_tau=7.5, seed=1))
    options = "eps=1e-20 betas=0.9,0.99 draws_per_step=4 network_seed=1"
    assert run.label == f"digits gumbel-st tau=1 3x1000 seed 3 group_tau=7.5 steps=500 {options}"
    assert run.columns["options"] == options


def test_the_defaults_are_those_of_the_format():
    """A key does not see a default change: with another value here goes another RECORD_FORMAT."""
    known = {
        "data": {
            "name": "digits",
            "thresholds": None,
            "fingerprint": None,
            "labels": "true",
            "label_seed": 0,
        },
        "network": {
            "width": 1000,
            "depth": 3,
            "group_tau": 20.0,
            "relaxation": "gumbel-st",
            "tau": 1.0,
            "wiring": "random",
            "init": "normal",
            "seed": 0,
            "n_groups": None,
            "grad_factor": 1.0,
            "dtype": "float32",
            "cage_tau_max": None,
            "cage_tau_min": None,
            "cage_decay": None,
        },
        "training": {
            "steps": 20_000,
            "batch_size": 128,
            "lr": 0.01,
            "seed": 0,
            "eval_every": None,
            "noise_draws": 1,
            "tau_schedule": None,
            "tau_end": None,
            "tau_steps": None,
            "eps": 1e-8,
            "betas": (0.9, 0.999),
            "weight_decay": 0.0,
            "lr_schedule": "constant",
            "warmup_steps": None,
            "cosine_steps": None,
            "draws_per_step": 1,
            "eval_spacing": "linear",
        },
        "probes": {
            "samples": 256,
            "trace_steps": (),
            "trace_probes": 4,
            "density_probes": 0,
            "density_steps": 40,
            "lemma_steps": (),
            "lemma_scales": (0.1, 0.25, 0.5, 1.0),
            "lemma_draws": 64,
            "lemma_trace_probes": 8,
            "lemma_order": 2,
            "anatomy_steps": (),
            "landscape_directions": 0,
            "landscape_grid": 21,
            "plane_grid": 0,
            "usage_steps": (),
        },
    }
    spec = asdict(RunSpec(DataConfig(), NetworkConfig(), TrainingConfig()))
    for part, values in known.items():
        assert {name: spec[part][name] for name in values} == values
    timing = TimingPlan(("soft",))
    assert (timing.rounds, timing.steps, timing.warm_up) == (20, 20, 5)
