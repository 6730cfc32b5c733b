"""C6: does the straight-through estimator carry most of the gap's reduction?

Soft Gumbel has the noise of the GLGN without its hard forward. Three effects, paired by seed: how
much larger its gap is than that of the GLGN; how much sooner it converges; and, where the GLGN has a
smaller gap than the DLGN at all, whether more than half of that reduction needs the straight-through
forward: gap(soft Gumbel) − ½·(gap(DLGN) + gap(GLGN)). Without a reduction there is nothing to share
out, and that verdict is inconclusive.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import pandas as pd

from lgn_analysis.experiments.claims.convergence import time_ratios
from lgn_analysis.experiments.frames import (
    GAP_COLUMNS,
    MEASURES,
    RUN_COLUMNS,
    gap_measure,
    gather,
    last_step,
)
from lgn_analysis.experiments.settings import NOISE_FREE, NOISY, Preset, Setting
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import (
    Claim,
    Verdict,
    each_setting,
    label,
    paired,
    t_interval,
    table_of,
)

SOFT_GUMBEL: Final = "gumbel-soft"
METHODS: Final = (NOISE_FREE, SOFT_GUMBEL, NOISY)

_PAPER: Final = "soft Gumbel converges faster, with a larger gap (CIFAR-10)"
_NULL: Final = "the gaps are equal"
ACCURACY: Final = Claim(
    id="C6 accuracy",
    title="Without the straight-through forward the gap is larger",
    paper=_PAPER,
    metric="gap in test accuracy at the end, soft Gumbel − GLGN",
    unit="pp",
    smallest=0.5,
    null=_NULL,
)
LOSS: Final = Claim(
    id="C6 loss",
    title="Without the straight-through forward the gap in loss is larger",
    paper=_PAPER,
    metric="|soft − discrete| test loss at the end, soft Gumbel − GLGN",
    unit="nats",
    smallest=0.01,
    null=_NULL,
)
FLIPS: Final = Claim(
    id="C6 flips",
    title="Without the straight-through forward more predictions flip",
    paper=_PAPER,
    metric="share of flipped test predictions at the end, soft Gumbel − GLGN",
    unit="pp",
    smallest=0.5,
    null="equally many predictions flip",
)
CONVERGENCE: Final = Claim(
    id="C6 convergence",
    title="Without the straight-through forward networks converge faster",
    paper=_PAPER,
    metric="iterations to the target discrete validation accuracy, GLGN / soft Gumbel",
    unit="×",
    smallest=math.log(1.25),
    log=True,
    null="both take equally long",
)
SHARE: Final = Claim(
    id="C6 share",
    title="The straight-through estimator carries most of the gap's reduction",
    paper="ablation against soft Gumbel (CIFAR-10)",
    metric="gap in loss: soft Gumbel − the middle between DLGN and GLGN, where DLGN > GLGN",
    unit="nats",
    smallest=0.005,
    null="half of the reduction is the noise's",
)
CLAIMS: Final = (ACCURACY, LOSS, FLIPS, CONVERGENCE, SHARE)
_SOURCE: Final = "st_ablation.effects.csv"


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: DLGN, soft Gumbel, GLGN."""
    return [run for setting in preset.ablation for run in _runs(setting)]


def _runs(setting: Setting) -> list[RunSpec]:
    return [run for method in METHODS for run in setting.runs(method)]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the histories, a row a run, step and split."""
    groups = [(setting, _runs(setting)) for setting in preset.ablation]
    columns = [*RUN_COLUMNS, "split", "seconds", *GAP_COLUMNS]
    return gather(records, groups, "history").reindex(columns=columns)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim; ``dlgn`` and ``glgn`` are the first and second method named."""
    settings = list(frame["setting"].unique())
    parts = []
    for setting, runs in frame.groupby("setting", sort=False):
        last = last_step(runs[runs["split"] == "test"])
        for claim, measure in zip((ACCURACY, LOSS, FLIPS), MEASURES, strict=True):
            values = last.assign(value=gap_measure(last, measure))
            table = paired(values, "value", methods=(SOFT_GUMBEL, NOISY))
            parts.append(
                table.assign(
                    setting=setting,
                    claim=label(claim, str(setting), settings),
                    effect=table["dlgn"] - table["glgn"],
                )
            )
            if claim is LOSS:
                named = label(SHARE, str(setting), settings)
                parts.append(_shares(values).assign(setting=setting, claim=named))
        times = time_ratios(runs, "step", (NOISY, SOFT_GUMBEL))
        named = label(CONVERGENCE, str(setting), settings)
        parts.append(times.assign(setting=setting, claim=named))
    return table_of(parts)


def _shares(values: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed: the contrast of the three gaps, and the reduction that it divides."""
    ends = paired(values, "value").set_index("seed")
    middle = paired(values, "value", methods=(SOFT_GUMBEL, NOISY)).set_index("seed")
    both = ends.join(middle[["dlgn", "counts"]].rename(columns={"dlgn": "soft", "counts": "too"}))
    both = both.dropna()
    return both.assign(
        reduction=both["dlgn"] - both["glgn"],
        effect=both["soft"] - (both["dlgn"] + both["glgn"]) / 2,
        counts=both["counts"].astype(bool) & both["too"].astype(bool),
    ).reset_index()


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts; that on the share needs a reduction that excludes zero."""
    table = effects(frame)
    found = each_setting(CLAIMS, frame, table, source=_SOURCE)
    return [
        _needs_reduction(verdict, table) if verdict.claim.id.startswith(SHARE.id) else verdict
        for verdict in found
    ]


def _needs_reduction(verdict: Verdict, table: pd.DataFrame) -> Verdict:
    if verdict.outcome in ("untested", "inconclusive"):
        return verdict
    rows = table[(table["claim"] == verdict.claim.id) & table["counts"].astype(bool)]
    _, low, _ = t_interval(rows["reduction"].to_list())
    if low > 0:
        return verdict
    reason = "GLGNs have no smaller gap in loss than DLGNs here, so there is no reduction to share"
    return replace(verdict, outcome="inconclusive", reason=reason)
