"""From frames to effects, and from effects to verdicts: what the modules of claims have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import pandas as pd

from lgn_analysis.experiments.frames import MEASURES, gap_measure, sample_variance
from lgn_analysis.experiments.settings import PAIR
from lgn_analysis.experiments.verdicts import (
    UNTESTED,
    Claim,
    Verdict,
    decide,
    decide_some,
    untested,
)
from lgn_analysis.metrics.scale import describe

Effects = Iterable[tuple[Claim | None, pd.DataFrame]]
"""Tables with a row a seed, and the claim that each decides; None where it decides none."""


def gap_claims(
    number: str,
    *,
    titles: tuple[str, str, str, str],
    metric: str,
    paper: str,
    per: str = "",
    smallest: tuple[float, float, float] = (0.5, 0.01, 0.5),
    null: str | None = None,
    premise: str = "both methods are trained, and one of them has such a gap",
) -> tuple[Claim, Claim, Claim, Claim]:
    """Return the claims on a gap by each of :data:`MEASURES`; that of the training forward decides.

    Args:
        number: of the claim, ``C2``; the measure is added to it.
        titles: one for each measure.
        metric: with ``{gap}`` in the place of the measure, or ``{the_gap}`` with its article.
        paper: the paper's figure and where it was measured.
        per: what the units, pp, pp, nats and pp, are divided by: ``/layer``.
        smallest: the smallest effect that counts, in accuracy, loss and flips.
        null: what an effect of zero says; None says that the gaps are equal.
        premise: what has to be there.
    """
    gaps = (
        "training − discrete test accuracy",
        "soft − discrete test accuracy",
        "|soft − discrete| test loss",
        "share of flipped test predictions",
    )
    units = ("pp", "pp", "nats", "pp")
    accuracy, loss, flips = smallest
    first, *others = (
        Claim(
            id=f"{number} {measure}",
            title=titles[index],
            paper=paper if index == 0 else "not reported",
            metric=metric.format(
                gap=gaps[index], the_gap=gaps[index] if index < 3 else f"the {gaps[index]}"
            ),
            unit=units[index] + per,
            smallest=(accuracy, accuracy, loss, flips)[index],
            null=null or ("equally many predictions flip" if index == 3 else "the gaps are equal"),
            premise=premise,
            primary=index == 0,
        )
        for index, measure in enumerate(MEASURES)
    )
    return first, others[0], others[1], others[2]


def factor_claim(
    id: str,
    title: str,
    *,
    paper: str,
    metric: str,
    null: str,
    premise: str = "",
    primary: bool = True,
) -> Claim:
    """Return a claim on a ratio, of which a factor of 1.25 counts."""
    return Claim(
        id,
        title,
        paper,
        metric,
        unit="×",
        smallest=math.log(1.25),
        log=True,
        null=null,
        premise=premise,
        primary=primary,
    )


def paired(frame: pd.DataFrame, column: str, *, methods: tuple[str, str] = PAIR) -> pd.DataFrame:
    """Return a row a seed with ``column`` of both methods, and whether both are trained.

    Args:
        frame: a row a run, with ``relaxation``, ``seed``, ``column``, ``discrete_accuracy`` and
            ``floor``, the accuracy that both must reach; with ``sample_variance`` of the column, if known.
        column: what to pair; that of the first method becomes ``dlgn``, of the second ``glgn``.
        methods: the two relaxations.
    """
    names = dict(zip(methods, ("dlgn", "glgn"), strict=True))
    chosen = frame[frame["relaxation"].isin(methods)]
    values = chosen.pivot(index="seed", columns="relaxation", values=column).rename(columns=names)
    values = values.reindex(columns=list(names.values()))
    by_seed = chosen.groupby("seed")
    accuracy = by_seed["discrete_accuracy"].min()
    table = values.assign(accuracy=accuracy, counts=accuracy >= by_seed["floor"].max())
    table = table.dropna()
    if "sample_variance" in chosen:
        table["test_variance"] = by_seed["sample_variance"].sum(min_count=2)
    return table.reset_index()


def difference(
    frame: pd.DataFrame, column: str, *, methods: tuple[str, str] = PAIR
) -> pd.DataFrame:
    """Return :func:`paired` with ``effect``, the first method less the second."""
    table = paired(frame, column, methods=methods)
    return table.assign(effect=table["dlgn"] - table["glgn"])


def differing(
    frame: pd.DataFrame, column: str, claim: Claim, *, methods: tuple[str, str] = PAIR
) -> pd.DataFrame:
    """Return :func:`difference`, which counts where one of the methods has enough to differ in."""
    table = difference(frame, column, methods=methods)
    enough = table[["dlgn", "glgn"]].max(axis=1) >= claim.smallest
    return table.assign(counts=table["counts"] & enough)


def gap_differences(
    claims: Sequence[Claim], ends: pd.DataFrame, *, methods: tuple[str, str] = PAIR
) -> Iterator[tuple[Claim, pd.DataFrame]]:
    """Yield the claims of :func:`gap_claims` with the differences between the methods' gaps."""
    for claim, measure in zip(claims, MEASURES, strict=True):
        values = ends.assign(
            value=gap_measure(ends, measure), sample_variance=sample_variance(ends, measure)
        )
        yield claim, differing(values, "value", claim, methods=methods)


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
    """Return a verdict a claim and setting; ``not testable here`` where the frame holds no runs.

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
        otherwise: why the claim cannot be tested where no setting is.
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
