"""Logs of gumbel-lgn as training histories of this package."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

import pandas as pd

from lgn_analysis.base.errors import DataError, InvalidInputError
from lgn_analysis.base.validation import shown

_COLUMNS: Final = (
    "iteration",
    "train_acc_eval_mode",
    "train_acc_train_mode",
    "test_acc_eval_mode",
    "test_acc_train_mode",
    "test_acc_packbits",
    "duration_sec",
)
_KINDS: Final = ("soft", "gumbel-st")
_SPLITS: Final = ("train", "test")


def read_foreign_history(path: str | os.PathLike[str], *, relaxation: str) -> pd.DataFrame:
    """Return a CSV log of gumbel-lgn as a history, to be drawn beside ours.

    A row for each evaluation and split, ``train`` and ``test``: step, split, seconds, relaxation,
    soft_accuracy, noisy_accuracy, discrete_accuracy, gap and gap_train, as in
    :class:`lgn_analysis.metrics.Evaluation`. Its train-mode accuracy is the noisy one of a Gumbel network
    and the soft one of a softmax network; what the log does not have is NaN. Its accuracies are means over
    batches, of which the last one of a split may be short, and its seconds include evaluations.

    Args:
        path: the CSV.
        relaxation: ``"soft"`` for stochastic softmax, ``"gumbel-st"`` for gumbel; the log does not say.

    Raises:
        DataError: there is no such file, or it is no log of gumbel-lgn.
    """
    if relaxation not in _KINDS:
        raise InvalidInputError(
            f"relaxation must be one of {', '.join(_KINDS)}, got {shown(relaxation)}"
        )
    log = _read(Path(path))
    noisy = relaxation == "gumbel-st"
    frames = []
    for split in _SPLITS:
        discrete, trained = log[f"{split}_acc_eval_mode"], log[f"{split}_acc_train_mode"]
        gap = trained - discrete
        frames.append(
            pd.DataFrame(
                {
                    "step": log["iteration"].astype(int),
                    "split": split,
                    "seconds": log["duration_sec"],
                    "relaxation": relaxation,
                    "soft_accuracy": math.nan if noisy else trained,
                    "noisy_accuracy": trained if noisy else math.nan,
                    "discrete_accuracy": discrete,
                    "gap": math.nan if noisy else gap,
                    "gap_train": gap,
                }
            )
        )
    return pd.concat(frames).sort_values(["step", "split"], kind="stable", ignore_index=True)


def _read(path: Path) -> pd.DataFrame:
    """Return the log's columns as numbers, at least one row."""
    if not path.is_file():
        raise DataError(f"there is no log at {path}")
    try:
        log = pd.read_csv(path)
        lacking = [column for column in _COLUMNS if column not in log.columns]
        if lacking:
            raise DataError(
                f"{path} is no log of gumbel-lgn: it has no column {lacking[0]}; give the CSV that its "
                "main.py --log wrote"
            )
        numbers = log[list(_COLUMNS)].astype(float)
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is no table of numbers; give the CSV that main.py --log wrote"
        ) from error
    needed = numbers[[column for column in _COLUMNS if column != "test_acc_packbits"]]
    if numbers.empty or needed.isna().any(axis=None):
        raise DataError(f"{path} has no rows, or torn ones; delete what is torn")
    return numbers
