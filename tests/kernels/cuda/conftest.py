"""The Triton kernels against the reference: on a GPU, or in Triton's interpreter on the CPU.

``tests/kernels/test_cuda_interpreter.py`` runs this folder in processes of their own with
TRITON_INTERPRET=1, because Triton reads that flag when a kernel is defined. Run directly, the tests
need a CUDA device and skip without one.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

HERE = Path(__file__).parent
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
RUNS = INTERPRETED or torch.cuda.is_available()

if importlib.util.find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]
elif not RUNS:
    # Skipped for want of a GPU, one file stands for all; named on the command line, each says so.
    collect_ignore = [path.name for path in HERE.glob("test_*.py") if path.name != "test_on_gpu.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("cuda")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where kernels run: the CPU under the interpreter, a GPU otherwise."""
    if not RUNS:
        pytest.skip("no CUDA device; test_cuda_interpreter.py runs the kernels in the interpreter")
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture
def gpu(device: torch.device) -> torch.device:
    """A GPU, whatever the interpreter could do."""
    if device.type != "cuda":
        pytest.skip("needs a CUDA device, not Triton's interpreter")
    return device


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill new tensors with NaN and nonsense, so that what a kernel forgets to write shows."""

    def poison(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return tensor.fill_(float("nan"))
        return tensor.fill_(torch.iinfo(tensor.dtype).max) if tensor.dtype != torch.bool else tensor

    for name in ("empty", "empty_like"):
        original = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, f=original, **k: poison(f(*a, **k)))
