"""Tables of categories: UCI's comma-separated files, OpenML's frames, and one-hot encoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.base.errors import DataError
from lgn_analysis.data.splits import source_independent_order

if TYPE_CHECKING:
    import pandas as pd

MISSING = "?"
Rows = list[list[str]]


@dataclass(frozen=True)
class Attribute:
    """A column that becomes one bit per value.

    Attributes:
        name: its name in the published description.
        values: the values it may take, in the order of their bits.
        category: maps what the table holds to one of ``values``; None where it holds them.
    """

    name: str
    values: tuple[str, ...]
    category: Callable[[str], str] | None = None

    @classmethod
    def of(cls, name: str, values: str, category: Callable[[str], str] | None = None) -> Attribute:
        """Return an attribute of values that are separated by blanks."""
        return cls(name, tuple(values.split()), category)


def read_uci_rows(path: Path, *, n_columns: int) -> Rows:
    """Return the rows of a UCI ``.data`` or ``.test`` file.

    Blank lines and comments (``|…``) are skipped, blanks around a value and the full stop that ends
    each line of ``adult.test`` are dropped. Missing values stay as ``?``.

    Raises:
        DataError: a line with another number of columns, as in a torn file.
    """
    rows = []
    # A foreign file may hold any bytes; it then fails by its columns.
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("|"):
            continue
        row = [value.strip() for value in text.removesuffix(".").split(",")]
        if len(row) != n_columns:
            raise DataError(
                f"{path}, line {number} has {len(row)} columns instead of {n_columns}; the file is "
                "torn or another one: download it again"
            )
        rows.append(row)
    return rows


def read_rows(
    root: Path,
    name: str,
    files: Sequence[str],
    data_id: int,
    columns: Sequence[str],
    download: bool,
) -> tuple[Rows, ...]:
    """Return the rows of UCI's files under ``root / name``, or else of OpenML's table, all in one.

    Args:
        root: the data folder; a download is kept in its ``openml`` folder.
        name: the data set's name, and its folder's.
        files: the published files.
        data_id: OpenML's number, which fixes the version too.
        columns: the columns' names, in the files' order.
        download: whether scikit-learn may download OpenML's table.

    Raises:
        DataError: neither is there, or what is there is damaged or something else.
    """
    paths = [root / name / file for file in files]
    if all(path.is_file() for path in paths):
        return tuple(read_uci_rows(path, n_columns=len(columns)) for path in paths)
    advice = f"put UCI's {' and '.join(files)} into {root / name}"
    if not download:
        raise DataError(f"the files of {name!r} are not there; {advice}, or use download=True")
    from sklearn.datasets import fetch_openml

    try:
        bunch = fetch_openml(data_id=data_id, as_frame=True, parser="auto", data_home=root)
    except (OSError, ValueError) as error:
        raise DataError(f"{name!r} could not be read from OpenML ({error}); {advice}") from error
    return (frame_rows(bunch.frame, columns),)


def frame_rows(frame: pd.DataFrame, columns: Sequence[str]) -> Rows:
    """Return ``columns`` of an OpenML frame as the rows that a UCI file would give."""
    lacking = [c for c in columns if c not in frame.columns]
    if lacking:
        raise DataError(
            f"OpenML's table lacks the column {lacking[0]!r}, it has {', '.join(frame.columns)}; "
            "use the files of the UCI repository instead"
        )
    text = [[_as_uci_text(value) for value in frame[column]] for column in columns]
    return [list(row) for row in zip(*text, strict=True)]


def _as_uci_text(value: object) -> str:
    if value is None or value != value:  # NaN
        return MISSING
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    # ARFF quotes some categories ('40-49'), and not every parser takes the quotes off.
    return str(value).strip(" '\"")


def drop_missing(rows: Rows) -> Rows:
    """Return the rows in which every value is known."""
    return [row for row in rows if MISSING not in row]


def require_rows(rows: Rows, n_expected: int, what: str) -> None:
    """Raise unless ``rows``, those without missing values, are as many as published."""
    if len(rows) != n_expected:
        raise DataError(
            f"{what} should hold {n_expected} rows without missing values, got {len(rows)}; the "
            "file is torn or another one: download it again"
        )


def one_hot(
    rows: Rows, columns: Sequence[str], attributes: Sequence[Attribute]
) -> NDArray[np.uint8]:
    """Return uint8 [n, total number of values]: one bit per value, attribute by attribute.

    >>> one_hot([["b"], ["a"]], ["letter"], [Attribute("letter", ("a", "b"))]).tolist()
    [[0, 1], [1, 0]]
    """
    blocks = []
    for attribute in attributes:
        column = columns.index(attribute.name)
        index = [_value_index(row[column], attribute) for row in rows]
        blocks.append(np.eye(len(attribute.values), dtype=np.uint8)[index])
    return np.concatenate(blocks, axis=1)


def _value_index(entry: str, attribute: Attribute) -> int:
    try:
        category = attribute.category(entry) if attribute.category else entry
        return attribute.values.index(category)
    except ValueError:
        what = "a number" if attribute.category else f"one of {', '.join(attribute.values)}"
        raise DataError(f"{attribute.name} should be {what}, got {entry!r}") from None


def class_labels(rows: Rows, column: int, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return int64 [n]: the place of each row's label in ``classes``."""
    unknown = next((row[column] for row in rows if row[column] not in classes), None)
    if unknown is not None:
        raise DataError(f"a label should be one of {', '.join(classes)}, got {unknown!r}")
    return np.array([classes.index(row[column]) for row in rows], dtype=np.int64)


def encode_rows(
    rows: Rows, columns: Sequence[str], attributes: Sequence[Attribute], classes: Sequence[str]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the bits and labels of ``rows``, in an order that no longer depends on theirs.

    Args:
        rows: without missing values.
        columns: the columns' names; "class", in either case, holds the label.
        attributes: the columns that become bits.
        classes: the labels, in the order of their numbers.

    Returns:
        uint8 [n, total number of values] and int64 [n].
    """
    x = one_hot(rows, columns, attributes)
    label = [column.lower() for column in columns].index("class")
    y = class_labels(rows, label, classes)
    order = source_independent_order(x, y)
    return x[order], y[order]
