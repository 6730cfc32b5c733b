"""M6 follows from its frame: shares of gates before and after, by labels, of runs that learnt nothing."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import entr, softmax

from lgn_analysis.experiments.claims import noise_commits
from lgn_analysis.experiments.claims.noise_commits import ARMS, USAGE, frame, walk_unused
from lgn_analysis.experiments.presets.named import PRESETS
from lgn_analysis.experiments.sweep.execution import TABLES, Records
from lgn_analysis.metrics import UNUSED_ENTROPY
from lgn_analysis.plots.claims import noise_commits as drawing
from tests.experiments.synthetic import rows, spread

GLGN, STILL, MOVING = (arm.name for arm in ARMS)
BEFORE = {"unused": 0.97, "constant": 0.5, "unreachable": 0.1}
PRESET = PRESETS["smoke"]


def usage(after, *, accuracy=0.1):
    """Two layers, of 300 and of 100 gates, whose shares lie 0.01 below and 0.03 above those given."""
    made = []
    for arm in ARMS:
        for labels in arm.labels:
            end = {**BEFORE, **after.get((arm.name, labels), {})}
            for row in rows([arm.relaxation], floor=0.25):
                for step, shares in ((0, BEFORE), (100, end)):
                    for layer, off in ((0, -0.01), (1, 0.03)):
                        values = {
                            name: share + off + spread(row["seed"]) / 10 * (step > 0)
                            for name, share in shares.items()
                        }
                        place = {"step": step, "layer": layer, "n_gates": (300, 100)[layer]}
                        known = {"arm": arm.name, "labels": labels, "walk": 0.9}
                        made.append(
                            {**row, **place, **known, **values, "discrete_accuracy": accuracy}
                        )
    return pd.DataFrame(made)


def means(table):
    """The mean effect of each claim, where its seeds count."""
    return table[table["counts"].astype(bool)].groupby("claim")["effect"].mean().to_dict()


def test_effects_are_differences_of_shares_over_all_gates():
    found = means(
        noise_commits.effects(
            usage(
                {
                    (GLGN, "independent"): {"unused": 0.17, "constant": 0.4, "unreachable": 0.05},
                    (GLGN, "permuted"): {"unused": 0.16},
                    (GLGN, "true"): {"unused": 0.10},
                    (STILL, "independent"): {"unused": 0.90},
                    (MOVING, "independent"): {"unused": 0.30},
                    (MOVING, "true"): {"unused": 0.01},
                }
            )
        )
    )
    expected = {"M6": 80, "M6 labels": 4, "M6 function": 70, "M6 batches": 60}
    assert found == pytest.approx(expected)


def test_labels_matter_whichever_leave_more_gates_unused():
    for true, permuted in ((0.1, 0.4), (0.4, 0.1)):
        after = {(GLGN, "true"): {"unused": true}, (GLGN, "permuted"): {"unused": permuted}}
        assert means(noise_commits.effects(usage(after)))["M6 labels"] == pytest.approx(-20)


def test_gates_that_gain_a_function_are_held_against_those_that_commit():
    after = {(GLGN, "independent"): {"unused": 0.07, "constant": 0.02, "unreachable": 0.7}}
    found = means(noise_commits.effects(usage(after)))
    assert found["M6 function"] == pytest.approx(90 - 48)


def test_runs_that_learnt_decide_nothing():
    table = noise_commits.effects(usage({}, accuracy=0.25))
    assert len(table) == 24
    assert not table["counts"].any()


def test_a_claim_whose_runs_are_missing_has_no_effects():
    found = usage({})
    table = noise_commits.effects(found[found["labels"] != "permuted"])
    assert set(table["claim"]) == {"M6", "M6 function", "M6 batches"}


def test_the_frame_has_the_usage_of_each_run_by_its_labels():
    specs = noise_commits.specs(PRESET)
    assert len({spec.key for spec in specs}) == len(specs) == 12
    history, by_step = [], []
    for number, spec in enumerate(specs):
        for step in spec.probes.usage_steps:
            row = {**spec.columns, "step": step}
            for split, accuracy in (("val", 0.0), ("test", 0.1)):
                history.append({**row, "split": split, "discrete_accuracy": accuracy})
            measured = {"n_gates": 500, "entropy": 1.0, **dict.fromkeys(USAGE, number / 100)}
            by_step += [{**row, **measured, "layer": layer} for layer in (0, 1)]
    empty = pd.DataFrame(columns=["run"])
    known = {"history": pd.DataFrame(history), "usage_by_step": pd.DataFrame(by_step)}
    found = frame(Records({name: known.get(name, empty) for name in TABLES}), PRESET)
    assert len(found) == len(by_step)
    assert set(found["discrete_accuracy"]) == {0.1}
    for number, spec in enumerate(specs):
        runs = found[found["run"] == spec.key]
        assert set(runs["labels"]) == {spec.data.labels}
        assert runs["step"].max() == spec.training.steps
        assert set(runs["unused"]) == {number / 100}
    seeds = {spec.data.label_seed for spec in specs if spec.data.labels == "permuted"}
    assert seeds == {0, 1}


def test_a_preset_without_these_runs_has_an_empty_frame():
    empty = pd.DataFrame(columns=["run"])
    found = frame(Records(dict.fromkeys(TABLES, empty)), replace(PRESET, labels=()))
    assert found.empty
    assert noise_commits.effects(found).empty


def test_a_free_walk_leaves_what_wider_logits_leave():
    """Two samples of 50 000; both are fixed, and their difference is below five standard errors."""
    assert walk_unused(0, 0.01) == pytest.approx(
        0.975, abs=5 * 0.0007
    )  # UNUSED_ENTROPY's own 2.5 %
    p = softmax(2 * np.random.default_rng(3).normal(size=(50_000, 16)), axis=1)
    expected = (entr(p).sum(1) > UNUSED_ENTROPY).mean()
    assert walk_unused(30_000, 0.01) == pytest.approx(expected, abs=5 * 0.003)
    assert walk_unused(300, 0.1) == walk_unused(30_000, 0.01)


def test_the_figure_draws_every_arm_and_the_walk():
    after = {(GLGN, "independent"): {"unused": 0.17}}
    figure = drawing.figure(usage(after))
    unused, _, _, accuracy = figure.axes
    of = {line.get_label(): line.get_ydata() for line in unused.get_lines()}
    assert len(of) == 7
    assert of["GLGN, independent"] == pytest.approx([0.18])
    assert of["free random walk, steps of lr"] == pytest.approx([0.9, 0.9])
    assert len(accuracy.get_lines()) == 6
