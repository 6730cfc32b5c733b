from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lgn_analysis.base.errors import DataError
from lgn_analysis.data.tabular import (
    Attribute,
    class_labels,
    drop_missing,
    encode_rows,
    frame_rows,
    one_hot,
    read_uci_rows,
    require_rows,
)

SIZE = Attribute("size", ("small", "large"), lambda text: "small" if int(text) < 10 else "large")
COLOUR = Attribute("colour", ("red", "green", "blue"))


def test_comments_blanks_and_final_stops_are_dropped(tmp_path):
    path = tmp_path / "file.test"
    path.write_text("|1x3 Cross validator\n3, red, yes.\n\n12,  ?,no\n")
    assert read_uci_rows(path, n_columns=3) == [["3", "red", "yes"], ["12", "?", "no"]]


def test_a_torn_line_is_named(tmp_path):
    path = tmp_path / "file.data"
    path.write_text("3, red, yes\n12, gre")
    with pytest.raises(DataError, match=r"file.data, line 2 has 2 columns instead of 3"):
        read_uci_rows(path, n_columns=3)


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "file.data"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="line 1 has 1 columns instead of 3"):
        read_uci_rows(path, n_columns=3)


def test_a_frame_gives_the_rows_of_the_file():
    frame = pd.DataFrame(
        {
            "class": pd.Categorical(["'yes'", "no"]),
            "size": [3.0, 12.0],
            "colour": pd.Categorical(["red", None]),
            "age": pd.Categorical(["'40-49'", "50-59"]),
            "weight": [math.nan, 1490400.0],
        }
    )
    assert frame_rows(frame, ("size", "colour", "class", "age", "weight")) == [
        ["3", "red", "yes", "40-49", "?"],
        ["12", "?", "no", "50-59", "1490400"],
    ]


def test_a_frame_without_a_column_is_refused():
    with pytest.raises(DataError, match="lacks the column 'colour', it has size"):
        frame_rows(pd.DataFrame({"size": [1]}), ("size", "colour"))


def test_rows_with_a_missing_value_are_dropped():
    assert drop_missing([["1", "?"], ["?", "2"], ["1", "2"]]) == [["1", "2"]]


def test_another_number_of_rows_is_refused():
    require_rows([["1"]], 1, "the file")
    with pytest.raises(
        DataError, match="the file should hold 2 rows without missing values, got 1"
    ):
        require_rows([["1"]], 2, "the file")


def test_one_hot_follows_the_attributes_not_the_columns():
    rows = [["blue", "3"], ["red", "10"]]
    assert one_hot(rows, ["colour", "size"], [SIZE, COLOUR]).tolist() == [
        [1, 0, 0, 0, 1],
        [0, 1, 1, 0, 0],
    ]


def test_unknown_values_are_refused():
    with pytest.raises(DataError, match="colour should be one of red, green, blue, got 'pink'"):
        one_hot([["pink"]], ["colour"], [COLOUR])
    with pytest.raises(DataError, match="size should be a number, got 'big'"):
        one_hot([["big"]], ["size"], [SIZE])
    with pytest.raises(DataError, match="a label should be one of no, yes, got 'maybe'"):
        class_labels([["3", "maybe"]], 1, ("no", "yes"))


def test_encoded_rows_keep_their_labels_whatever_the_order_of_the_table():
    rng = np.random.Generator(np.random.Philox(0))
    rows = [
        [
            str(rng.integers(0, 20)),
            COLOUR.values[rng.integers(0, 3)],
            ("no", "yes")[rng.integers(0, 2)],
        ]
        for _ in range(60)
    ]
    columns, classes = ["size", "colour", "Class"], ("no", "yes")
    x, y = encode_rows(rows, columns, [SIZE, COLOUR], classes)
    plain = np.c_[one_hot(rows, columns, [SIZE, COLOUR]), class_labels(rows, 2, classes)]
    assert sorted(np.c_[x, y].tolist()) == sorted(plain.tolist())
    again = encode_rows(rows[::-1], columns, [SIZE, COLOUR], classes)
    assert np.array_equal(x, again[0])
    assert np.array_equal(y, again[1])
