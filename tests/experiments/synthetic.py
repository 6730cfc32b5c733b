"""Frames with known answers, as the experiments make them from runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

SEEDS = range(6)
N_TEST = 1_000_000
"""Test samples, so many that their choice says nothing."""
SHAPE: dict[str, Any] = {
    "setting": "digits",
    "floor": 0.9,
    "target": 0.9,
    "dataset": "digits",
    "width": 100,
    "depth": 2,
    "group_tau": 10.0,
    "init": "normal",
    "tau": 1.0,
    "tau_end": 1.0,
    "steps": 100,
    "options": "default",
}


def spread(seed: int) -> float:
    """A small deterministic spread over seeds, of mean zero over :data:`SEEDS`."""
    return 0.01 * (seed - 2.5)


def outcomes(module: Any, frame: pd.DataFrame) -> dict[str, str]:
    """The outcome of each claim of an experiment on a frame."""
    return {verdict.claim.id: verdict.outcome for verdict in module.verdicts(frame)}


def rows(kinds: Iterable[str], *, seeds: Iterable[int] = SEEDS, **columns: Any) -> list[dict]:
    """A row a relaxation and seed."""
    return [
        {**SHAPE, "run": f"{kind}{seed}", "relaxation": kind, "seed": seed, **columns}
        for kind in kinds
        for seed in seeds
    ]


def gap_rows(
    gaps: Mapping[str, float],
    *,
    accuracy: float = 0.95,
    noise: np.random.Generator | None = None,
    **columns: Any,
) -> list[dict]:
    """Rows at the end of training: the gap in accuracy, loss and flips of each relaxation.

    With ``noise`` the gaps are normal around theirs, of standard deviation 0.01.
    """
    made = []
    for kind, gap in gaps.items():
        for row in rows([kind], **columns):
            value = gap + spread(row["seed"]) / 10 * (1 if kind == "soft" else -1)
            if noise is not None:
                value = gap + 0.01 * noise.normal()
            made.append(
                {
                    **row,
                    "step": row["steps"],
                    "split": "test",
                    "n": N_TEST,
                    "soft_accuracy": accuracy + value,
                    "discrete_accuracy": accuracy,
                    "gap": value,
                    "gap_loss": -value,
                    "gap_train": value,
                    "flips": N_TEST * value,
                    "deep": False,
                    "seconds": 1.0,
                }
            )
    return made


def histories(step_at_target: Mapping[str, int | None], **columns: Any) -> pd.DataFrame:
    """Histories of 1000 steps that pass the target at a step and a few more (None: never)."""
    made = []
    for kind, at in step_at_target.items():
        for row in rows([kind], **{"steps": 1000, **columns}):
            for step in range(0, 1001, 10):
                reached = at is not None and step >= at + 10 * (row["seed"] % 3)
                made.append(
                    {
                        **row,
                        "step": step,
                        "split": "val",
                        "seconds": step * (0.01 if kind == "soft" else 0.02),
                        "discrete_accuracy": 0.95 if reached else 0.2,
                    }
                )
    return pd.DataFrame(made)
