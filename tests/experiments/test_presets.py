"""Presets are data: what they compare is paired, shared between claims, and priced beforehand."""

from dataclasses import replace

import pytest

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.experiments import find_preset
from lgn_analysis.experiments.discovery import estimate, experiments
from lgn_analysis.experiments.presets.named import PRESETS
from lgn_analysis.experiments.settings import PAIR
from lgn_analysis.experiments.specs import ProbePlan, TimingPlan
from lgn_analysis.experiments.sweep.costs import cost, estimate_runs, memory
from lgn_analysis.experiments.verdicts import MIN_SEEDS

SETTING = PRESETS["smoke"].pairs[0]


def test_seeds_pair_the_methods():
    soft, noisy = SETTING.runs("soft"), SETTING.runs("gumbel-st")
    for left, right in zip(soft, noisy, strict=True):
        assert replace(left.network, relaxation="gumbel-st") == right.network
        assert left.training == right.training
        assert left.network.seed == left.training.seed


def test_runs_at_the_reference_are_shared_and_others_measure_less():
    assert SETTING.runs("gumbel-st", tau=SETTING.network.tau) == SETTING.runs("gumbel-st")
    (other, *_) = SETTING.runs("gumbel-st", tau=0.5)
    assert other.probes.trace_steps == SETTING.probes.trace_steps[-1:]
    assert not other.probes.lemma_steps
    (hard, *_) = SETTING.runs("hard-st")
    assert hard.probes.anatomy_steps == SETTING.probes.anatomy_steps
    assert not hard.probes.density_probes


def test_a_width_brings_its_group_tau_along():
    (run, *_) = SETTING.runs("soft", width=4 * SETTING.network.width)
    assert run.network.group_tau == pytest.approx(2 * SETTING.network.group_tau)


def test_the_spacing_of_evaluations_goes_into_the_training_and_the_price():
    (run, *_) = SETTING.runs("soft")
    bare = replace(SETTING, probes=ProbePlan())
    dense = replace(bare, eval_every=1000, steps=2000, eval_spacing="log")
    sparse = replace(dense, eval_spacing="linear")
    assert run == replace(SETTING, eval_spacing="linear").runs("soft")[0]
    (often, *_), (rarely, *_) = dense.runs("soft"), sparse.runs("soft")
    assert (often.training.eval_spacing, rarely.training.eval_spacing) == ("log", "linear")
    assert cost(often) > cost(rarely)
    assert often.key != rarely.key


def test_annealing_goes_into_the_training():
    (run, *_) = SETTING.runs("soft", anneal_to=0.1)
    assert (run.training.tau_schedule, run.training.tau_end) == ("exponential", 0.1)
    assert run.columns["tau_end"] == 0.1
    assert "→0.1" in run.label


def test_a_plane_is_drawn_for_the_first_seed_alone():
    grids = [run.probes.plane_grid for run in SETTING.runs("soft")]
    assert grids == [SETTING.probes.plane_grid, 0]


def test_every_claim_of_the_paper_and_ours_has_an_experiment():
    claims = {claim.id.split()[0] for module in experiments().values() for claim in module.CLAIMS}
    mechanism = {f"M{number}" for number in range(1, 10)}
    assert claims == {f"C{number}" for number in range(1, 15)} | mechanism


def test_every_claim_says_its_metric_its_null_and_what_counts():
    for module in experiments().values():
        for claim in module.CLAIMS:
            assert claim.metric, claim.id
            assert claim.null, claim.id
            assert claim.paper, claim.id
            assert claim.smallest >= 0, claim.id


@pytest.mark.parametrize("name", ["quick", "cpu", "fashion", "paper"])
def test_a_preset_decides_by_enough_seeds(name):
    for setting in find_preset(name).pairs:
        assert len(setting.seeds) >= MIN_SEEDS


@pytest.mark.parametrize(
    ("name", "minutes"), [("quick", 1), ("cpu", 70), ("fashion", 60), ("smoke", 0.5)]
)
def test_a_preset_keeps_to_its_time_by_its_own_estimate(name, minutes):
    assert estimate(find_preset(name)).wall(2) <= 60 * minutes


def test_the_paper_s_preset_is_for_gpus_and_needs_its_days():
    found = estimate(find_preset("paper"))
    assert set(found.runs["device"]) == {"cuda"}
    assert found.seconds > 24 * 3600
    assert found.bytes < 80 * 2**30


def test_a_probe_that_no_evaluation_meets_is_refused():
    probes = replace(SETTING.probes, trace_steps=(7,))
    with pytest.raises(
        InvalidInputError, match=r"probes at steps \[7\] of digits .*, which is evaluated"
    ):
        replace(SETTING, probes=probes).runs("soft")


def test_a_map_is_compared_at_its_evaluations():
    for preset in PRESETS.values():
        for item in preset.maps:
            assert max(item.lengths) < item.setting.steps
            assert all(length % item.setting.eval_every == 0 for length in item.lengths)


def test_a_run_s_cost_grows_with_gates_steps_batch_and_probes():
    (run, *_) = SETTING.runs("soft")
    longer = replace(run, training=replace(run.training, steps=400, eval_every=20))
    wider = replace(run, network=replace(run.network, width=5000))
    bare = replace(run, probes=ProbePlan())
    bigger = replace(longer, training=replace(longer.training, batch_size=256))
    assert cost(longer) > cost(run) > cost(bare)
    assert cost(wider) > 5 * cost(run)
    assert cost(bigger) > cost(longer)
    assert memory(wider) > memory(run)
    hard = replace(run, network=replace(run.network, relaxation="gumbel-st"))
    assert cost(hard) < cost(run)


def test_both_lemmas_cost_more_with_more_draws_and_lemma_1_with_more_scales():
    (run, *_) = SETTING.runs("soft")

    def seconds(**plan):
        return cost(replace(run, probes=ProbePlan(**plan)))

    hard, lemma = {"hard_lemma_steps": (20,)}, {"lemma_steps": (20,)}
    assert seconds() < seconds(**lemma, lemma_scales=(1.0,)) < seconds(**lemma)
    assert seconds(**lemma, lemma_scales=(1.0,)) < seconds(**hard)
    assert seconds(**hard) == seconds(**hard, lemma_scales=(1.0,))
    assert seconds(**hard) < seconds(**hard, hard_lemma_draws=512)
    assert seconds(**hard) < seconds(**hard, lemma_draws=128)


def test_a_step_on_a_gpu_is_priced_by_the_bytes_it_moves():
    base = PRESETS["paper"].pairs[0].runs("soft")[0]
    bare = replace(base, probes=ProbePlan())
    # 12 × 256k gates, 128 samples of 28 bytes and 512 bytes of logits each, at 1 TB/s.
    step = 12 * 256_000 * (512 + 128 * 28) / 1e12
    assert cost(bare) == pytest.approx(bare.training.steps * step, rel=0.1)


def test_equal_runs_are_priced_once_and_a_timing_by_its_steps():
    runs = SETTING.runs("soft")
    assert estimate_runs([*runs, *runs]).seconds == pytest.approx(estimate_runs(runs).seconds)
    few, many = (
        SETTING.timings(TimingPlan(PAIR, rounds=rounds, steps=10))[0] for rounds in (10, 100)
    )
    assert cost(many) > 5 * cost(few)
    assert estimate_runs([]).wall(2) == 0.0


def test_an_unknown_preset_is_named():
    with pytest.raises(InvalidInputError, match="unknown preset 'big'; use one of quick"):
        find_preset("big")
