"""Every malformed input in one table: what is given, and the one sentence that is said of it.

The sentences are compared in full: they name what was expected, what came, and what to do. Whatever is
not the package's own error, a warning included, fails the test.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import lgn_analysis as lgn
from lgn_analysis.base.errors import ConfigError, DataError, LGNError
from lgn_analysis.base.files import LOCK_FILE
from lgn_analysis.cli import main
from lgn_analysis.data import Dataset
from lgn_analysis.training.config_files import read_config
from tests.malformed.commands import PARSED, RUN, Command
from tests.malformed.configurations import TOML, Configuration
from tests.malformed.curvature import ANALYSES, ESTIMATES
from tests.malformed.datasets import ARRAYS, CALLS, X, Y
from tests.malformed.datasets import Arrays as ArraysCase
from tests.malformed.datasets import Call as DataCall
from tests.malformed.files import FILES
from tests.malformed.files import File as FileCase
from tests.malformed.networks import NETWORKS, Call, Small, network
from tests.malformed.papers import YAML
from tests.malformed.probes import PROBES
from tests.malformed.runs import EVALUATION, TRAINING

CONFIGURATIONS = [("toml", case) for case in TOML] + [("yaml", case) for case in YAML]
OBJECTS = [*NETWORKS, *TRAINING, *EVALUATION, *PROBES, *ESTIMATES, *ANALYSES]
COMMANDS = [*PARSED, *RUN]


def name_of(case: Any) -> str | None:
    return getattr(case, "name", None) or getattr(case, "words", None)


def assert_said(error: object, sentence: str, **places: Path) -> None:
    said = str(error)
    for name, path in places.items():
        sentence = sentence.replace(f"{{{name}}}", str(path))
    assert "\n" not in said
    if sentence.endswith("…"):
        assert said.startswith(sentence.removesuffix("…").rstrip())
    else:
        assert said == sentence


def test_the_table_is_as_long_as_it_says_and_no_case_comes_twice() -> None:
    tables = [[f"{kind} {case.name}" for kind, case in CONFIGURATIONS]]
    tables += [list(map(name_of, table)) for table in (ARRAYS, CALLS, FILES, OBJECTS, COMMANDS)]
    least = (85, 30, 20, 15, 180, 70)
    assert all(len(table) >= n for table, n in zip(tables, least, strict=True))
    assert not [name for table in tables for name, count in Counter(table).items() if count > 1]
    assert sum(map(len, tables)) >= 400


@pytest.mark.parametrize(
    ("kind", "case"),
    CONFIGURATIONS,
    ids=[f"{kind}: {case.name:.60}" for kind, case in CONFIGURATIONS],
)
def test_a_configuration(
    kind: str, case: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"config.{kind}"
    path.write_bytes(case.text if isinstance(case.text, bytes) else case.text.encode())
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert_said(caught.value, case.sentence, file=path)
    assert {*tmp_path.iterdir()} == {path}, "nothing in it was run"


@pytest.mark.parametrize("case", ARRAYS, ids=name_of)
def test_arrays(case: ArraysCase) -> None:
    good = {"x_train": X, "y_train": Y, "x_val": X, "y_val": Y, "x_test": X, "y_test": Y}
    with pytest.raises(DataError) as caught:
        Dataset.from_arrays(**{**good, "name": "toy", **case.given})
    assert_said(caught.value, case.sentence)


@pytest.mark.parametrize("case", CALLS, ids=name_of)
def test_an_encoding_or_a_name(case: DataCall) -> None:
    with pytest.raises(DataError) as caught:
        case.work()
    assert_said(caught.value, case.sentence)


@pytest.mark.parametrize("case", FILES, ids=name_of)
def test_a_data_file(case: FileCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / case.name.replace(" ", "-")
    path.write_bytes(case.body)
    with pytest.raises(DataError) as caught:
        case.read(path)
    assert_said(caught.value, case.sentence, file=path)
    assert {*tmp_path.iterdir()} == {path}, "nothing in it was run"


@pytest.fixture(scope="module")
def small(separable_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("small")
    out = folder / "run"
    lgn.train(network(), separable_data, steps=2, batch_size=20, out=out, progress=False)
    (folder / "text").write_text("neither\n")
    save_file({"a": torch.zeros(2)}, folder / "other.safetensors")
    model = network()
    probe = lgn.HessianProbe(model, (separable_data.x_train, separable_data.y_train))
    return Small(model, separable_data, probe, folder)


@pytest.mark.parametrize("case", OBJECTS, ids=name_of)
def test_a_call(case: Call, small: Small) -> None:
    with pytest.raises(LGNError) as caught:
        case.work(small)
    assert_said(caught.value, case.sentence, folder=small.folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands find where they run."""
    place = tmp_path_factory.mktemp("commands")
    words = "train --width 500 --depth 2 --steps 2 --batch-size 16 --no-progress --out"
    assert main([*words.split(), str(place / "run")]) == 0
    lgn.save(lgn.LogicNetwork(960, 500, 1, 10, 1.0), place / "model.safetensors")
    (place / "text").write_text("neither\n")
    (place / "bytes.toml").write_bytes(b"\xff\xfe")
    return place


def contents(folder: Path) -> dict[Path, bytes]:
    """Return what files hold, locks aside: whoever looks into a run holds one."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK_FILE]
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize("case", COMMANDS, ids=name_of)
def test_a_command(
    case: Command,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Status 2, one line on standard error, and no file is touched."""
    monkeypatch.chdir(folder)
    before = contents(folder)
    assert main(case.words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("lgn-analysis: ")
    assert said.endswith("\n")
    assert_said(said[len("lgn-analysis: ") : -1], case.sentence)
    assert contents(folder) == before
