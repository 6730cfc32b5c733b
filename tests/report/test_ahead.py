"""A figure is there as soon as its last run has ended, and the cheapest experiment comes first."""

import pytest

from lgn_analysis.experiments import find_preset
from lgn_analysis.experiments.sweep.cache import RunCache
from lgn_analysis.experiments.sweep.costs import cost
from lgn_analysis.report.ahead import FiguresAhead, in_turn
from lgn_analysis.report.catalogue import experiment

pytestmark = pytest.mark.xdist_group("smoke")

SMOKE = find_preset("smoke")


def keys_of(name):
    return {spec.key for spec in experiment(name).specs(SMOKE)}


def test_experiments_take_turns_and_the_cheapest_comes_first(tmp_path):
    names = ["gap", "overhead", "depth_gap"]
    turns = in_turn(names, SMOKE, RunCache(tmp_path))
    assert len({spec.key for spec in turns}) == len(turns)
    assert {spec.key for spec in turns} == set().union(*map(keys_of, names))
    order = [next(name for name in names if spec.key in keys_of(name)) for spec in turns]
    blocks = list(dict.fromkeys(order))
    assert order == sorted(order, key=blocks.index)
    price = {name: sum(cost(spec) for spec in experiment(name).specs(SMOKE)) for name in names}
    assert blocks == sorted(names, key=price.__getitem__)
    for name in names:
        costs = [cost(spec) for spec in turns if spec.key in keys_of(name)]
        assert costs == sorted(costs, reverse=True)


def test_what_is_in_the_cache_costs_nothing(made):
    turns = in_turn(["overhead", "gap"], SMOKE, RunCache(made.cache))
    assert turns[0].key in keys_of("gap")


def test_an_experiment_is_drawn_when_its_last_run_has_ended(made, tmp_path, capsys):
    names = ["gap", "depth_gap"]
    lacking = keys_of("depth_gap") - {path.name for path in made.cache.iterdir()}
    assert lacking
    with FiguresAhead(names, SMOKE, RunCache(made.cache), tmp_path, say=True) as figures:
        assert figures._drawn == []
        figures.heard("a run of another experiment")
        (drawn,) = figures._drawn
        drawn.result()
        assert (tmp_path / "gap.png").is_file()
        assert not (tmp_path / "depth_gap.json").exists()
    assert figures.failures == ()
    assert f"C2: {tmp_path / 'gap.png'} is drawn" in capsys.readouterr().err


def test_a_run_that_is_heard_of_lets_the_next_figure_begin(made, tmp_path):
    store = RunCache(tmp_path / "empty")
    with FiguresAhead(["gap"], SMOKE, store, tmp_path, say=False) as figures:
        *most, last = keys_of("gap")
        for key in most:
            figures.heard(key)
        assert figures._drawn == []
        figures.heard(last)
        assert len(figures._drawn) == 1
