"""C6: does the straight-through estimator carry most of the gap's reduction?

Soft Gumbel has the noise of the GLGN without its hard forward. Three effects, paired by seed: how
much larger its gap is than that of the GLGN; how much sooner it converges; and, where the GLGN has a
smaller gap than the DLGN at all, whether more than half of that reduction needs the straight-through
forward: gap(soft Gumbel) − ½·(gap(DLGN) + gap(GLGN)). Without a reduction there is nothing to share
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from lgn_analysis.experiments.claims.convergence import time_ratios
from lgn_analysis.experiments.effects import (
    difference,
    each_setting,
    effects_by_setting,
    factor_claim,
    gap_claims,
    gap_differences,
    paired,
)
from lgn_analysis.experiments.frames import (
    GAP_COLUMNS,
    each_method,
    gap_measure,
    histories,
    last_step,
    runs_of,
)
from lgn_analysis.experiments.settings import NOISE_FREE, NOISY, Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

SOFT_GUMBEL: Final = "gumbel-soft"
METHODS: Final = (NOISE_FREE, SOFT_GUMBEL, NOISY)

_PAPER: Final = "soft Gumbel converges faster, with a larger gap (CIFAR-10)"
GAPS: Final = gap_claims(
    "C6",
    titles=(
        "Without the straight-through forward the gap is larger",
        "Without the straight-through forward the gap of the soft network is larger",
        "Without the straight-through forward the gap in loss is larger",
        "Without the straight-through forward more predictions flip",
    ),
    metric="{gap} at the end, soft Gumbel − GLGN",
    paper=_PAPER,
)
CONVERGENCE: Final = factor_claim(
    "C6 convergence",
    "Without the straight-through forward networks converge faster",
    paper=_PAPER,
    metric="iterations to the target discrete validation accuracy, GLGN / soft Gumbel",
    null="both take equally long",
    premise="one of the methods reaches the target",
    primary=False,
)
SHARE: Final = Claim(
    id="C6 share",
    title="The straight-through estimator carries most of the gap's reduction",
    paper="ablation against soft Gumbel (CIFAR-10)",
    metric="gap in loss: soft Gumbel − the middle between DLGN and GLGN, where DLGN > GLGN",
    unit="nats",
    smallest=0.005,
    null="half of the reduction is the noise's",
    premise="all three are trained, and the GLGN has a smaller gap in loss than the DLGN",
    primary=False,
)
CLAIMS: Final = (*GAPS, CONVERGENCE, SHARE)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: DLGN, soft Gumbel, GLGN."""
    return runs_of(each_method(preset.ablation, METHODS))


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the histories, a row a run, step and split."""
    columns = ["split", "seconds", *GAP_COLUMNS]
    return histories(records, each_method(preset.ablation, METHODS), columns)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim; ``dlgn`` and ``glgn`` are the first and second method named."""
    return effects_by_setting(frame, _comparisons)


def _comparisons(runs: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    last = last_step(runs[runs["split"] == "test"])
    yield from gap_differences(GAPS, last, methods=(SOFT_GUMBEL, NOISY))
    yield SHARE, _shares(last.assign(value=gap_measure(last, "loss")))
    yield CONVERGENCE, time_ratios(runs, "step", (NOISY, SOFT_GUMBEL))


def _shares(values: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed: the contrast of the three gaps, and the reduction that it divides."""
    ends = difference(values, "value").rename(columns={"effect": "reduction"}).set_index("seed")
    middle = paired(values, "value", methods=(SOFT_GUMBEL, NOISY)).set_index("seed")
    both = ends.join(middle[["dlgn", "counts"]].rename(columns={"dlgn": "soft", "counts": "too"}))
    both = both.dropna()
    return both.assign(
        effect=both["soft"] - (both["dlgn"] + both["glgn"]) / 2,
        counts=both["counts"] & both["too"] & (both["reduction"] >= SHARE.smallest),
    ).reset_index()


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts."""
    return each_setting(CLAIMS, frame, effects(frame), source="st_ablation.effects.csv")
