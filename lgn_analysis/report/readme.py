"""The README's table of claims, written from ``claims.csv`` between two markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.experiments import Verdict
from lgn_analysis.report.ledger import LEDGER, read_ledger
from lgn_analysis.report.wording import format_effect, tally

BEGIN: Final = "<!-- made by `make figures` from figures/claims.csv: -->"
END: Final = "<!-- end of what `make figures` made -->"


def summary_table(verdicts: Sequence[Verdict]) -> str:
    """Return a row a claim with the verdicts on its primary measure, as Markdown."""
    rows = []
    for number in dict.fromkeys(verdict.claim.number for verdict in verdicts):
        own = [one for one in verdicts if one.claim.number == number and one.claim.primary]
        asked = f"[{number}](figures/{LEDGER}.md): {own[0].claim.title}"
        cells = (asked, own[0].claim.paper, "<br>".join(map(_cell, own)))
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(
        [
            "| claim | the paper | here, 95 % intervals over seeds |",
            "|---|---|---|",
            *rows,
            "",
            f"{tally(verdicts).capitalize()}.",
        ]
    )


def _cell(verdict: Verdict) -> str:
    setting = verdict.claim.id.partition("(")[2].rstrip(")")
    text = f"**{verdict.outcome}**" + (f" ({setting})" if setting else "")
    text += f", by itself {verdict.alone}:" if verdict.alone else ""
    return f"{text} {format_effect(verdict)}" if verdict.n else text


def update_readme(readme: Path, folder: Path) -> bool:
    """Write the table of ``claims.csv`` between the markers; return whether anything changed.

    Raises:
        InvalidInputError: the markers are missing.
    """
    before = readme.read_text(encoding="utf-8")
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise InvalidInputError(f"{readme} has no lines {BEGIN!r} and {END!r}; put them back")
    after = f"{head}{BEGIN}\n{summary_table(read_ledger(folder))}\n{END}{tail}"
    if after != before:
        readme.write_text(after, encoding="utf-8")
    return after != before
