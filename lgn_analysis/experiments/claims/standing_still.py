"""M4: are the layers that stand still the ones whose gates stay unused?

Of each layer of a DLGN at Adam's default ε the closed form (:func:`lgn_analysis.mean_field`) says before any
training how many steps a logit needs to move by one, ``(1 + ε/g) / lr``, g the rms of its gradient. A layer that
would need more than the run has is predicted to stand still. Beside it is the share of its gates that are unused
at the end. The runs are those of M2, which was known layers apart when this was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pandas as pd

from lgn_analysis.data.registry import random_dataset
from lgn_analysis.experiments.claims.adam_epsilon import ARMS, DEFAULT
from lgn_analysis.experiments.effects import each_setting, effects_by_setting
from lgn_analysis.experiments.frames import Group, gather, runs_of
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict
from lgn_analysis.theory import mean_field

LAYERS: Final = Claim(
    id="M4",
    title="The layers that stand still are the unused ones",
    paper="not in the paper: 49.81 % of a DLGN's gates unused (CIFAR-10, 12 × 256k)",
    metric="share of unused gates at the end, layers predicted to stand still − the others, mean over "
    "depths that have both, DLGN with ε 1e-8",
    unit="pp",
    smallest=25.0,
    null="both kinds of layers leave equal shares unused",
    premise="some depth has both kinds of layers",
)
CLAIMS: Final = (LAYERS,)
_DLGN: Final = ARMS[0]


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: DLGNs at the default ε, over depth."""
    return runs_of(_groups(preset))


def _groups(preset: Preset) -> list[Group]:
    return [(sweep.setting, _DLGN.runs(sweep)) for sweep in preset.optimisers]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the usage of each layer at the end, with what was predicted of it: a row a run and layer."""
    parts = []
    for setting, runs in _groups(preset):
        usage = gather(records, [(setting, runs)], "usage")
        for depth, rows in usage.groupby("depth"):
            run = next(run for run in runs if run.network.depth == depth)
            parts.append(rows.merge(_predicted(run), on="layer"))
    if not parts:
        return gather(records, [], "usage")
    columns = ["layer", "n_gates", "unused", "gradient_rms", "fewest_steps", "stands_still"]
    table = pd.concat(parts, ignore_index=True)
    first = [name for name in gather(records, [], "usage") if name in table]
    return table[[*first, *columns]]


def _predicted(run: RunSpec) -> pd.DataFrame:
    shape = random_dataset(run.data.name, run.data.thresholds, n=10)
    model = replace(run.network, seed=0).build(shape)
    layers = mean_field(model, batch_size=run.training.batch_size).layers
    fewest = (1 + DEFAULT / layers["gradient_rms"]) / run.training.lr
    return layers[["layer", "gradient_rms"]].assign(
        fewest_steps=fewest, stands_still=fewest > run.training.steps
    )


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed: the mean difference in unused shares, in percentage points."""
    return effects_by_setting(frame, _differences)


def _differences(rows: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    still = rows["stands_still"].astype(bool)
    keys = ["depth", "seed"]
    shares = {
        name: 100 * part.groupby(keys)["unused"].mean()
        for name, part in (("still", rows[still]), ("moving", rows[~still]))
    }
    table = pd.DataFrame(shares, columns=["still", "moving"])
    difference = (table["still"] - table["moving"]).groupby("seed").mean()
    effects = difference.rename("effect").reset_index()
    yield LAYERS, effects.assign(counts=effects["effect"].notna())


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict."""
    return each_setting(CLAIMS, frame, effects(frame), source="standing_still.effects.csv")
