"""``reproduce`` and ``figures`` as a user runs them; what they refuse is in tests/test_cli.py."""

import re
import shutil
from dataclasses import replace

import pytest

from lgn_analysis import report
from lgn_analysis.cli import main
from lgn_analysis.experiments.sweep.failures import Failure
from lgn_analysis.report.readme import BEGIN, END
from tests.experiments.sweep_program import tiny_specs

pytestmark = pytest.mark.xdist_group("smoke")


def run(capsys, *args):
    """Return exit status, standard output and standard error of a command."""
    status = main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_dry_run_says_what_it_takes_and_does_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(capsys, "reproduce", "--preset", "paper", "--claims", "c1", "--dry-run")
    assert status == 0
    assert re.search(r"C1 +convergence +20 +0 +20 ", out)
    assert re.search(r"20 runs, 0 done, 20 missing on cuda: about .* GiB of memory", out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags", [["--claims", "C2,c8"], ["--claims", "C2", "--claims", "C8, C2"]], ids=" ".join
)
def test_claims_go_by_commas_and_by_repeats(flags, capsys, monkeypatch, made):
    given = {}

    def reproduce(preset, **options):
        given.update(options, preset=preset)
        return made.report

    monkeypatch.setattr(report, "reproduce", reproduce)
    args = ["--preset", "smoke", "--no-retry", "--scheduler", "tcp://h:1", "--cache", made.cache]
    status, out, _ = run(capsys, "reproduce", *flags, *args)
    assert status == 0
    assert given["claims"] == ("C2", "C8")
    assert (given["preset"], given["retry"], given["scheduler"]) == ("smoke", False, "tcp://h:1")
    assert "all done: nothing to run" in out
    assert re.search(r"C8 trace +not testable here", out)
    assert str(made.report.page) in out


def test_failed_runs_are_listed_and_end_in_status_2(capsys, monkeypatch, made):
    (spec,) = tiny_specs(1)
    failure = Failure.of(spec.key, spec.label, spec, "no memory")
    failed = replace(made.report, failures=(failure,))
    monkeypatch.setattr(report, "reproduce", lambda preset, **options: failed)
    args = ["--preset", "smoke", "--claims", "C2", "--cache", made.cache]
    status, out, err = run(capsys, "reproduce", *args)
    assert status == 2
    assert f"failed: {spec.label} ({spec.key}): no memory" in out
    assert "1 runs failed and are left out" in err


def test_figures_ledger_report_and_readme_are_made_from_the_csvs(made, tmp_path, capsys):
    folder, readme = tmp_path / "figures", tmp_path / "README.md"
    shutil.copytree(made.folder, folder)
    before = (folder / "report.html").read_bytes()
    for name in ("gap.png", "claims.csv", "claims.md", "report.html"):
        (folder / name).unlink()
    readme.write_text(f"{BEGIN}\n{END}\n")
    status, out, _ = run(capsys, "figures", "gap", "--folder", folder, "--readme", readme)
    assert status == 0
    assert "report.html" in out
    assert (folder / "report.html").read_bytes() == before
    assert "| [C2](figures/claims.md): " in readme.read_text()
