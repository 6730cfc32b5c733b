"""One module per claim: spec → runs → tidy frame → effects → verdict.

Each module has ``CLAIMS``, ``specs(preset)``, ``frame(records, preset)``, ``effects(frame)`` and
``verdicts(frame)``; the module of the same name in
:mod:`lgn_analysis.plots.claims` draws the frame.
"""

from __future__ import annotations

from lgn_analysis.experiments.presets.named import PRESETS, Preset, find_preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.sweep.scheduling import run_sweep
from lgn_analysis.experiments.verdicts import Claim, Verdict

__all__ = [
    "PRESETS",
    "Claim",
    "Preset",
    "Records",
    "RunSpec",
    "Verdict",
    "find_preset",
    "run_sweep",
]
