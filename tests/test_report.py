"""The whole way from runs to the ledger, at the smallest scale, and back from the CSVs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lgn_analysis import report
from lgn_analysis.errors import InvalidInputError
from lgn_analysis.experiments.verdicts import t_interval


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    result = report.reproduce(
        "smoke", out=folder / "figures", cache=folder / "cache", workers=1, progress=False
    )
    return result, folder / "figures"


def test_every_claim_of_the_paper_has_a_row(made):
    table = made[0].to_frame()
    assert {claim.split()[0] for claim in table["id"]} == {f"C{number}" for number in range(1, 12)}
    assert set(table["outcome"]) <= {"holds", "fails", "inconclusive", "untested"}
    assert not made[0].failures


def test_every_experiment_leaves_its_csv_json_and_figures(made):
    _, folder = made
    for name in report.experiment_names():
        for suffix in ("csv", "json", "png", "pdf"):
            assert (folder / f"{name}.{suffix}").stat().st_size > 0, f"{name}.{suffix}"
        facts = json.loads((folder / f"{name}.json").read_text())
        assert {"commit", "device", "versions", "seeds", "command"} <= set(facts)


FIGURES = Path(__file__).parent.parent / "figures"


def test_every_number_of_the_committed_ledger_follows_from_the_csv_beside_it():
    ledger = pd.read_csv(FIGURES / "claims.csv")
    decided = ledger[ledger["n"] >= 2]
    for row in decided.itertuples():
        effects = pd.read_csv(FIGURES / row.source)
        effects = effects[(effects["claim"] == row.id) & effects["counts"]]
        if "tau" in effects:
            effects = effects[effects["tau"] == effects.groupby("tau")["effect"].mean().idxmax()]
        expected = t_interval(effects["effect"].to_list(), row.level)
        assert np.allclose((row.effect, row.low, row.high), expected, rtol=1e-9)
    assert len(decided)


def test_the_committed_verdicts_follow_from_the_committed_frames():
    ledger = pd.read_csv(FIGURES / "claims.csv").set_index("id")
    for name in report.experiment_names():
        frame = pd.read_csv(FIGURES / f"{name}.csv")
        for verdict in report._experiment(name).verdicts(frame):
            assert ledger.loc[verdict.claim.id, "outcome"] == verdict.outcome
            assert ledger.loc[verdict.claim.id, "effect"] == pytest.approx(verdict.effect)


def test_figures_are_drawn_again_from_the_csvs_to_the_same_bytes(made):
    _, folder = made
    before = (folder / "gap.png").read_bytes()
    pdf = (folder / "gap.pdf").read_bytes()
    report.draw("gap", folder)
    assert (folder / "gap.png").read_bytes() == before
    assert (folder / "gap.pdf").read_bytes() == pdf


def test_untrained_networks_decide_nothing(made):
    ledger = made[0].to_frame().set_index("id")
    for claim in ("C2 accuracy", "C3", "C8 trace"):
        assert ledger.loc[claim, "outcome"] == "inconclusive"


def test_the_ledger_reads_as_a_table(made):
    text = (made[1] / "claims.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| C")]
    assert len(rows) == len(made[0].verdicts)
    assert all(line.count("|") == 8 for line in rows)


def test_a_selection_of_claims_runs_only_what_it_needs(tmp_path):
    with pytest.raises(InvalidInputError, match="no experiment decides 'C4'"):
        report.reproduce("smoke", claims=["C4"], out=tmp_path, cache=tmp_path / "c", progress=False)
    names = report._select(["C1"])
    assert names == ["convergence"]
