"""M6: does noise commit gates that have learnt nothing, and what is "no unused gates" worth then?

A gate counts as unused while the entropy of its softmax has not left what it was before training. Adam divides
a gradient by its own size, so one that is noise moves a logit by some lr a step to either side: a random walk,
after t steps lr √t from where it began, which lowers the entropy of every gate in time. Here deep GLGNs are
trained for long on true labels, on permuted ones, and on labels independent of the inputs, where every training
sample is met once with every class in turn and nothing whatever can be learnt; all remain at chance. Beside the
share of unused gates stand two measures of function: gates whose discrete output is constant on the training
data, and gates from which no path leads to an output. DLGNs, which have no noise but that of their batches, take
a tenth of the steps, with Adam's default ε, below which most of their gradients lie, and with one of 1e-16.

``walk`` is the share that logits would leave unused which walk from N(0, 1) in independent steps of lr, the
fastest that noise of constant size can take them.

Written before the runs, after pilot runs of one other seed: the unused share falls from 97 % to below 40 % under any
labels, with true ones some ten points ahead; constant gates stay above 40 %, and gates without a path to an
output become more, not fewer; batches alone commit DLGNs with small ε, and hardly those with the default.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import pandas as pd
import torch

from lgn_analysis.data.labels import INDEPENDENT, LABELS, PERMUTED, TRUE
from lgn_analysis.experiments.claims.adam_epsilon import DEFAULT, SMALL
from lgn_analysis.experiments.effects import each_setting, effects_by_setting
from lgn_analysis.experiments.frames import (
    RUN_COLUMNS,
    Group,
    gather,
    last_step,
    on_test_split,
    runs_of,
)
from lgn_analysis.experiments.settings import NOISE_FREE, NOISY, Preset, Setting
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict
from lgn_analysis.metrics import UNUSED_ENTROPY, gate_entropy

_NEARLY: Final = 10.0
"""Percentage points of unused gates within which labels are called no matter."""
_SHORTER: Final = 10
"""A DLGN takes this part of a GLGN's steps."""

_PAPER: Final = "49.81 % of a DLGN's gates unused, 0.00 % of a GLGN's (CIFAR-10, 12 × 256k)"
_AT_CHANCE: Final = "discrete test accuracy at the end below the floor"
COMMITS: Final = Claim(
    id="M6",
    title="Noise commits gates without learning",
    paper=_PAPER,
    metric="share of unused gates before training − at the end, GLGN on labels independent of the inputs",
    unit="pp",
    smallest=50.0,
    null="as many gates are unused as before training",
    premise=_AT_CHANCE,
)
LABELS_MATTER_LITTLE: Final = Claim(
    id="M6 labels",
    title="True labels commit about as many gates as permuted ones, at chance",
    paper=_PAPER,
    metric="10 pp − |share of unused gates at the end, GLGN on permuted labels − on true ones|, both at chance",
    unit="pp",
    null="the shares differ by ten points",
    premise=_AT_CHANCE,
    primary=False,
    most=_NEARLY,
)
FUNCTION: Final = Claim(
    id="M6 function",
    title="Gates that noise commits do no more than before",
    paper=_PAPER,
    metric="fall in the share of unused gates − fall in that of constant or of unreachable gates, the larger "
    "of both, GLGN on labels independent of the inputs",
    unit="pp",
    smallest=50.0,
    null="gates that do nothing become fewer as unused ones do",
    premise=_AT_CHANCE,
    primary=False,
)
BATCHES: Final = Claim(
    id="M6 batches",
    title="The noise of batches commits gates of DLGNs, too, once Adam's ε lets it",
    paper=_PAPER,
    metric="share of unused gates at the end, DLGN with ε 1e-8 − 1e-16, on labels independent of the inputs",
    unit="pp",
    smallest=25.0,
    null="equal shares are unused",
    premise=_AT_CHANCE,
    primary=False,
)
CLAIMS: Final = (COMMITS, LABELS_MATTER_LITTLE, FUNCTION, BATCHES)
USAGE: Final = ("unused", "constant", "unreachable")


@dataclass(frozen=True)
class Arm:
    """A method with Adam's ε, and the labels that it is trained on."""

    name: str
    relaxation: str
    eps: float
    labels: tuple[str, ...]

    def groups(self, setting: Setting) -> list[tuple[str, Group]]:
        """Return its runs on each kind of labels."""
        taken = setting if self.relaxation == NOISY else _shortened(setting)
        return [
            (
                labels,
                (taken, taken.runs(self.relaxation, training={"eps": self.eps}, labels=labels)),
            )
            for labels in self.labels
        ]


ARMS: Final = (
    Arm("GLGN, ε 1e-8", NOISY, DEFAULT, LABELS),
    Arm("DLGN, ε 1e-8", NOISE_FREE, DEFAULT, (INDEPENDENT,)),
    Arm("DLGN, ε 1e-16", NOISE_FREE, SMALL, (TRUE, INDEPENDENT)),
)


def _shortened(setting: Setting) -> Setting:
    steps = max(1, setting.steps // _SHORTER)
    measured = (*(step for step in setting.probes.usage_steps if step < steps), steps)
    return replace(setting, steps=steps, probes=replace(setting.probes, usage_steps=measured))


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of every arm."""
    return runs_of(
        group for setting in preset.labels for arm in ARMS for _, group in arm.groups(setting)
    )


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return gate usage over training: a row a run, step and layer, with the step's test accuracy."""
    columns = ["step", "layer", "n_gates", "entropy", *USAGE]
    parts = []
    for setting in preset.labels:
        for arm in ARMS:
            for labels, group in arm.groups(setting):
                usage = gather(records, [group], "usage_by_step")
                if usage.empty:
                    continue
                tested = on_test_split(records, [group])[["run", "step", "discrete_accuracy"]]
                rows = usage[[*RUN_COLUMNS, *columns]].merge(tested, on=["run", "step"])
                walk = {step: walk_unused(step, _lr(group)) for step in rows["step"].unique()}
                walked = rows["step"].map(walk)
                parts.append(rows.assign(arm=arm.name, labels=labels, walk=walked))
    return pd.concat(parts, ignore_index=True) if parts else gather(records, [], "usage_by_step")


def _lr(group: Group) -> float:
    return group[1][0].training.lr


def walk_unused(steps: int, lr: float, *, draws: int = 50_000) -> float:
    """Return P(H(softmax(z)) > unused), z ~ N(0, 1 + lr² steps)^16: logits after a free random walk.

    By as many draws of a fixed seed; the standard error is at most 0.0023.
    """
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(draws, 16, generator=generator, dtype=torch.float64)
    entropy = gate_entropy(math.sqrt(1 + lr**2 * steps) * z)
    return float((entropy > UNUSED_ENTROPY).double().mean())


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim, in percentage points; a seed counts where its runs are at chance."""
    return effects_by_setting(frame, _effects)


def _effects(rows: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    before, after = _shares(rows[rows["step"] == 0]), _shares(last_step(rows))
    glgn, default, small = (arm.name for arm in ARMS)

    def of(table: pd.DataFrame, arm: str, labels: str) -> pd.DataFrame:
        chosen = table[(table["arm"] == arm) & (table["labels"] == labels)]
        return chosen.set_index("seed")[[*USAGE, "unlearnt"]]

    end = of(after, glgn, INDEPENDENT)
    fall = of(before, glgn, INDEPENDENT)[[*USAGE]] - end[[*USAGE]]
    yield COMMITS, _table(fall["unused"], end["unlearnt"])
    true, permuted = of(after, glgn, TRUE), of(after, glgn, PERMUTED)
    apart = (permuted["unused"] - true["unused"]).abs()
    yield LABELS_MATTER_LITTLE, _table(_NEARLY - apart, true["unlearnt"] & permuted["unlearnt"])
    function = fall[["constant", "unreachable"]].max(axis=1)
    yield FUNCTION, _table(fall["unused"] - function, end["unlearnt"])
    still, moving = of(after, default, INDEPENDENT), of(after, small, INDEPENDENT)
    batches = still["unused"] - moving["unused"]
    yield BATCHES, _table(batches, still["unlearnt"] & moving["unlearnt"])


def _table(effect: pd.Series, counts: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"effect": effect, "counts": counts}).dropna().reset_index()


def _shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Return shares over all layers in per cent, a row a run, and whether it is below the floor."""
    keys = ["arm", "labels", "seed"]
    gates = rows["n_gates"]
    counted = rows.assign(**{name: 100 * rows[name] * gates for name in USAGE})
    runs = counted.groupby(keys, as_index=False).agg(
        **{name: (name, "sum") for name in (*USAGE, "n_gates")},
        accuracy=("discrete_accuracy", "first"),
        floor=("floor", "first"),
    )
    shares = {name: runs[name] / runs["n_gates"] for name in USAGE}
    return runs.assign(**shares, unlearnt=runs["accuracy"] < runs["floor"])


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts."""
    return each_setting(CLAIMS, frame, effects(frame), source="noise_commits.effects.csv")
