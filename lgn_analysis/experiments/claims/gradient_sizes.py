"""M1: does the closed form predict the gradient of every layer?

The root mean square of ∂L/∂z of a batch, before the first step, layer by layer: as measured over batches
and draws of the noise, and as :func:`lgn_analysis.mean_field` has it from the shape of the network alone.
A seed's effect is how far the worst of its layers stays within the tolerance, as a factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from lgn_analysis.experiments.effects import each_setting, effects_by_setting, factor_claim
from lgn_analysis.experiments.frames import Group, gather, runs_of
from lgn_analysis.experiments.settings import NOISE_FREE, NOISY, Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

TOLERANCE: Final = 1.15
FIGURE_OPTIONS: Final = {"tolerance": TOLERANCE}

ARMS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "soft": (NOISE_FREE, {}),
    "residual": (NOISE_FREE, {"init": "residual"}),
    "Gumbel-ST": (NOISY, {}),
}
"""By name, the relaxation and what else of the network differs from the setting's."""


def _claim(arm: str) -> Claim:
    claim = factor_claim(
        f"M1 {arm}",
        f"The closed form predicts the gradient of every layer: {arm}",
        paper="not in the paper",
        metric="largest factor between measured and predicted rms of a layer",
        null=f"some layer is a factor of {TOLERANCE} off",
        primary=arm == "soft",
    )
    return replace(claim, smallest=0.0, most=math.log(TOLERANCE))


CLAIMS: Final = tuple(_claim(arm) for arm in ARMS)


def specs(preset: Preset) -> list[RunSpec]:
    """Return a run of each arm, setting and seed, which is measured before its first step."""
    return runs_of(group for _, group in _groups(preset))


def _groups(preset: Preset) -> list[tuple[str, Group]]:
    return [
        (arm, (setting, setting.runs(relaxation, **network)))
        for setting in preset.signals
        for arm, (relaxation, network) in ARMS.items()
    ]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the signals of each layer before the first step, a row a run and layer."""
    parts = [
        rows.assign(arm=arm)
        for arm, group in _groups(preset)
        if len(rows := gather(records, [group], "signal"))
    ]
    return pd.concat(parts, ignore_index=True) if parts else gather(records, [], "signal")


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and arm: the worst layer, its ratio, and how far that is inside."""
    return effects_by_setting(frame, _worst)


def _worst(rows: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    for claim, arm in zip(CLAIMS, ARMS, strict=True):
        part = rows[rows["arm"] == arm]
        ratios = part["gradient_rms"] / part["predicted_rms"]
        worst = part.assign(ratio=ratios, size=np.abs(np.log(ratios))).sort_values("size")
        table = worst.groupby("seed").tail(1)[["seed", "layer", "ratio", "size"]]
        yield (
            claim,
            table.assign(effect=math.log(TOLERANCE) - table["size"], counts=True).drop(
                columns="size"
            ),
        )


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return a verdict an arm."""
    return each_setting(CLAIMS, frame, effects(frame), source="gradient_sizes.effects.csv")
