"""A run as data, and its record: whole or not there, carrying what distinguishes it."""

from dataclasses import replace

import pandas as pd
import pytest

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.experiments import measures
from lgn_analysis.experiments.presets.named import PRESETS
from lgn_analysis.experiments.specs import ProbePlan, TimingPlan
from lgn_analysis.experiments.sweep.execution import TABLES, execute

SETTING = PRESETS["smoke"].pairs[0]


@pytest.fixture
def spec():
    tiny = SETTING.runs("gumbel-st")[0]
    training = replace(tiny.training, steps=2, eval_every=1)
    return replace(tiny, training=training, probes=ProbePlan())


def test_the_key_of_a_run_follows_its_content(spec):
    assert spec.key == replace(spec).key
    other = replace(spec, network=replace(spec.network, tau=0.5))
    assert other.key != spec.key
    assert replace(spec, timing=TimingPlan(("soft",))).key != spec.key


def test_a_run_that_is_killed_midway_leaves_no_record(spec, tmp_path, monkeypatch):
    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(measures, "usage_table", killed)
    with pytest.raises(KeyboardInterrupt):
        execute(spec, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_probed_run_leaves_every_table_of_a_training(tmp_path):
    signals = {"signal_steps": (40,), "signal_batches": 6, "signal_draws": 2}
    lemmas = {"hard_lemma_steps": (40,), "hard_lemma_draws": 4}
    others = {"alignment_draws": 512, "usage_steps": (20, 40)}
    probes = replace(SETTING.probes, **signals, **lemmas, **others)
    place = execute(replace(SETTING, probes=probes).runs("soft")[0], tmp_path)
    made = {path.stem for path in place.glob("*.csv")}
    assert made == set(TABLES) - {"timing"}
    by_step = pd.read_csv(place / "usage_by_step.csv")
    assert by_step["step"].unique().tolist() == [20, 40]
    usage = pd.read_csv(place / "usage.csv")
    last = by_step[by_step["step"] == 40].reset_index(drop=True)
    shared = [*last.columns.drop("step").intersection(usage.columns)]
    assert {"unused", "constant", "unreachable"} <= {*shared}
    pd.testing.assert_frame_equal(last[shared], usage[shared], check_exact=True)
    shares = usage[[*measures.ENTROPY_COLUMNS]]
    assert shares.sum(axis=1).to_numpy() == pytest.approx([1.0] * SETTING.network.depth)
    lines = pd.read_csv(place / "landscape.csv")
    assert set(lines["kind"]) == {"filter", "eigen", "plane"}
    anatomy = pd.read_csv(place / "anatomy.csv")
    assert anatomy.loc[anatomy["scheme"] == "alone", "bit_flips"].notna().all()
    assert {"ratio_3", "ratio_4"} <= set(pd.read_csv(place / "lemma.csv"))


def test_a_timing_takes_its_turns_in_mirrored_order(tmp_path):
    plan = TimingPlan(("soft", "gumbel-st"), rounds=2, steps=1, warm_up=1)
    place = execute(SETTING.timings(plan)[0], tmp_path)
    turns = pd.read_csv(place / "timing.csv")
    assert turns["method"].to_list() == ["soft", "gumbel-st", "gumbel-st", "soft"]
    assert (turns["seconds"] > 0).all()
    assert not (place / "history.csv").exists()


def test_a_run_for_a_gpu_says_so_where_there_is_none(spec, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InvalidInputError, match="made for a CUDA device"):
        execute(replace(spec, device="cuda"), tmp_path)
    assert list(tmp_path.iterdir()) == []
