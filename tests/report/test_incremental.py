"""A figure is there as soon as its last run has ended, and the cheapest experiment comes first."""

import pytest

from lgn_analysis.experiments import find_preset
from lgn_analysis.experiments.sweep.cache import RunCache
from lgn_analysis.experiments.sweep.costs import cost
from lgn_analysis.report.catalogue import experiment
from lgn_analysis.report.incremental import IncrementalFigures, run_order

pytestmark = pytest.mark.xdist_group("smoke")

SMOKE = find_preset("smoke")


def keys_of(name):
    return {spec.key for spec in experiment(name).specs(SMOKE)}


def test_experiments_run_one_after_the_other_and_the_cheapest_comes_first(tmp_path):
    names = ["gap", "overhead", "depth_gap"]
    runs = run_order(names, SMOKE, RunCache(tmp_path))
    assert len({spec.key for spec in runs}) == len(runs)
    assert {spec.key for spec in runs} == set().union(*map(keys_of, names))
    order = [next(name for name in names if spec.key in keys_of(name)) for spec in runs]
    blocks = list(dict.fromkeys(order))
    assert order == sorted(order, key=blocks.index)
    price = {name: sum(cost(spec) for spec in experiment(name).specs(SMOKE)) for name in names}
    assert blocks == sorted(names, key=price.__getitem__)
    for name in names:
        costs = [cost(spec) for spec in runs if spec.key in keys_of(name)]
        assert costs == sorted(costs, reverse=True)


def test_what_is_in_the_cache_costs_nothing(made):
    runs = run_order(["overhead", "gap"], SMOKE, RunCache(made.cache))
    assert runs[0].key in keys_of("gap")


def test_an_experiment_is_drawn_when_its_last_run_has_ended(made, tmp_path, capsys):
    names = ["gap", "depth_gap"]
    lacking = keys_of("depth_gap") - {path.name for path in made.cache.iterdir()}
    assert lacking
    with IncrementalFigures(names, SMOKE, RunCache(made.cache), tmp_path, verbose=True) as figures:
        assert figures._drawn == []
        figures.run_ended("a run of another experiment")
        (drawn,) = figures._drawn
        drawn.result()
        assert (tmp_path / "gap.png").is_file()
        assert not (tmp_path / "depth_gap.json").exists()
    assert figures.failures == ()
    assert f"C2: {tmp_path / 'gap.png'} is drawn" in capsys.readouterr().err


def test_the_last_run_that_ends_lets_the_next_figure_begin(made, tmp_path):
    store = RunCache(tmp_path / "empty")
    with IncrementalFigures(["gap"], SMOKE, store, tmp_path, verbose=False) as figures:
        *most, last = keys_of("gap")
        for key in most:
            figures.run_ended(key)
        assert figures._drawn == []
        figures.run_ended(last)
        assert len(figures._drawn) == 1
