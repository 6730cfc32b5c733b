from __future__ import annotations

import pytest

from lgn_analysis.base.errors import DataError
from lgn_analysis.data import breast_cancer, load_dataset

LINES = [
    "no-recurrence-events,30-39,premeno,30-34,0-2,no,3,left,left_low,no",
    "no-recurrence-events,40-49,premeno,20-24,0-2,no,2,right,right_up,no",
    "no-recurrence-events,60-69,ge40,15-19,0-2,no,2,right,left_up,no",
    "no-recurrence-events,50-59,premeno,25-29,3-5,?,2,left,right_up,yes",
    "no-recurrence-events,40-49,premeno,0-4,0-2,no,2,right,right_low,no",
    "recurrence-events,50-59,premeno,15-19,0-2,no,2,left,left_low,no",
    "recurrence-events,40-49,premeno,40-44,0-2,no,1,left,left_low,no",
    "recurrence-events,60-69,ge40,50-54,0-2,no,2,right,left_up,yes",
    "recurrence-events,50-59,ge40,35-39,0-2,no,2,left,?,no",
]


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    monkeypatch.setattr(breast_cancer, "N_ROWS", 7)
    monkeypatch.setattr(breast_cancer, "N_VALIDATION", 2)
    monkeypatch.setattr(breast_cancer, "N_TEST", 2)


def write_uci(root, lines=LINES):
    folder = root / "breast-cancer"
    folder.mkdir(parents=True)
    (folder / "breast-cancer.data").write_text("\n".join(lines) + "\n")


def test_there_are_51_features_as_in_difflogic():
    assert breast_cancer.N_FEATURES == 51


def test_rows_become_nine_bits_and_keep_their_labels(tmp_path):
    write_uci(tmp_path)
    data = load_dataset("breast-cancer", root=tmp_path, download=False)
    names = [f"{a.name}={value}" for a in breast_cancer.ATTRIBUTES for value in a.values]
    loaded = []
    for split in ("train", "val", "test"):
        for x, y in zip(*data.split(split), strict=True):
            values = [
                name.split("=")[1] for name, bit in zip(names, x.tolist(), strict=True) if bit
            ]
            loaded.append(",".join([breast_cancer.CLASSES[y], *values]))
    assert sorted(loaded) == sorted(line for line in LINES if "?" not in line)


def test_openml_gives_the_same_data_as_the_file_in_another_order(tmp_path, write_openml_cache):
    write_uci(tmp_path / "uci")
    attributes = [(a.name, a.values) for a in breast_cancer.ATTRIBUTES]
    attributes.append(("Class", breast_cancer.CLASSES))
    rows = []
    for line in reversed(LINES):
        label, *values = line.split(",")
        rows.append(",".join(v if v == "?" else f"'{v}'" for v in [*values, label]))
    write_openml_cache(
        tmp_path / "openml",
        data_id=13,
        name="breast-cancer",
        attributes=attributes,
        target="Class",
        lines=rows,
    )
    uci = load_dataset("breast-cancer", root=tmp_path / "uci", download=False)
    openml = load_dataset("breast-cancer", root=tmp_path / "openml")
    assert uci.fingerprint == openml.fingerprint
    assert [len(uci.split(s)[1]) for s in ("train", "val", "test")] == [3, 2, 2]


def test_a_file_that_lacks_lines_is_refused(tmp_path):
    write_uci(tmp_path, LINES[1:])
    with pytest.raises(DataError, match="should hold 7 rows without missing values, got 6"):
        load_dataset("breast-cancer", root=tmp_path, download=False)


def test_the_wisconsin_data_set_is_not_taken_for_it(tmp_path):
    write_uci(tmp_path, ["842302,M,17.99,10.38,122.8,1001,0.1184,0.2776,0.3001,0.1471"])
    with pytest.raises(DataError, match="should hold 7 rows"):
        load_dataset("breast-cancer", root=tmp_path, download=False)


def test_a_missing_file_says_where_to_put_it(tmp_path):
    with pytest.raises(DataError, match=r"put UCI's breast-cancer.data into"):
        load_dataset("breast-cancer", root=tmp_path, download=False)
