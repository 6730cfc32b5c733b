"""Adult (census income): does a person earn more than 50 000 dollars a year?

116 bits, one per category, in difflogic's order: eight categorical attributes, then age, capital
gain, capital loss and weekly hours in bins; ``fnlwgt`` and ``education-num`` are left out. Rows
with a missing value are dropped, which leaves 30162 for training and 15060 for testing; a tenth of
the former is held for validation.

difflogic's published reader compares where it means to assign (``attr_v == 'half-hours'``), so its
six bits of weekly hours are always 0; here they carry the hours.

Source: Becker and Kohavi, "Adult", UCI Machine Learning Repository, doi:10.24432/C5XW20; OpenML
data set 1590.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lgn_analysis.base.errors import DataError
from lgn_analysis.data.splits import RawSplits, split_off_validation
from lgn_analysis.data.tabular import (
    Attribute,
    Rows,
    drop_missing,
    encode_rows,
    read_rows,
    require_rows,
)

COLUMNS: Final = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "class",
)
CLASSES: Final = ("<=50K", ">50K")
N_TRAIN: Final = 30162
N_TEST: Final = 15060
N_VALIDATION: Final = 3016
_OPENML_ID: Final = 1590

# OpenML joins the two files, test rows first; (age, fnlwgt) of each file's first row tell where.
_FIRST_TRAIN_ROW: Final = ("39", "77516")
_FIRST_TEST_ROW: Final = ("25", "226802")
_N_TEST_ROWS: Final = 16281


def _age(text: str) -> str:
    age = int(text)
    bounds = ((21, "minor"), (30, "very-young"), (45, "young"), (60, "middle-aged"))
    return next((name for bound, name in bounds if age < bound), "senior")


def _gain(text: str) -> str:
    gain = int(text)
    return "no-gain" if gain == 0 else "small-gain" if gain < 5000 else "large-gain"


def _loss(text: str) -> str:
    loss = int(text)
    return "no-loss" if loss == 0 else "small-loss" if loss < 5000 else "large-loss"


def _hours(text: str) -> str:
    hours = int(text)
    bounds = ((0, "no"), (12, "mini"), (25, "half"), (40, "full"), (59, "more"))
    return next((name for bound, name in bounds if hours <= bound), "most") + "-hours"


ATTRIBUTES: Final = (
    Attribute.of(
        "workclass",
        "Private Self-emp-not-inc Self-emp-inc Federal-gov Local-gov State-gov Without-pay "
        "Never-worked",
    ),
    Attribute.of(
        "education",
        "Bachelors Some-college 11th HS-grad Prof-school Assoc-acdm Assoc-voc 9th 7th-8th 12th "
        "Masters 1st-4th 10th Doctorate 5th-6th Preschool",
    ),
    Attribute.of(
        "marital-status",
        "Married-civ-spouse Divorced Never-married Separated Widowed Married-spouse-absent "
        "Married-AF-spouse",
    ),
    Attribute.of(
        "occupation",
        "Tech-support Craft-repair Other-service Sales Exec-managerial Prof-specialty "
        "Handlers-cleaners Machine-op-inspct Adm-clerical Farming-fishing Transport-moving "
        "Priv-house-serv Protective-serv Armed-Forces",
    ),
    Attribute.of("relationship", "Wife Own-child Husband Not-in-family Other-relative Unmarried"),
    Attribute.of("race", "White Asian-Pac-Islander Amer-Indian-Eskimo Other Black"),
    Attribute.of("sex", "Female Male"),
    Attribute.of(
        "native-country",
        "United-States Cambodia England Puerto-Rico Canada Germany Outlying-US(Guam-USVI-etc) "
        "India Japan Greece South China Cuba Iran Honduras Philippines Italy Poland Jamaica "
        "Vietnam Mexico Portugal Ireland France Dominican-Republic Laos Ecuador Taiwan Haiti "
        "Columbia Hungary Guatemala Nicaragua Scotland Thailand Yugoslavia El-Salvador "
        "Trinadad&Tobago Peru Hong Holand-Netherlands",
    ),
    Attribute.of("age", "minor very-young young middle-aged senior", _age),
    Attribute.of("capital-gain", "no-gain small-gain large-gain", _gain),
    Attribute.of("capital-loss", "no-loss small-loss large-loss", _loss),
    Attribute.of(
        "hours-per-week",
        "no-hours mini-hours half-hours full-hours more-hours most-hours",
        _hours,
    ),
)
N_FEATURES: Final = sum(len(attribute.values) for attribute in ATTRIBUTES)
FILES: Final = ("adult.data", "adult.test")
"""UCI's names."""


def load_adult(root: Path, download: bool, split_seed: int) -> RawSplits:
    """Return Adult from ``adult/adult.data`` and ``adult/adult.test`` under ``root``, else OpenML.

    Raises:
        DataError: neither is there, or what is there is torn or something else.
    """
    tables = read_rows(root, "adult", FILES, _OPENML_ID, COLUMNS, download)
    source = root / "adult" if len(tables) == 2 else "OpenML's table"
    train, test = tables if len(tables) == 2 else _part_openml(tables[0], root)
    train, test = drop_missing(train), drop_missing(test)
    require_rows(train, N_TRAIN, f"the training set in {source}")
    require_rows(test, N_TEST, f"the test set in {source}")
    x_train, y_train = encode_rows(train, COLUMNS, ATTRIBUTES, CLASSES)
    x_test, y_test = encode_rows(test, COLUMNS, ATTRIBUTES, CLASSES)
    return split_off_validation(
        x_train, y_train, x_test, y_test, n_val=N_VALIDATION, seed=split_seed
    )


def _part_openml(joined: Rows, root: Path) -> tuple[Rows, Rows]:
    """Return (train, test) rows of OpenML's table, which holds the test rows first."""
    test, train = joined[:_N_TEST_ROWS], joined[_N_TEST_ROWS:]
    first = [(rows[0][0], rows[0][2]) if rows else None for rows in (train, test)]
    if first != [_FIRST_TRAIN_ROW, _FIRST_TEST_ROW]:
        raise DataError(
            "OpenML's table of 'adult' no longer holds the published test rows and then the "
            f"training rows; put UCI's adult.data and adult.test into {root / 'adult'}"
        )
    return train, test
