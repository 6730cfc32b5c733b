"""The scale of runs in words, as the ledger and the captions of figures state it."""

from __future__ import annotations

import pandas as pd

from lgn_analysis.data import DATASETS


def describe(frame: pd.DataFrame) -> str:
    """Return the scale of the runs in a frame: data, networks, R and σ, steps and seeds.

    R, the gates of a class over the group_tau, is the largest logit; σ is the standard deviation of
    a logit under random gates.
    """
    parts = []
    for name, rows in frame.groupby("dataset", sort=False):
        per_class = rows["width"] / DATASETS[str(name)].n_classes
        sigma = per_class**0.5 / 2 / rows["group_tau"]
        parts.append(
            f"{name}, {span(rows['depth'])} × {span(rows['width'])} gates, "
            f"group_tau {span(rows['group_tau'])} (R {span(per_class / rows['group_tau'])}, "
            f"σ {span(sigma)}), {', '.join(rows['init'].unique())} init, {span(rows['steps'])} steps"
        )
    return f"{'; '.join(parts)}; {frame['seed'].nunique()} seeds"


def span(values: pd.Series) -> str:
    """Return the least and the largest of some numbers."""
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    if values.max() >= 1000:
        low, high = f"{values.min():g}", f"{values.max():g}"
    return low if low == high else f"{low}–{high}"
