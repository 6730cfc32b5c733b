"""C2: is the discretization gap of GLGNs smaller?

The gap is soft − discrete accuracy at the end of training, on the test split, paired by seed;
beside it the gap in loss and the flipped predictions, which a few hundred test samples resolve
better. Only runs above the stated discrete accuracy count: an untrained network has no gap either.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.presets import NOISE_FREE, NOISY, Preset
from lgn_analysis.experiments.sweep import Records, RunSpec
from lgn_analysis.experiments.verdicts import Claim, Verdict, decide, describe, paired

FLOOR: Final = 0.90

ACCURACY: Final = Claim(
    id="C2 accuracy",
    title="GLGNs have a smaller discretization gap",
    paper="gap reduced by 98 % (CIFAR-10, 12 × 256k)",
    metric="gap in test accuracy at the end, DLGN − GLGN",
    unit="pp",
    smallest=0.5,
    floor=FLOOR,
)
LOSS: Final = Claim(
    id="C2 loss",
    title="GLGNs have a smaller gap in loss",
    paper="not reported",
    metric="|soft − discrete| test loss at the end, DLGN − GLGN",
    unit="nats",
    smallest=0.01,
    floor=FLOOR,
)
FLIPS: Final = Claim(
    id="C2 flips",
    title="Discretising GLGNs changes fewer predictions",
    paper="not reported",
    metric="share of test predictions that flip at the end, DLGN − GLGN",
    unit="pp",
    smallest=0.5,
    floor=FLOOR,
)
CLAIMS: Final = (ACCURACY, LOSS, FLIPS)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: the pair, and the deep DLGN for the figure."""
    return preset.pair(NOISE_FREE) + preset.pair(NOISY) + preset.deep_runs()


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the gaps over training on the test split; ``deep`` marks the deep DLGN."""
    history = records.of(specs(preset), "history")
    history = history[history["split"] == "test"].reset_index(drop=True)
    columns = ["run", "dataset", "relaxation", "tau", "width", "depth", "group_tau", "init"]
    columns += ["steps", "seed", "step", "n", "soft_accuracy", "discrete_accuracy"]
    columns += ["gap", "gap_loss", "gap_train", "flips"]
    deep = {spec.key for spec in preset.deep_runs()}
    return history[columns].assign(deep=history["run"].isin(deep))


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim, from the last step of the pair."""
    pair = frame[~frame["deep"]]
    last = pair[pair["step"] == pair["steps"]]
    values = {
        ACCURACY: 100 * last["gap"],
        # Discretising may also lower the loss, since soft networks are less confident.
        LOSS: last["gap_loss"].abs(),
        FLIPS: 100 * last["flips"] / last["n"],
    }
    tables = []
    for claim, value in values.items():
        table = paired(last.assign(value=value), "value", floor=FLOOR)
        tables.append(table.assign(claim=claim.id, effect=table["dlgn"] - table["glgn"]))
    return pd.concat(tables, ignore_index=True)


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts on accuracy, loss and flipped predictions."""
    table = effects(frame)
    return [
        decide(
            claim,
            table[table["claim"] == claim.id],
            scale=describe(frame[~frame["deep"]]),
            source="gap.effects.csv",
        )
        for claim in CLAIMS
    ]
