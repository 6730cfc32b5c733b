"""The ledger of claims: ``claims.csv`` with every digit, ``claims.md`` for reading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pandas as pd

from lgn_analysis.base.errors import DamagedFileError, InvalidInputError
from lgn_analysis.experiments import Claim, Verdict
from lgn_analysis.experiments.verdicts import corrected, untested
from lgn_analysis.report.catalogue import claim_order, experiment, experiment_names, numbers_of
from lgn_analysis.report.drawing import explaining_missing_columns, read_frame, read_table
from lgn_analysis.report.provenance import Facts, read_facts
from lgn_analysis.report.templating import TEMPLATES

LEDGER: Final = "claims"


def verdicts_from(folder: Path) -> list[Verdict]:
    """Return the verdict on every claim, from the CSVs in a folder alone, corrected for their number."""
    verdicts: list[Verdict] = []
    for name in experiment_names():
        if (folder / f"{name}.csv").is_file():
            with explaining_missing_columns(name, folder):
                verdicts += experiment(name).verdicts(read_frame(name, folder))
        else:
            reason = _why_missing(name, folder)
            verdicts += [untested(claim, reason) for claim in experiment(name).CLAIMS]
    return corrected(sorted(verdicts, key=lambda verdict: claim_order(verdict.claim.id)))


def _why_missing(name: str, folder: Path) -> str:
    facts = read_facts(folder, name)
    failures = facts.get("failures", [])
    if failures:
        return f"{len(failures)} of its {len(facts['runs'])} runs failed"
    claims = ",".join(numbers_of(name))
    return f"not run here; `lgn-analysis reproduce --claims {claims}` does"


def all_facts(folder: Path) -> dict[str, Facts]:
    """Return where the rows of each experiment come from, by its name."""
    found = {name: read_facts(folder, name) for name in experiment_names()}
    return {name: facts for name, facts in found.items() if facts}


def all_failures(facts: Iterable[Facts]) -> list[dict[str, str]]:
    """Return the runs that failed, each once, by label."""
    rows = {row["key"]: row for one in facts for row in one.get("failures", [])}
    return sorted(rows.values(), key=lambda row: (row["label"], row["key"]))


def write_ledger(verdicts: Sequence[Verdict], folder: Path) -> list[Path]:
    """Write ``claims.csv`` and ``claims.md`` and return their paths."""
    table, text = folder / f"{LEDGER}.csv", folder / f"{LEDGER}.md"
    pd.DataFrame([verdict.to_row() for verdict in verdicts]).to_csv(table, index=False)
    text.write_text(ledger_text(verdicts, all_facts(folder)), encoding="utf-8")
    return [table, text]


def read_ledger(folder: Path) -> list[Verdict]:
    """Return the verdicts of ``claims.csv``.

    Raises:
        InvalidInputError: the file is missing.
        DamagedFileError: it is no CSV.
    """
    path = folder / f"{LEDGER}.csv"
    if not path.is_file():
        raise InvalidInputError(f"{path} is missing; `lgn-analysis reproduce` makes it")
    table = read_table(path)
    lacking = sorted((_names(Claim) | _names(Verdict)) - {"claim", *table.columns})
    if lacking:
        raise DamagedFileError(
            f"{path} has no column {lacking[0]!r}; `lgn-analysis figures` writes it again"
        )
    words = [
        *table.select_dtypes(exclude="number").columns,
        "premise",
        "alone",
    ]  # which may be all empty
    known = {name: table[name].astype(object).where(table[name].notna(), "") for name in words}
    rows = table.assign(**known)
    return [_verdict(row) for row in rows.to_dict("records")]


def _verdict(row: dict[Any, Any]) -> Verdict:
    known = {name: row[name] for name in _names(Claim)}
    claim = Claim(**{**known, "most": None if pd.isna(row["most"]) else row["most"]})
    rest = {name: row[name] for name in _names(Verdict) - {"claim"}}
    return Verdict(claim=claim, **rest)


def _names(kind: type[Claim] | type[Verdict]) -> set[str]:
    return {field.name for field in fields(kind)}


def ledger_text(verdicts: Sequence[Verdict], facts: dict[str, Facts]) -> str:
    """Return the ledger as Markdown."""
    return TEMPLATES.get_template("claims.md.j2").render(
        presets=presets_text(facts.values()),
        verdicts=verdicts,
        failures=all_failures(facts.values()),
    )


def presets_text(facts: Iterable[Facts]) -> str:
    """Return which presets the rows come from."""
    presets = {one["preset"]: one.get("description", "") for one in facts}
    if not presets:
        return "No run yet."
    presets_in_words = [
        f"preset `{name}`" + (f" ({description})" if description else "")
        for name, description in sorted(presets.items())
    ]
    text = "; ".join(presets_in_words)
    return f"{text[0].upper()}{text[1:]}."
