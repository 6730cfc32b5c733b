"""Joins each claim's experiment to its figure, and writes CSVs, figures, the ledger and the report.

``experiments/x.py`` → ``figures/x.csv`` (what the figure shows), ``figures/x.effects.csv`` (what
the verdict rests on), ``figures/x.json`` (where it comes from) → ``plots/x.py`` →
``figures/x.png`` and ``figures/x.pdf`` → ``claims.csv``, ``claims.md`` and ``report.html``. What
follows the CSVs follows from them alone: :func:`rebuild` makes it again, to the same bytes.
"""

from __future__ import annotations

from lgn_analysis.report.catalogue import experiment_names
from lgn_analysis.report.drawing import draw
from lgn_analysis.report.ledger import read_ledger
from lgn_analysis.report.plan import Plan, plan
from lgn_analysis.report.readme import update_readme
from lgn_analysis.report.reproduction import Report, rebuild, reproduce
from lgn_analysis.report.wording import format_effect, tally

__all__ = [
    "Plan",
    "Report",
    "draw",
    "experiment_names",
    "format_effect",
    "plan",
    "read_ledger",
    "rebuild",
    "reproduce",
    "tally",
    "update_readme",
]
