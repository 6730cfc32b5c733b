"""C12, not in the paper: which part closes the gap, the hard forward or the noise?

Soft, soft Gumbel, hard ST and Gumbel ST are the four corners of a square with sides noise and hard
forward. The effect of a side is the mean of its two differences, paired by seed, in flipped
predictions: a magnitude, so that a soft network worse than its discrete one counts as a gap too.
``which`` is the effect of the hard forward less that of the noise: CAGE argues that it is positive.
The gap of the training forward would not do here: without noise the hard forward is the discrete one.
CAGE itself, and a soft network whose tau falls to a tenth of where it began, are drawn beside the
square, and so are all methods over tau.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import each_setting, effects_by_setting
from lgn_analysis.experiments.frames import gap_measure, last_step, on_test_split, sample_variance
from lgn_analysis.experiments.settings import Preset, Setting, Sweep
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

SQUARE: Final = ("soft", "gumbel-soft", "hard-st", "gumbel-st")
ANNEALED: Final = "soft-annealed"
METHODS: Final = (*SQUARE, "cage", ANNEALED)
ANNEAL_BY: Final = 10.0
"""An annealed tau falls from where it begins by this factor."""

_claim = partial(
    Claim,
    paper="not in the paper; CAGE (arXiv 2603.14157) says: the hard forward",
    unit="pp",
    smallest=0.5,
    premise="all four methods are trained, and discretising one of them flips predictions",
    primary=False,
)
HARD: Final = _claim(
    id="C12 hard",
    title="The hard forward closes the gap",
    metric="flipped test predictions at the end, soft forward − hard forward, with and without noise",
    null="the forward makes no difference",
)
NOISE: Final = _claim(
    id="C12 noise",
    title="The noise closes the gap",
    metric="flipped test predictions at the end, without noise − with noise, soft and hard",
    null="the noise makes no difference",
)
WHICH: Final = _claim(
    id="C12 which",
    title="The hard forward closes more of the gap than the noise",
    metric="flipped test predictions at the end, effect of the hard forward − effect of the noise",
    null="both parts close equally much",
    primary=True,
)
CLAIMS: Final = (HARD, NOISE, WHICH)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of all methods at each tau."""
    return [run for sweep in preset.parts for runs in _by_method(sweep).values() for run in runs]


def _by_method(sweep: Sweep) -> dict[str, list[RunSpec]]:
    return {
        method: [run for tau in sweep.values for run in _runs(sweep.setting, method, tau)]
        for method in METHODS
    }


def _runs(setting: Setting, method: str, tau: float) -> list[RunSpec]:
    if method == ANNEALED:
        return setting.runs("soft", tau=tau, anneal_to=tau / ANNEAL_BY)
    return setting.runs(method, tau=tau)


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the test split at the end, a row a run; ``relaxation`` names the method.

    ``reference_tau`` is the temperature at which the claims are decided.
    """
    parts = []
    for sweep in preset.parts:
        for method, runs in _by_method(sweep).items():
            history = on_test_split(records, [(sweep.setting, runs)])
            if len(history):
                parts.append(last_step(history).assign(relaxation=method))
    if not parts:
        return on_test_split(records, []).assign(reference_tau=1.0)
    table = pd.concat(parts, ignore_index=True)
    reference = {sweep.setting.name: sweep.setting.network.tau for sweep in preset.parts}
    return table.assign(reference_tau=table["setting"].map(reference))


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim, at the reference tau."""
    return effects_by_setting(frame[frame["tau"] == frame["reference_tau"]], _sides)


def _sides(runs: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    corners = runs[runs["relaxation"].isin(SQUARE)]
    values = corners.assign(value=gap_measure(corners, "flips"))
    flips = values.pivot(index="seed", columns="relaxation", values="value")
    flips = flips.reindex(columns=list(SQUARE)).dropna()
    accuracy = corners.groupby("seed")["discrete_accuracy"].min().reindex(flips.index)
    noise_free, noisy = flips[["soft", "hard-st"]], flips[["gumbel-soft", "gumbel-st"]]
    soft, hard = flips[["soft", "gumbel-soft"]], flips[["hard-st", "gumbel-st"]]
    of_hard = soft.mean(axis=1) - hard.mean(axis=1)
    of_noise = noise_free.mean(axis=1) - noisy.mean(axis=1)
    counts = (accuracy >= corners["floor"].max()) & (flips.max(axis=1) >= WHICH.smallest)
    variance = corners.assign(value=sample_variance(corners, "flips")).groupby("seed")["value"]
    table = flips.assign(accuracy=accuracy, counts=counts, test_variance=variance.sum() / 4)
    for claim, effect in ((HARD, of_hard), (NOISE, of_noise), (WHICH, of_hard - of_noise)):
        # The last is the difference of two corners, the others a mean of two differences.
        factor = 2 if claim is WHICH else 1
        widened = table["test_variance"] * factor
        yield claim, table.assign(effect=effect, test_variance=widened).reset_index()


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts on the two sides of the square and on which is longer."""
    square = frame[(frame["tau"] == frame["reference_tau"]) & frame["relaxation"].isin(SQUARE)]
    return each_setting(CLAIMS, square, effects(frame), source="parts.effects.csv")
