"""Run the tests of the CUDA kernels in Triton's interpreter, which needs no GPU.

In a process of their own: Triton reads TRITON_INTERPRET when it defines a kernel, and this process
may have to compile some.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton exists on Linux alone")

FOLDER = Path(__file__).with_name("cuda")
FILES = sorted({*FOLDER.glob("test_*.py")} - {FOLDER / "test_on_gpu.py"})


def test_kernels_are_the_reference_in_the_interpreter() -> None:
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, FILES)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
