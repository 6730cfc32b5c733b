"""From records to frames: settings are marked, gaps have their units, a busy hour does not count."""

import numpy as np
import pandas as pd
import pytest

from lgn_analysis.experiments.frames import (
    RUN_COLUMNS,
    gap_measure,
    gather,
    on_test_split,
    sample_variance,
    undisturbed_seconds,
    with_accuracy,
)
from lgn_analysis.experiments.presets.named import PRESETS
from lgn_analysis.experiments.sweep.execution import TABLES, Records
from tests.experiments.synthetic import gap_rows, histories

SETTING = PRESETS["smoke"].pairs[0]


def records(**tables):
    empty = pd.DataFrame(columns=["run"])
    return Records({name: tables.get(name, empty) for name in TABLES})


def history_of(runs):
    rows = [
        {**run.columns, "step": step, "split": split, "discrete_accuracy": 0.5}
        for run in runs
        for step in (0, 40)
        for split in ("val", "test")
    ]
    return pd.DataFrame(rows)


def test_rows_carry_the_setting_with_its_floor_and_target():
    runs = SETTING.runs("soft")
    found = gather(records(history=history_of(runs)), [(SETTING, runs[:1])], "history")
    assert [*found.columns[: len(RUN_COLUMNS)]] == RUN_COLUMNS
    assert set(found["setting"]) == {SETTING.name}
    assert set(found["floor"]) == {SETTING.floor}
    assert set(found["seed"]) == {0}


def test_without_rows_the_columns_are_there():
    nothing = on_test_split(records(), [(SETTING, SETTING.runs("soft"))], ["step", "gap"])
    assert nothing.empty
    assert [*nothing.columns] == [*RUN_COLUMNS, "step", "gap"]


def test_a_column_that_older_histories_lack_is_missing_there():
    runs = SETTING.runs("soft")[:2]
    older, newer = (history_of([run]) for run in runs)
    history = pd.concat([older, newer.assign(flips_train=1.5)], ignore_index=True)
    found = on_test_split(records(history=history), [(SETTING, runs)], ["step", "flips_train"])
    assert found.groupby("seed")["flips_train"].count().to_list() == [0, 2]


def test_accuracy_joins_at_its_step_or_at_the_end():
    history = history_of(SETTING.runs("soft"))
    history.loc[history["step"] == 40, "discrete_accuracy"] = 0.9
    table = history.loc[history["split"] == "val", ["run", "step"]]
    assert with_accuracy(table, history)["discrete_accuracy"].to_list() == [0.5, 0.9, 0.5, 0.9]
    assert set(with_accuracy(table, history, at_end=True)["discrete_accuracy"]) == {0.9}


def test_gaps_are_in_points_and_nats():
    frame = pd.DataFrame(gap_rows({"soft": 0.02}))
    assert gap_measure(frame, "gap").mean() == pytest.approx(2.0)
    assert gap_measure(frame.assign(gap_train=-0.01), "gap").mean() == pytest.approx(-1.0)
    assert gap_measure(frame, "soft gap").mean() == pytest.approx(2.0)
    assert gap_measure(frame, "loss").mean() == pytest.approx(0.02)
    assert gap_measure(frame, "flips").mean() == pytest.approx(2.0)


def test_a_step_that_costs_more_by_an_option_is_priced_by_itself():
    cheap, dear = (histories({"soft": 100}, options=name) for name in ("default", "draws"))
    dear = dear.assign(seconds=4 * dear["seconds"], run=dear["run"] + "b")
    frame = pd.concat([cheap, dear], ignore_index=True)
    assert undisturbed_seconds(frame)["seconds"].to_numpy() == pytest.approx(
        frame["seconds"].to_numpy()
    )


def test_a_busy_hour_of_the_machine_does_not_count():
    quiet = histories({"soft": 100, "gumbel-st": 100})
    busy = quiet.copy()
    late = (busy["seed"] == 1) & (busy["relaxation"] == "soft")
    busy.loc[late, "seconds"] *= 7
    for frame in (quiet, busy):
        priced = undisturbed_seconds(frame)
        assert priced["seconds"].to_numpy() == pytest.approx(quiet["seconds"].to_numpy())


def test_intervals_too_short_to_be_timed_do_not_set_the_price():
    frame = histories({"soft": 100})
    sparse = frame[frame["step"] % 200 == 0]
    early = sparse[sparse["step"] == 200].assign(step=3, seconds=0.0)  # the clock did not move
    priced = undisturbed_seconds(pd.concat([sparse, early], ignore_index=True))
    assert priced["seconds"].to_numpy() == pytest.approx(0.01 * priced["step"].to_numpy())


@pytest.mark.parametrize("measure", ["accuracy", "gap", "soft gap", "flips"])
def test_the_variance_of_test_samples_is_that_of_drawing_them_again(measure):
    # 4000 test sets of 500 samples; a variance then errs by 2.2 %, and 4 standard errors are 9 %:
    # false-alarm rate 6e-5 a measure. A gap's variance is an upper bound: its square is left out.
    n, sets = 500, 4000
    generator = np.random.default_rng(0)
    kinds = generator.choice(5, size=(sets, n), p=[0.7, 0.06, 0.03, 0.16, 0.05])
    # right in all forwards; lost by discretising; won by it; wrong and the same; wrong otherwise
    right, lost, won, _, other = ((kinds == kind).sum(1) for kind in range(5))
    training = (right + lost) / n
    discrete = (right + won) / n
    flips = lost + won + other
    frame = pd.DataFrame(
        {
            "n": n,
            "discrete_accuracy": discrete,
            "gap_train": training - discrete,
            "gap": training - discrete,
            "gap_loss": 0.0,
            "flips": flips,
            "flips_train": flips.astype(float),
        }
    )
    values = (
        100 * frame["discrete_accuracy"] if measure == "accuracy" else gap_measure(frame, measure)
    )
    predicted = sample_variance(frame, measure).mean()
    seen = values.var()
    assert seen <= 1.09 * predicted
    if measure in ("accuracy", "flips"):
        assert predicted == pytest.approx(seen, rel=0.09)
    uncounted = sample_variance(frame.drop(columns="flips_train"), measure).mean()
    assert uncounted >= 0.99 * predicted


def test_the_variance_of_a_gap_in_loss_is_not_known():
    assert sample_variance(pd.DataFrame(gap_rows({"soft": 0.02})), "loss").isna().all()
