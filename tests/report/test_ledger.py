"""The ledger says what the verdicts say, for reading and with every digit."""

import math
import shutil
from pathlib import Path

import pandas as pd
import pytest

from lgn_analysis import report
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.experiments import Claim, Verdict
from lgn_analysis.experiments.verdicts import untested
from lgn_analysis.report.ledger import ledger_text, verdicts_from, write_ledger
from lgn_analysis.report.page import write_report
from lgn_analysis.report.readme import BEGIN, END, summary_table, update_readme
from lgn_analysis.report.wording import format_effect, format_interval, format_smallest, tally

ROOT = Path(__file__).parents[2]

SPEED = Claim("C1 iterations", "Faster", "4.75×", "steps", "×", math.log(1.25), log=True)
GAP = Claim("C2 gap", "Smaller gap", "98 %", "|soft − discrete|", "pp", 0.5)
NAN = float("nan")


def verdict(claim, outcome, effect, low, high, n=5):
    return Verdict(claim, outcome, effect, low, high, n, "why", "digits; 5 seeds", "x.effects.csv")


VERDICTS = [
    verdict(SPEED, "supported", math.log(2), math.log(1.5), math.inf),
    verdict(GAP, "inconclusive", -0.25, NAN, NAN, n=1),
    untested(Claim("C10", "CIFAR-100", "400k", ""), "needs a GPU"),
]


def test_effects_are_written_in_their_unit_and_ratios_as_factors():
    assert [format_effect(one) for one in VERDICTS] == ["2 × [1.5, ∞]", "−0.25 pp", "–"]
    assert [format_smallest(one) for one in VERDICTS[:2]] == ["1.25 ×", "0.5 pp"]
    assert format_interval(VERDICTS[0]) == "95 % t interval, n = 5"
    assert format_interval(VERDICTS[1]) == "n = 1"
    assert (
        tally(VERDICTS)
        == "1 supported, 1 inconclusive, 1 not testable here; beside these 0 secondary measures"
    )


def test_the_ledger_is_a_table_with_a_row_a_verdict():
    text = ledger_text(VERDICTS, {})
    rows = [line for line in text.splitlines() if line.startswith("| C")]
    assert len(rows) == 3
    assert all(line.count("|") == 8 for line in rows)
    assert "**supported** | 2 × [1.5, ∞], 95 % t interval, n = 5 | 1.25 × | 4.75× |" in rows[0]
    assert "**not testable here**: needs a GPU" in rows[2]
    assert "- **C2 gap** (|soft − discrete|): why." in text


def test_verdicts_come_back_from_the_csv_with_every_digit(tmp_path):
    write_ledger(VERDICTS, tmp_path)
    back = report.read_ledger(tmp_path)
    for one, other in zip(VERDICTS, back, strict=True):
        assert repr(one) == repr(other)  # NaN is not equal to itself


def test_the_readme_table_has_a_row_a_claim_and_a_line_a_measure():
    text = summary_table(VERDICTS)
    assert "| [C1](figures/claims.md): Faster" in text
    assert "**supported** 2 × [1.5, ∞]" in text
    assert "**inconclusive** −0.25 pp" in text
    assert "**not testable here** |" in text


def test_only_what_lies_between_the_markers_is_written(tmp_path):
    write_ledger(VERDICTS, tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert update_readme(readme, tmp_path)
    text = readme.read_text()
    assert text == f"before\n{BEGIN}\n{summary_table(VERDICTS)}\n{END}\nafter\n"
    assert not update_readme(readme, tmp_path)
    readme.write_text("no markers")
    with pytest.raises(InvalidInputError, match="put them back"):
        update_readme(readme, tmp_path)


def test_the_readme_says_what_the_committed_ledger_says(tmp_path):
    """`make figures` brings them together."""
    shutil.copy(ROOT / "README.md", tmp_path)
    assert not update_readme(tmp_path / "README.md", ROOT / "figures")


def test_the_committed_ledger_and_report_follow_from_the_committed_csvs(tmp_path):
    """`make figures` makes them; the PNGs are taken as they are, a slow test draws them."""
    folder = tmp_path / "figures"
    shutil.copytree(ROOT / "figures", folder)
    verdicts = verdicts_from(folder)
    write_ledger(verdicts, folder)
    write_report(verdicts, folder)
    for name in ("claims.md", "report.html"):
        assert (folder / name).read_bytes() == (ROOT / "figures" / name).read_bytes(), name
    # Every digit: the last ones are those of this processor.
    made, committed = (pd.read_csv(path / "claims.csv") for path in (folder, ROOT / "figures"))
    pd.testing.assert_frame_equal(made, committed, rtol=1e-9)


@pytest.mark.slow
def test_the_committed_figures_are_drawn_again_to_the_same_bytes(tmp_path):
    """On the release of Matplotlib that drew them."""
    import matplotlib

    from lgn_analysis.report.provenance import read_facts

    folder = tmp_path / "figures"
    shutil.copytree(ROOT / "figures", folder)
    drawn = 0
    for path in sorted(folder.glob("*.png")):
        facts = read_facts(folder, path.stem)
        if facts["versions"]["matplotlib"] == matplotlib.__version__:
            report.draw(path.stem, folder)
            drawn += 1
            for suffix in ("png", "pdf"):
                name = f"{path.stem}.{suffix}"
                assert (folder / name).read_bytes() == (ROOT / "figures" / name).read_bytes(), name
    assert drawn
