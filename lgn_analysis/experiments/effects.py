"""From frames to effects, and from effects to verdicts: what the modules of claims have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import pandas as pd

from lgn_analysis.experiments.frames import MEASURES, gap_measure
from lgn_analysis.experiments.settings import PAIR
from lgn_analysis.experiments.verdicts import (
    UNTESTED,
    Claim,
    Verdict,
    decide,
    decide_some,
    untested,
)

Effects = Iterable[tuple[Claim | None, pd.DataFrame]]
"""Tables with a row a seed, and the claim that each decides; None where it decides none."""


def gap_claims(
    number: str,
    *,
    titles: tuple[str, str, str],
    metric: str,
    paper: str,
    per: str = "",
    smallest: tuple[float, float, float] = (0.5, 0.01, 0.5),
    null: str | None = None,
) -> tuple[Claim, Claim, Claim]:
    """Return the claims on a gap in accuracy, in loss and in flipped predictions.

    Args:
        number: of the claim, ``C2``; the measure is added to it.
        titles: one for each measure.
        metric: with ``{gap}`` in the place of the measure, or ``{the_gap}`` with its article.
        paper: the paper's figure and where it was measured.
        per: what the units, pp, nats and pp, are divided by: ``/layer``.
        smallest: the smallest effect that counts, for each measure.
        null: what an effect of zero says; None says that the gaps are equal.
    """
    gaps = (
        "gap in test accuracy",
        "|soft − discrete| test loss",
        "share of flipped test predictions",
    )
    nulls = ("the gaps are equal", "the gaps are equal", "equally many predictions flip")
    accuracy, loss, flips = (
        Claim(
            id=f"{number} {MEASURES[index]}",
            title=titles[index],
            paper=paper,
            metric=metric.format(gap=gap, the_gap=gap if gap.startswith("|") else f"the {gap}"),
            unit=("pp", "nats", "pp")[index] + per,
            smallest=smallest[index],
            null=null or nulls[index],
        )
        for index, gap in enumerate(gaps)
    )
    return accuracy, loss, flips


def factor_claim(id: str, title: str, *, paper: str, metric: str, null: str) -> Claim:
    """Return a claim on a ratio, of which a factor of 1.25 counts."""
    smallest = math.log(1.25)
    return Claim(id, title, paper, metric, unit="×", smallest=smallest, log=True, null=null)


def paired(frame: pd.DataFrame, column: str, *, methods: tuple[str, str] = PAIR) -> pd.DataFrame:
    """Return a row a seed with ``column`` of both methods, and whether both are trained.

    Args:
        frame: a row a run, with ``relaxation``, ``seed``, ``column``, ``discrete_accuracy`` and
            ``floor``, the accuracy that both must reach.
        column: what to pair; that of the first method becomes ``dlgn``, of the second ``glgn``.
        methods: the two relaxations.
    """
    names = dict(zip(methods, ("dlgn", "glgn"), strict=True))
    chosen = frame[frame["relaxation"].isin(methods)]
    values = chosen.pivot(index="seed", columns="relaxation", values=column).rename(columns=names)
    values = values.reindex(columns=list(names.values()))
    accuracy = chosen.groupby("seed")["discrete_accuracy"].min()
    floor = chosen.groupby("seed")["floor"].max()
    table = values.assign(accuracy=accuracy, counts=accuracy >= floor)
    return table.dropna().reset_index()


def difference(
    frame: pd.DataFrame, column: str, *, methods: tuple[str, str] = PAIR
) -> pd.DataFrame:
    """Return :func:`paired` with ``effect``, the first method less the second."""
    table = paired(frame, column, methods=methods)
    return table.assign(effect=table["dlgn"] - table["glgn"])


def gap_differences(
    claims: Sequence[Claim], ends: pd.DataFrame, *, methods: tuple[str, str] = PAIR
) -> Iterator[tuple[Claim, pd.DataFrame]]:
    """Yield the claims of :func:`gap_claims` with the differences between the methods' gaps."""
    for claim, measure in zip(claims, MEASURES, strict=True):
        values = ends.assign(value=gap_measure(ends, measure))
        yield claim, difference(values, "value", methods=methods)


def effects_by_setting(
    frame: pd.DataFrame, compare: Callable[[pd.DataFrame], Effects]
) -> pd.DataFrame:
    """Return the effects of all settings in one table, with ``setting`` and the claim's label.

    Args:
        frame: the experiment's frame.
        compare: from the rows of one setting to its effects.
    """
    settings = list(frame["setting"].unique())
    parts = []
    for setting, rows in frame.groupby("setting", sort=False):
        for claim, table in compare(rows):
            if len(table):
                name = "" if claim is None else label(claim, str(setting), settings)
                parts.append(table.assign(setting=setting, claim=name))
    if not parts:
        return pd.DataFrame(columns=["setting", "claim", "seed", "effect", "counts"])
    whole = pd.concat(parts, ignore_index=True)
    first = ["setting", "claim"]
    return whole[[*first, *whole.columns.drop(first)]]


def label(claim: Claim, setting: str, settings: Sequence[str]) -> str:
    """Return the claim's id, with the setting where there are several."""
    return claim.id if len(settings) == 1 else f"{claim.id} ({setting})"


def each_setting(
    claims: Sequence[Claim],
    frame: pd.DataFrame,
    effects: pd.DataFrame,
    *,
    source: str,
    by: Sequence[str] = (),
) -> list[Verdict]:
    """Return a verdict a claim and setting; ``untested`` where the frame holds no runs.

    Args:
        claims: what was claimed.
        frame: the experiment's frame, with ``setting``.
        effects: a row an effect: ``setting``, ``claim``, ``effect``, ``counts``.
        source: the CSV that holds the effects.
        by: columns of cells, in some of which an effect is claimed; none where it is claimed of all.
    """
    if frame.empty:
        return [untested(claim, UNTESTED) for claim in claims]
    found = []
    settings = list(frame["setting"].unique())
    for setting in settings:
        scale = describe(frame[frame["setting"] == setting])
        for claim in claims:
            named = replace(claim, id=label(claim, setting, settings))
            table = _of(effects, setting, named.id)
            if by and len(table):
                found.append(decide_some(named, table, by=by, scale=scale, source=source))
            else:
                found.append(decide(named, table, scale=scale, source=source))
    return found


def no_effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return no rows, for an experiment that decides nothing."""
    return frame.iloc[:0]


def no_verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return no verdicts, for an experiment that decides nothing."""
    return []


def at_paper_size(
    claim: Claim,
    frame: pd.DataFrame,
    effects: pd.DataFrame,
    is_paper_size: Callable[[pd.DataFrame], bool],
    *,
    source: str,
    otherwise: str,
) -> list[Verdict]:
    """Return the verdicts of the settings that have the paper's size.

    Args:
        claim: what only these decide.
        frame: the runs that are compared.
        effects: as in :func:`each_setting`.
        is_paper_size: whether the runs of a setting are that large.
        source: the CSV that holds the effects.
        otherwise: why the claim is untested where no setting is.
    """
    settings = list(frame["setting"].unique())
    found = [
        decide(
            claim,
            _of(effects, setting, label(claim, str(setting), settings)),
            scale=describe(runs),
            source=source,
        )
        for setting, runs in frame.groupby("setting", sort=False)
        if is_paper_size(runs)
    ]
    return found or [untested(claim, otherwise)]


def _of(effects: pd.DataFrame, setting: object, name: str) -> pd.DataFrame:
    if effects.empty:
        return effects
    return effects[(effects["setting"] == setting) & (effects["claim"] == name)]


def smaller_scale(found: Sequence[Verdict], claim: Claim, text: Callable[[float], str]) -> str:
    """Return what the verdicts on ``claim`` show where another size is out of reach."""
    shown = [
        f"{text(verdict.effect)} on {verdict.scale}"
        for verdict in found
        if verdict.claim.id.startswith(claim.id) and math.isfinite(verdict.effect)
    ]
    return f"a smaller scale shows {'; '.join(shown)}" if shown else "nothing smaller was run"


def describe(frame: pd.DataFrame) -> str:
    """Return the scale of the runs in a frame: data, networks, steps and seeds."""
    parts = [
        f"{name}, {_span(rows['depth'])} × {_span(rows['width'])} gates, "
        f"group_tau {_span(rows['group_tau'])}, {', '.join(rows['init'].unique())} init, "
        f"{_span(rows['steps'])} steps"
        for name, rows in frame.groupby("dataset", sort=False)
    ]
    return f"{'; '.join(parts)}; {frame['seed'].nunique()} seeds"


def _span(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g}–{high:g}"
