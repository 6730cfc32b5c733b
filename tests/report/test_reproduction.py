"""The whole way from runs to the report at the smallest scale, and back from the CSVs."""

import json
import shutil
from pathlib import Path

import pytest

from lgn_analysis import report
from lgn_analysis.base.errors import DamagedFileError, InvalidInputError
from lgn_analysis.experiments.sweep import execution
from tests.experiments.serial import Serial

pytestmark = pytest.mark.xdist_group("smoke")


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_whole_smoke_preset_has_a_row_a_claim_and_what_a_figure_needs(smoke_cache, tmp_path):
    result = report.reproduce("smoke", out=tmp_path / "out", cache=smoke_cache, progress=False)
    assert result.failures == ()
    table = result.to_frame()
    mechanism = {f"M{number}" for number in range(1, 10)}
    claims = {f"C{number}" for number in range(1, 15)} | mechanism
    assert {claim.split()[0] for claim in table["id"]} == claims
    assert set(table["outcome"]) <= {"inconclusive", "not testable here"}, "smoke decides nothing"
    assert not table["id"].duplicated().any()
    for name in report.experiment_names():
        facts = json.loads((result.folder / f"{name}.json").read_text())
        assert {"commit", "device", "versions", "seeds", "command", "failures"} <= set(facts)
        suffixes = ("csv", "png", "pdf") if facts["runs"] else ("csv",)
        for suffix in suffixes:
            assert (result.folder / f"{name}.{suffix}").stat().st_size > 0, f"{name}.{suffix}"
        assert facts["runs"] or not (result.folder / f"{name}.png").exists()


def test_only_what_the_claims_need_is_run_and_the_others_say_so(made):
    asked = {verdict.claim.id.split()[0] for verdict in made.report.verdicts}
    assert asked == {"C2", "C8"}
    written = {path.stem for path in made.folder.glob("*.png")}
    assert written == {"gap", "hessian_trace", "lemma_1"}
    ledger = {verdict.claim.id: verdict for verdict in report.read_ledger(made.folder)}
    assert ledger["C3"].outcome == "not testable here"
    assert "reproduce --claims C3" in ledger["C3"].reason


def test_everything_is_made_again_from_csv_and_json_to_the_same_bytes(made, tmp_path):
    for pattern in ("*.csv", "*.json"):
        for path in made.folder.glob(pattern):
            if path.name != "claims.csv":
                shutil.copy(path, tmp_path)
    report.rebuild(tmp_path)
    assert bytes_of(tmp_path) == bytes_of(made.folder)


def test_one_figure_alone_is_made_again(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "copy")
    folder = tmp_path / "copy"
    for name in ("gap", "lemma_1"):
        (folder / f"{name}.png").write_bytes(b"old")
    report.rebuild(folder, ["gap"])
    assert (folder / "gap.png").read_bytes() == (made.folder / "gap.png").read_bytes()
    assert (folder / "lemma_1.png").read_bytes() == b"old"


def test_claims_are_reproduced_in_pieces(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "out")
    more = report.reproduce(
        "smoke",
        claims=["C3"],
        out=tmp_path / "out",
        cache=made.cache,
        executor=Serial(),
        progress=False,
    )
    assert {verdict.claim.id for verdict in more.verdicts} == {"C3"}
    ledger = {verdict.claim.id: verdict for verdict in report.read_ledger(tmp_path / "out")}
    assert ledger["C3"].n == ledger["C2 loss"].n == 2
    assert "its premise is absent" in ledger["C3"].reason


@pytest.mark.parametrize("failing", ["some", "all"])
def test_failed_runs_are_shown_and_an_older_csv_does_not_speak_for_them(
    made, tmp_path, monkeypatch, failing
):
    """With one run gone the claim has a seed less; with all gone it is untested."""
    out = tmp_path / "out"
    shutil.copytree(made.folder, out)
    execute = execution.execute

    def broken(spec, cache):
        if failing == "all" or (spec.training.seed == 1 and spec.network.relaxation == "soft"):
            raise MemoryError("a <b>full</b> machine")
        return execute(spec, cache)

    monkeypatch.setattr(execution, "execute", broken)
    result = report.reproduce(
        "smoke",
        claims=["C2"],
        out=out,
        cache=tmp_path / "cache",
        executor=Serial(),
        progress=False,
    )
    assert {failure.error for failure in result.failures} == {"MemoryError: a <b>full</b> machine"}
    failed = result.failures[0]
    ledger, page = (out / "claims.md").read_text(), result.page.read_text()
    assert f"{failed.label} (`{failed.key}`): MemoryError" in ledger
    assert "a &lt;b&gt;full&lt;/b&gt; machine" in page
    assert "<b>full</b>" not in page
    kinds = {verdict.claim.id: verdict for verdict in result.verdicts}
    if failing == "all":
        assert kinds["C2 loss"].outcome == "not testable here"
        assert "of its 6 runs failed" in kinds["C2 loss"].reason
        assert not (out / "gap.csv").exists()
        assert not (out / "gap.png").exists()
    else:
        assert kinds["C2 loss"].n == 1


def test_a_broken_experiment_is_no_failed_run(made, tmp_path, monkeypatch):
    from lgn_analysis.experiments.claims import gap

    def wrong(records, preset):
        raise KeyError("a bug")

    monkeypatch.setattr(gap, "frame", wrong)
    with pytest.raises(KeyError, match="a bug"):
        report.reproduce(
            "smoke",
            claims=["C2"],
            out=tmp_path,
            cache=made.cache,
            executor=Serial(),
            progress=False,
        )


def test_what_cannot_be_made_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match="no experiment decides 'C99'; choose from C1, C2"):
        report.reproduce("smoke", claims=["C99"], out=tmp_path, cache=tmp_path, progress=False)
    with pytest.raises(InvalidInputError, match="no experiment has left a CSV in"):
        report.rebuild(tmp_path)
    with pytest.raises(InvalidInputError, match=r"gap\.csv is missing"):
        report.draw("gap", tmp_path)
    with pytest.raises(InvalidInputError, match="unknown figure 'gaps'; use one of convergence"):
        report.draw("gaps", tmp_path)
    (tmp_path / "gap.csv").write_text("run,deep\n")
    with pytest.raises(InvalidInputError, match=r"gap\.csv has no rows"):
        report.draw("gap", tmp_path)


def change(path):
    path.write_text(path.read_text().replace("0.", "1.", 1))


def test_a_csv_with_other_ends_of_lines_is_the_one_that_was_written(made, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    for name in ("gap.csv", "gap.effects.csv"):
        (folder / name).write_bytes((folder / name).read_bytes().replace(b"\n", b"\r\n"))
    report.draw("gap", folder)


@pytest.mark.parametrize("name", ["gap.csv", "gap.effects.csv"])
@pytest.mark.parametrize("damage", [change, lambda path: path.write_text(""), Path.unlink])
def test_a_csv_that_is_not_the_one_that_was_written_is_refused(made, tmp_path, name, damage):
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    damage(folder / name)
    with pytest.raises(InvalidInputError, match=f"{name}.*(it was changed or lost|is missing)"):
        report.draw("gap", folder)


def test_facts_of_another_format_are_refused(made, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    facts = json.loads((folder / "gap.json").read_text())
    (folder / "gap.json").write_text(json.dumps({**facts, "format": 9}))
    with pytest.raises(DamagedFileError, match="has format 9, this package reads 1; run"):
        report.draw("gap", folder)


def test_a_csv_of_another_version_is_named(made, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    text = (folder / "gap.csv").read_text()
    (folder / "gap.csv").write_text(text.replace("discrete_accuracy", "accuracy", 1))
    (folder / "gap.json").unlink()  # which would say that the CSV is another one
    with pytest.raises(
        InvalidInputError, match=r"gap\.csv has no column '(Column not found: )?discrete_accuracy'"
    ):
        report.rebuild(folder, ["lemma_1"])
    with pytest.raises(
        InvalidInputError, match=r"gap\.csv has no column '(Column not found: )?discrete_accuracy'"
    ):
        report.draw("gap", folder)
