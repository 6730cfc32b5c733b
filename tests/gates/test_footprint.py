"""What work was predicted to take, and what it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lgn_analysis as lgn
from lgn_analysis.gates.footprint import training_bytes

pytestmark = pytest.mark.xdist_group(__name__)  # a fixture for all of them, made once


@pytest.mark.parametrize("kind", [lgn.Soft(), lgn.GumbelST()], ids=["floats", "bits"])
def test_a_larger_batch_takes_more_by_what_its_activations_take(kind: lgn.Relaxation) -> None:
    model = lgn.LogicNetwork(12, 1200, 2, 3, 2.0, relaxation=kind, backend="reference")
    small, large = (
        training_bytes(model, batch_size=batch, sizes=(9000, 1, 1)) for batch in (2048, 4096)
    )
    # Automatic differentiation keeps four numbers of four bytes a gate and sample.
    assert large - small == 2048 * (12 + 2 * 1200) * 4 * 4


@pytest.mark.parametrize("backend", [None, "reference"])
def test_several_draws_take_one_more_number_a_logit(backend: str | None) -> None:
    model = lgn.LogicNetwork(12, 1200, 2, 3, 2.0, backend=backend)
    one, three = (
        training_bytes(model, batch_size=64, sizes=(900, 1, 1), draws=draws) for draws in (1, 3)
    )
    assert three - one == 2 * 1200 * 16 * 4


@pytest.fixture(scope="module")
def peaks() -> dict[str, list[int]]:
    """Predicted and measured bytes of each kind of work, measured in a process of its own."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux says how much a process took at most")
    settings = {
        "MALLOC_MMAP_THRESHOLD_": "100000",  # what is freed goes back, and is not taken up again
        "MALLOC_TRIM_THRESHOLD_": "0",
        "OMP_NUM_THREADS": "1",
    }
    program = [sys.executable, "-m", "tests.peak_memory"]
    done = subprocess.run(
        program,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | settings,
        cwd=Path(__file__).parents[2],
    )
    found: dict[str, list[int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "work",
    [
        "network",
        "training, hard gates",
        "training, several draws",
        "training, hard gates without noise",
        "training, soft gates",
        "training, automatic differentiation",
        "evaluation",
        "dense Hessian",
        "dense eigenvalues",
        "Lanczos basis",
        "shared by products",
        "data set",
    ],
)
def test_work_takes_what_was_predicted(work: str, peaks: dict[str, list[int]]) -> None:
    """At most a tenth more, and at least three fifths of it; the kernel's counts err by a megabyte."""
    predicted, measured = peaks[work]
    assert 0.6 * predicted - 1e6 <= measured <= 1.1 * predicted + 1e6
