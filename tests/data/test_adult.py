from __future__ import annotations

import numpy as np
import pytest

from lgn_analysis.base.errors import DataError
from lgn_analysis.data import adult, load_dataset

# Rows of the published files (the first ones of each, and some with a missing value).
TRAIN_LINES = [
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, United-States, <=50K",
    "50, Self-emp-not-inc, 83311, Bachelors, 13, Married-civ-spouse, Exec-managerial, Husband, White, Male, 0, 0, 13, United-States, <=50K",
    "54, ?, 180211, Some-college, 10, Married-civ-spouse, ?, Husband, Asian-Pac-Islander, Male, 0, 0, 60, South, >50K",
    "28, Private, 338409, Bachelors, 13, Married-civ-spouse, Prof-specialty, Wife, Black, Female, 0, 0, 40, Cuba, <=50K",
    "52, Self-emp-not-inc, 209642, HS-grad, 9, Married-civ-spouse, Exec-managerial, Husband, White, Male, 0, 0, 45, United-States, >50K",
    "31, Private, 45781, Masters, 14, Never-married, Prof-specialty, Not-in-family, White, Female, 14084, 0, 50, United-States, >50K",
]
TEST_LINES = [
    "25, Private, 226802, 11th, 7, Never-married, Machine-op-inspct, Own-child, Black, Male, 0, 0, 40, United-States, <=50K.",
    "18, ?, 103497, Some-college, 10, Never-married, ?, Own-child, White, Female, 0, 0, 30, United-States, <=50K.",
    "44, Private, 160323, Some-college, 10, Married-civ-spouse, Machine-op-inspct, Husband, Black, Male, 7688, 0, 40, United-States, >50K.",
]


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """The same formats, published with a few rows only."""
    monkeypatch.setattr(adult, "N_TRAIN", 5)
    monkeypatch.setattr(adult, "N_TEST", 2)
    monkeypatch.setattr(adult, "N_VALIDATION", 2)
    monkeypatch.setattr(adult, "_N_TEST_ROWS", len(TEST_LINES))


def write_uci(root, train=TRAIN_LINES, test=TEST_LINES):
    folder = root / "adult"
    folder.mkdir(parents=True)
    (folder / "adult.data").write_text("\n".join(train) + "\n\n")
    (folder / "adult.test").write_text("|1x3 Cross validator\n" + "\n".join(test) + "\n\n")


def write_openml(write_openml_cache, root, lines):
    attributes = []
    for name in adult.COLUMNS:
        known = {a.name: a.values for a in adult.ATTRIBUTES if a.category is None}
        values = adult.CLASSES if name == "class" else known.get(name)
        attributes.append((name, values))
    write_openml_cache(
        root, data_id=1590, name="adult", attributes=attributes, target="class", lines=lines
    )


def categories(root, split):
    """The split's samples as (categories whose bit is set, label)."""
    data = load_dataset("adult", root=root, download=False)
    names = [value for attribute in adult.ATTRIBUTES for value in attribute.values]
    rows = zip(*data.split(split), strict=True)
    return sorted((" ".join(np.array(names)[x.numpy()]), int(y)) for x, y in rows)


def test_there_are_116_features_as_in_difflogic():
    assert adult.N_FEATURES == 116
    assert [len(a.values) for a in adult.ATTRIBUTES] == [8, 16, 7, 14, 6, 5, 2, 41, 5, 3, 3, 6]


def test_a_row_sets_one_bit_per_attribute_hours_included(tmp_path):
    write_uci(tmp_path)
    young = (
        "Private 11th Never-married Machine-op-inspct Own-child Black Male United-States "
        "very-young no-gain no-loss full-hours"
    )
    older = (
        "Private Some-college Married-civ-spouse Machine-op-inspct Husband Black Male "
        "United-States young large-gain no-loss full-hours"
    )
    assert categories(tmp_path, "test") == [(young, 0), (older, 1)]


@pytest.mark.parametrize(
    ("column", "bins"),
    [
        (
            "age",
            {
                "20": "minor",
                "21": "very-young",
                "29": "very-young",
                "30": "young",
                "44": "young",
                "45": "middle-aged",
                "59": "middle-aged",
                "60": "senior",
            },
        ),
        (
            "capital-gain",
            {"0": "no-gain", "1": "small-gain", "4999": "small-gain", "5000": "large-gain"},
        ),
        (
            "capital-loss",
            {"0": "no-loss", "1": "small-loss", "4999": "small-loss", "5000": "large-loss"},
        ),
        (
            "hours-per-week",
            {
                "0": "no-hours",
                "1": "mini-hours",
                "12": "mini-hours",
                "13": "half-hours",
                "25": "half-hours",
                "26": "full-hours",
                "40": "full-hours",
                "41": "more-hours",
                "59": "more-hours",
                "60": "most-hours",
            },
        ),
    ],
)
def test_bins_have_difflogics_edges(column, bins):
    attribute = next(a for a in adult.ATTRIBUTES if a.name == column)
    assert attribute.category is not None
    assert {text: attribute.category(text) for text in bins} == bins
    assert set(bins.values()) == set(attribute.values)


def test_openml_gives_the_same_data_as_the_files(tmp_path, write_openml_cache):
    write_uci(tmp_path / "uci")
    joined = [line.rstrip(".") for line in TEST_LINES] + TRAIN_LINES
    write_openml(write_openml_cache, tmp_path / "openml", joined)
    uci = load_dataset("adult", root=tmp_path / "uci", download=False)
    openml = load_dataset("adult", root=tmp_path / "openml")
    assert uci.fingerprint == openml.fingerprint
    assert [len(uci.split(s)[1]) for s in ("train", "val", "test")] == [3, 2, 2]


def test_an_openml_table_in_another_order_is_refused(tmp_path, write_openml_cache):
    joined = TRAIN_LINES + [line.rstrip(".") for line in TEST_LINES]
    write_openml(write_openml_cache, tmp_path, joined)
    with pytest.raises(DataError, match="no longer holds the published test rows"):
        load_dataset("adult", root=tmp_path)


def test_a_file_that_lacks_lines_is_refused(tmp_path):
    write_uci(tmp_path, train=TRAIN_LINES[:-1])
    with pytest.raises(DataError, match=r"training set in .* should hold 5 rows .* got 4"):
        load_dataset("adult", root=tmp_path, download=False)


def test_missing_files_say_where_to_put_them(tmp_path):
    with pytest.raises(DataError, match=r"adult.data and adult.test into .*adult, or use download"):
        load_dataset("adult", root=tmp_path, download=False)


def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    def unreachable(**options):
        raise OSError("no route to host")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", unreachable)
    with pytest.raises(DataError, match=r"from OpenML \(no route to host\); put UCI's adult.data"):
        load_dataset("adult", root=tmp_path)
