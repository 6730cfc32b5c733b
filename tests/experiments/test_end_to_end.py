"""From runs to frames, effects, verdicts and figures, for every experiment, at the smallest scale."""

import importlib
from io import StringIO

import pandas as pd
import pytest

from lgn_analysis.experiments import find_preset, run_sweep
from lgn_analysis.experiments.discovery import all_specs, experiments
from lgn_analysis.plots import style

SMOKE = find_preset("smoke")
NOT_IN_SMOKE = {"cifar100"}

pytestmark = pytest.mark.xdist_group("smoke")


@pytest.fixture(scope="module")
def records(smoke_cache):
    return run_sweep(all_specs(SMOKE), cache=smoke_cache, progress=False)


def test_no_run_fails(records):
    assert [failure.label for failure in records.failures] == []


@pytest.mark.parametrize("name", experiments())
def test_an_experiment_goes_from_runs_to_a_figure(records, name):
    experiment = experiments()[name]
    made = experiment.frame(records, SMOKE)
    assert made.empty == (name in NOT_IN_SMOKE)
    # As the report does it: verdict and figure follow from what the CSV holds.
    frame = pd.read_csv(StringIO(made.to_csv(index=False)))
    effects = experiment.effects(frame)
    verdicts = experiment.verdicts(frame)
    if not made.empty:
        assert {v.outcome for v in verdicts} <= {"inconclusive", "not testable here"}
        judged = {v.claim.id for v in verdicts if v.n}
        assert judged <= set(effects["claim"]) if experiment.CLAIMS else not judged
    assert {v.claim.id for v in verdicts} == {claim.id for claim in experiment.CLAIMS}
    with style():
        plot = importlib.import_module(f"lgn_analysis.plots.claims.{name}")
        figure = plot.figure(frame, **getattr(experiment, "FIGURE_OPTIONS", {}))
        figure.canvas.draw()


@pytest.mark.parametrize("name", experiments())
def test_an_experiment_without_runs_is_untested_and_draws_that(tmp_path, name):
    experiment = experiments()[name]
    nothing = run_sweep([], cache=tmp_path, progress=False)
    frame = experiment.frame(nothing, SMOKE)
    again = pd.read_csv(StringIO(frame.to_csv(index=False)))
    for table in (frame, again):
        assert {v.outcome for v in experiment.verdicts(table)} <= {"not testable here"}
        experiment.effects(table)
        plot = importlib.import_module(f"lgn_analysis.plots.claims.{name}")
        plot.figure(table, **getattr(experiment, "FIGURE_OPTIONS", {})).canvas.draw()


def test_untrained_networks_decide_nothing_about_gaps_and_gates(records):
    for name in ("convergence", "gap", "unused_gates", "hessian_trace", "landscape", "parts"):
        experiment = experiments()[name]
        found = {v.outcome for v in experiment.verdicts(experiment.frame(records, SMOKE))}
        assert found <= {"inconclusive", "not testable here"}, name
