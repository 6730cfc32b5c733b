"""Breast cancer (Ljubljana): does it come back within five years?

The categorical data set that difflogic uses, not the measurements of Wisconsin that scikit-learn
embeds: 286 patients, nine attributes, one bit per published value (51). Nine rows with a missing
value are dropped. UCI publishes no test set; 70 of the other 277 are drawn for testing and 41 for
validation.

Source: Zwitter and Soklic, "Breast Cancer", UCI Machine Learning Repository, doi:10.24432/C51P4M;
OpenML data set 13.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lgn_analysis.data.splits import RawSplits, split_in_three
from lgn_analysis.data.tabular import (
    Attribute,
    drop_missing,
    encode_rows,
    read_rows,
    require_rows,
)

CLASSES: Final = ("no-recurrence-events", "recurrence-events")
N_ROWS: Final = 277
N_VALIDATION: Final = 41
N_TEST: Final = 70
_OPENML_ID: Final = 13

ATTRIBUTES: Final = (
    Attribute.of("age", "10-19 20-29 30-39 40-49 50-59 60-69 70-79 80-89 90-99"),
    Attribute.of("menopause", "lt40 ge40 premeno"),
    Attribute.of(
        "tumor-size", "0-4 5-9 10-14 15-19 20-24 25-29 30-34 35-39 40-44 45-49 50-54 55-59"
    ),
    Attribute.of(
        "inv-nodes", "0-2 3-5 6-8 9-11 12-14 15-17 18-20 21-23 24-26 27-29 30-32 33-35 36-39"
    ),
    Attribute.of("node-caps", "yes no"),
    Attribute.of("deg-malig", "1 2 3"),
    Attribute.of("breast", "left right"),
    Attribute.of("breast-quad", "left_up left_low right_up right_low central"),
    Attribute.of("irradiat", "yes no"),
)
N_FEATURES: Final = sum(len(attribute.values) for attribute in ATTRIBUTES)

# UCI's file has the class first; OpenML calls it "Class".
FILES: Final = ("breast-cancer.data",)
"""UCI's name."""
_COLUMNS: Final = ("Class", *(attribute.name for attribute in ATTRIBUTES))


def load_breast_cancer(root: Path, download: bool, split_seed: int) -> RawSplits:
    """Return the data from ``breast-cancer/breast-cancer.data`` under ``root``, else from OpenML.

    Raises:
        DataError: neither is there, or what is there is torn or something else.
    """
    (rows,) = read_rows(root, "breast-cancer", FILES, _OPENML_ID, _COLUMNS, download)
    rows = drop_missing(rows)
    require_rows(rows, N_ROWS, "the table of 'breast-cancer'")
    x, y = encode_rows(rows, _COLUMNS, ATTRIBUTES, CLASSES)
    return split_in_three(x, y, n_val=N_VALIDATION, n_test=N_TEST, seed=split_seed)
