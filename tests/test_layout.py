"""The house as a whole: its staircase, its public face, its README and its pins."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lgn_analysis as lgn

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Where a page may leave out the path to a file that it names.
PLACES = ("", "lgn_analysis", "docs", "lgn_analysis/kernels", "lgn_analysis/data")
# Whichever torch build is installed brings its own: constraints.txt says so.
UNPINNED = {"torchvision", "triton"}


def test_imports_only_go_down_the_staircase() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_version_is_the_one_in_pyproject() -> None:
    assert lgn.__version__ == PROJECT["version"]


def test_public_names_are_unique() -> None:
    assert len(lgn.__all__) == len(set(lgn.__all__))


@pytest.mark.parametrize("name", lgn.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    thing = getattr(lgn, name)
    if not (inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)):
        pytest.skip("a constant")
    doc = thing.__doc__ or ""  # not getdoc: an inherited docstring describes another class
    assert doc.strip()
    assert not doc.startswith(f"{name}("), "the signature that a dataclass writes for itself"


def test_every_readme_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The python blocks in order, in one namespace, as a reader types them into one session."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [*re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)]
    assert blocks, "the README shows no python"
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in blocks:
        blank = "\n" * text.count("\n", 0, block.start(1))  # a traceback names the README's line
        exec(compile(blank + block[1], str(ROOT / "README.md"), "exec"), namespace)


def declared_requirements() -> list[Requirement]:
    """What pyproject.toml asks for, extras included, without the package's own extras."""
    extras = PROJECT["optional-dependencies"].values()
    declared = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    unique = {line: Requirement(line) for line in declared}.values()
    return [r for r in unique if canonicalize_name(r.name) not in {"lgn-analysis", *UNPINNED}]


@pytest.mark.parametrize("requirement", declared_requirements(), ids=str)
def test_every_requirement_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)])


def test_every_promise_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"tests/[\w/]+(?:\.py|/)", text))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "README.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`|`(\w+\.py)`", text))
    names = {first or second for first, second in named}
    missing = [name for name in names if not any((ROOT / p / name).exists() for p in PLACES)]
    placeholders = re.compile("NAME|runs/")
    assert sorted(name for name in missing if not placeholders.search(name)) == []


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
