"""M2 and M3: is it Adam's ε that keeps deep noise-free networks from training, and is noise faster without it?

A layer of soft gates, drawn from normal logits, passes on about a fifth of its gradient. Beyond some
eight layers most of it lies below torch's ε of 1e-8, by which Adam divides in place of the gradient's
own size: those layers stand still. Here DLGN and GLGN are trained at several depths with that ε and
with one of 1e-16, and at the deepest networks beside what is known to help against vanishing
gradients: residual initialisation, ``grad_factor``, and the other relaxations.

Deep is ten layers and more, shallow four and fewer; effects are means over the depths of a seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from lgn_analysis.experiments.claims.convergence import time_ratios
from lgn_analysis.experiments.effects import each_setting, effects_by_setting, factor_claim
from lgn_analysis.experiments.frames import (
    GAP_COLUMNS,
    gather,
    histories,
    last_step,
    runs_of,
    sample_variance,
)
from lgn_analysis.experiments.settings import NOISE_FREE, NOISY, PAIR, Preset, Sweep
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

DEFAULT: Final = 1e-8
"""torch's ε, and the paper's."""
SMALL: Final = 1e-16
DEEP: Final = 10
SHALLOW: Final = 4
GAP_FROM: Final = 8
_NEARLY: Final = 1.0
"""Percentage points of accuracy within which shallow networks are called equal."""

_PAPER: Final = "not in the paper: Adam at torch's ε throughout, 12 × 256k (CIFAR-10)"
TRAINS: Final = Claim(
    id="M2 accuracy",
    title="Adam's ε keeps deep DLGNs from training",
    paper=_PAPER,
    metric="discrete test accuracy at the end at 10 layers and more, DLGN with ε 1e-16 − 1e-8",
    unit="pp",
    smallest=5.0,
    null="both train equally well",
    premise="with the small ε they train",
)
GATES: Final = Claim(
    id="M2 gates",
    title="Adam's ε leaves gates of deep DLGNs unused",
    paper="49.81 % of a DLGN's gates unused (CIFAR-10, 12 × 256k)",
    metric="share of unused gates at the end at 10 layers and more, DLGN with ε 1e-8 − 1e-16",
    unit="pp",
    smallest=10.0,
    null="equal shares are unused",
    premise="with the small ε they train",
    primary=False,
)
GAP: Final = Claim(
    id="M2 gap",
    title="Adam's ε makes the gap of deep DLGNs",
    paper="a DLGN's gap (CIFAR-10, 12 × 256k)",
    metric="gap in test accuracy at the end, DLGN with ε 1e-8 − 1e-16, over the depths from 8 on at which "
    "both are trained",
    unit="pp",
    smallest=0.5,
    null="the gaps are equal",
    premise="at some depth from 8 on both are trained",
    primary=False,
)
NO_MATTER: Final = Claim(
    id="M2 shallow",
    title="Adam's ε is no matter to shallow DLGNs",
    paper=_PAPER,
    metric="|discrete test accuracy at the end at 4 layers and fewer, DLGN with ε 1e-16 − 1e-8|",
    unit="pp",
    most=_NEARLY,
    null="accuracies differ by a point",
    premise="with the small ε they train",
    primary=False,
)
FASTER: Final = factor_claim(
    "M3",
    "With ε out of the way, noise is faster at some depth",
    paper="4.75× fewer iterations (CIFAR-10, 12 × 256k, at torch's ε)",
    metric="iterations to the target discrete validation accuracy with ε 1e-16, DLGN / GLGN",
    null="both methods take equally long",
    premise="one of the methods reaches the target",
)
CLAIMS: Final = (TRAINS, GATES, GAP, NO_MATTER, FASTER)
_SOURCE: Final = "adam_epsilon.effects.csv"


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: its name in the frame.
        relaxation: of the network.
        eps: Adam's.
        network: what else of the network differs.
        deep: whether only the deepest networks are trained so.
    """

    name: str
    relaxation: str
    eps: float = DEFAULT
    network: Mapping[str, Any] = field(default_factory=dict)
    deep: bool = True

    def runs(self, sweep: Sweep) -> list[RunSpec]:
        """Return its runs, a run a depth and seed."""
        depths = sweep.whole[-1:] if self.deep else sweep.whole
        return [
            run
            for depth in depths
            for run in sweep.setting.runs(
                self.relaxation, training={"eps": self.eps}, depth=depth, **self.network
            )
        ]


ARMS: Final = (
    Arm("DLGN, ε 1e-8", NOISE_FREE, deep=False),
    Arm("DLGN, ε 1e-16", NOISE_FREE, SMALL, deep=False),
    Arm("GLGN, ε 1e-8", NOISY, deep=False),
    Arm("GLGN, ε 1e-16", NOISY, SMALL, deep=False),
    Arm("DLGN, residual", NOISE_FREE, network={"init": "residual"}),
    Arm("DLGN, grad_factor 2", NOISE_FREE, network={"grad_factor": 2.0}),
    Arm("soft Gumbel, ε 1e-8", "gumbel-soft"),
    Arm("hard ST, ε 1e-8", "hard-st"),
)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of every arm."""
    return runs_of((sweep.setting, arm.runs(sweep)) for sweep in preset.optimisers for arm in ARMS)


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the histories of validation and test split, a row a run, step and split.

    At the last step they have ``unused``, the share of unused gates.
    """
    parts = []
    for sweep in preset.optimisers:
        for arm in ARMS:
            group = [(sweep.setting, arm.runs(sweep))]
            rows = histories(records, group, ["split", "seconds", *GAP_COLUMNS])
            if rows.empty:
                continue
            shares = _shares(gather(records, group, "usage"))
            rows = rows[rows["split"] != "train"].merge(shares, on=["run", "step"], how="left")
            parts.append(rows.assign(arm=arm.name, eps=arm.eps))
    return pd.concat(parts, ignore_index=True) if parts else histories(records, [], ["arm", "eps"])


def _shares(usage: pd.DataFrame) -> pd.DataFrame:
    """Return the share of unused gates over all layers, a row a run at its end."""
    counted = usage.assign(unused=usage["unused"] * usage["n_gates"])
    runs = counted.groupby(["run", "steps"], as_index=False)[["unused", "n_gates"]].sum()
    runs["unused"] = runs["unused"] / runs["n_gates"]
    return runs.rename(columns={"steps": "step"})[["run", "step", "unused"]]


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim, of M3 a row a seed and depth."""
    return effects_by_setting(frame, _effects)


def _effects(runs: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    ends = _ends(runs)
    deep, shallow = ends[ends["depth"] >= DEEP], ends[ends["depth"] <= SHALLOW]
    yield TRAINS, _by_seed(_differing(deep, "accuracy"))
    yield GATES, _by_seed(deep.assign(effect=100 * (deep["unused_default"] - deep["unused"])))
    yield GAP, _gaps(ends[ends["depth"] >= GAP_FROM])
    near = _by_seed(_differing(shallow, "accuracy"))
    yield NO_MATTER, near.assign(effect=_NEARLY - near["effect"].abs())
    small = runs[(runs["eps"] == SMALL) & (runs["split"] == "val")]
    for depth, of_depth in small.groupby("depth"):
        yield FASTER, time_ratios(of_depth, "step", PAIR).assign(depth=depth)


def _ends(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row a depth and seed of the DLGN: what it is with small ε, and with the default."""
    last = last_step(runs[(runs["split"] == "test") & runs["arm"].str.startswith("DLGN, ε")])
    last = last.assign(
        accuracy=last["discrete_accuracy"],
        accuracy_variance=sample_variance(last, "accuracy"),
        gap_variance=sample_variance(last, "gap"),
        gap=last["gap_train"],
    )
    keys = ["depth", "seed"]
    columns = ["accuracy", "unused", "gap", "accuracy_variance", "gap_variance"]
    of_eps = {eps: rows.set_index(keys)[["floor", *columns]] for eps, rows in last.groupby("eps")}
    if set(of_eps) != {DEFAULT, SMALL}:
        return pd.DataFrame(columns=[*keys, "floor", *columns, *(f"{c}_default" for c in columns)])
    default = of_eps[DEFAULT][columns].add_suffix("_default")
    return of_eps[SMALL].join(default, how="inner").reset_index()


def _differing(ends: pd.DataFrame, column: str) -> pd.DataFrame:
    """Add the difference of a share between small ε and default, and what the test samples add to it."""
    variance = ends[f"{column}_variance"] + ends[f"{column}_variance_default"]
    difference = ends[column] - ends[f"{column}_default"]
    return ends.assign(effect=100 * difference, test_variance=variance)


def _by_seed(ends: pd.DataFrame) -> pd.DataFrame:
    """Return the mean effect of each seed, which counts where its small-ε networks are trained."""
    ends = ends if "test_variance" in ends else ends.assign(test_variance=math.nan)
    rows = ends.assign(counts=ends["accuracy"] >= ends["floor"]).groupby("seed", as_index=False)
    return rows.agg(
        effect=("effect", "mean"), counts=("counts", "all"), test_variance=("test_variance", "mean")
    )


def _gaps(ends: pd.DataFrame) -> pd.DataFrame:
    """Return a seed's mean difference in gaps over the depths where most seeds are trained by both."""
    trained = ends[["accuracy", "accuracy_default"]].min(axis=1) >= ends["floor"]
    shared = trained.astype(float).groupby(ends["depth"]).transform("mean") > 0.5
    table = _by_seed(_differing(ends[shared], "gap"))
    missing = pd.DataFrame({"seed": ends["seed"].unique()})
    table = missing.merge(table, on="seed", how="left")
    return table.assign(effect=-table["effect"], counts=table["effect"].notna())


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts; that on M3 over the depths, of which one is enough."""
    table = effects(frame)
    found = each_setting(CLAIMS[:-1], frame, table, source=_SOURCE)
    return found + each_setting(CLAIMS[-1:], frame, table, source=_SOURCE, by=("depth",))
