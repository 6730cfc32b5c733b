"""Kernels are compiled before runs begin, once, and those alone that the runs call."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from lgn_analysis.experiments import find_preset
from lgn_analysis.experiments.discovery import all_specs
from lgn_analysis.experiments.specs import ProbePlan
from lgn_analysis.experiments.sweep import compilation
from lgn_analysis.experiments.sweep.compilation import PARTS, compile_kernels, parts_of
from lgn_analysis.gates.relaxations import RELAXATIONS
from lgn_analysis.kernels.cpu.runtime import compiling

SETTING = find_preset("smoke").pairs[0]
BARE = replace(SETTING, probes=ProbePlan())


@pytest.fixture
def marks(tmp_path, monkeypatch):
    """An empty folder of marks, and the shares that are compiled, which only mark."""
    monkeypatch.setattr(compiling, "cache_folder", lambda: tmp_path)
    shares = []

    def mark(parts, bar, running):
        shares.append([part.name for part in parts])
        for part in parts:
            compiling.mark_of(part.name).touch()

    monkeypatch.setattr(compilation, "_compile", mark)
    return shares


@pytest.mark.parametrize(
    ("specs", "parts"),
    [
        (BARE.runs("soft"), {"soft", "evaluation"}),
        (BARE.runs("cage"), {"hard", "evaluation"}),
        (SETTING.runs("gumbel-st"), {"hard", "evaluation", "curvature32", "curvature64"}),
        (SETTING.runs("gumbel-st", tau=0.5), {"hard", "evaluation", "curvature32"}),
        (find_preset("smoke").overhead[0].setting.timings(find_preset("smoke").overhead[0].plan),
         {"soft", "hard"}),
        (all_specs(find_preset("paper")), set()),
        (all_specs(find_preset("quick")), set(PARTS)),
    ],
    ids=["soft", "hard", "probed", "traced", "timed", "on GPUs", "all"],
)  # fmt: skip
def test_runs_ask_for_what_they_call(specs, parts):
    assert parts_of(specs) == parts


def test_a_part_is_compiled_once_and_a_family_by_one_process(marks):
    compile_kernels(PARTS, show=False)
    assert sorted(marks) == [["curvature64", "curvature32"], ["soft", "hard", "evaluation"]]
    compile_kernels(PARTS, show=False)
    assert len(marks) == 2


def test_one_family_is_shared_out(marks):
    compile_kernels(("soft", "evaluation"), workers=2, show=False)
    assert sorted(marks) == [["evaluation"], ["soft"]]


def test_one_worker_compiles_a_family_after_the_other(marks):
    compile_kernels(("hard", "evaluation", "curvature64"), workers=1, show=False)
    assert marks == [["curvature64"], ["hard", "evaluation"]]


def test_a_mark_holds_for_its_sources_alone(marks, monkeypatch):
    compile_kernels(("soft",), show=False)
    monkeypatch.setattr(compiling, "_SOURCES", "others")
    assert not compilation.compiled(["soft"])


def test_what_cannot_be_compiled_beforehand_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(compiling, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    compile_kernels(("soft",), show=False)
    assert "could not be compiled beforehand (exit status 1)" in caplog.text
    assert not compilation.compiled(["soft"])


def test_ctrl_c_ends_the_processes_that_compile(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "cache_folder", lambda: tmp_path)
    waits = tmp_path / "waits"
    waits.write_text("#!/bin/sh\nexec sleep 600\n")
    waits.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(waits))

    def interrupted(futures, timeout):
        time.sleep(0.5)  # until the processes have begun
        raise KeyboardInterrupt

    monkeypatch.setattr(compilation, "wait", interrupted)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        compile_kernels(PARTS, show=False)
    assert time.monotonic() - begun < 60


HERE = f"from {compilation.__name__} import compile_here; compile_here()"
RUNS = """
import tempfile
from pathlib import Path
from lgn_analysis.experiments import find_preset
from lgn_analysis.experiments.discovery import all_specs
from lgn_analysis.experiments.sweep.execution import execute

for spec in all_specs(find_preset("smoke")):
    if spec.training.seed == 0:
        with tempfile.TemporaryDirectory() as folder:
            execute(spec, Path(folder))
"""


@pytest.mark.slow
def test_runs_compile_nothing_after_all_parts_are_compiled(tmp_path, monkeypatch):
    """In an empty cache; each part has as many kernels as it says."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for name, part in PARTS.items():
        alone = {**environment, "NUMBA_CACHE_DIR": str(tmp_path / name)}
        command = [sys.executable, "-c", HERE, name]
        said = subprocess.run(command, env=alone, capture_output=True, text=True, check=True)
        lines = said.stdout.splitlines()
        assert len(lines) == part.kernels, lines
        assert "from the cache" not in lines
    subprocess.run(
        [sys.executable, "-c", HERE, *PARTS], env=environment, capture_output=True, check=True
    )
    made = subprocess.run(
        [sys.executable, "-c", RUNS], env=environment, capture_output=True, text=True, check=True
    )
    assert "compiling" not in made.stderr


def test_every_relaxation_belongs_to_a_part():
    assert {compilation.training_part(name) for name in RELAXATIONS} == {"soft", "hard"}
