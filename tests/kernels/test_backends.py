"""Which backend is chosen, and what is said where it cannot be."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.kernels import BACKENDS, reference, select_backend, select_network_backend
from lgn_analysis.network import LogicNetwork

CPU = torch.device("cpu")


def run_python(program: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=f"unknown backend 'tpu'; use one of {BACKENDS[0]}"):
        LogicNetwork(4, 4, 1, 2, 1.0, backend="tpu")


def test_the_reference_can_be_forced_and_runs_layer_by_layer() -> None:
    assert select_backend(CPU, "reference") is reference
    assert select_network_backend(CPU, "reference", parametrisation="gates16") is None


def test_a_cuda_model_on_the_cpu_is_refused_when_it_runs() -> None:
    pytest.importorskip("triton")
    model = LogicNetwork(4, 4, 1, 2, 1.0, backend="cuda")  # may yet be moved to a GPU
    with pytest.raises(
        InvalidInputError, match=r'move the model and the data \(model.to\("cuda"\)\)'
    ):
        model(torch.zeros(3, 4, dtype=torch.bool))


def test_gradients_are_float32_or_bfloat16() -> None:
    with pytest.raises(InvalidInputError, match=r"torch.float32 or torch.bfloat16, got torch.int8"):
        LogicNetwork(4, 4, 1, 2, 1.0, gradient_dtype=torch.int8)


def test_no_backend_is_imported_before_it_is_chosen() -> None:
    program = """
        import sys, torch, lgn_analysis as lgn
        lgn.LogicNetwork(4, 4, 1, 2, 1.0, backend="reference")(torch.zeros(3, 4))
        print([name for name in sys.modules if name.startswith("lgn_analysis.kernels.")])
    """
    loaded = run_python(_dedented(program))
    assert "lgn_analysis.kernels.reference" in loaded
    assert "cuda" not in loaded


def test_without_triton_the_package_works_and_cuda_says_what_is_missing() -> None:
    program = """
        import sys
        sys.modules["triton"] = None  # as where it is not installed
        import torch, lgn_analysis as lgn
        from lgn_analysis.base.errors import MissingDependencyError
        lgn.LogicNetwork(4, 4, 1, 2, 1.0, backend="reference")(torch.zeros(3, 4))
        try:
            lgn.LogicNetwork(4, 4, 1, 2, 1.0, backend="cuda")
        except MissingDependencyError as error:
            print(error)
    """
    assert "needs the package triton" in run_python(_dedented(program))


def _dedented(program: str) -> str:
    return "\n".join(line[8:] for line in program.splitlines())
