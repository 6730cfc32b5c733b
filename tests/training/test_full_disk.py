"""A disk that is full: a clear error, and the checkpoint before it is intact."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lgn_analysis.checkpoints import read_checkpoint
from lgn_analysis.data import Dataset
from lgn_analysis.training import resume
from tests.tiny import fresh, short
from tests.training.test_resume import assert_same_run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX limits")

# The system refuses every byte of a file beyond the limit, as it does where there is no room.
FILL_AT_14 = """
import resource, sys
from pathlib import Path
import torch
from lgn_analysis.data import Dataset
from lgn_analysis.base.errors import StorageError
from tests.tiny import fresh, short

def fill(step, model, row):
    if step == 14:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))

data = Dataset.from_arrays(*torch.load(sys.argv[2], weights_only=True), name="separable")
try:
    short(fresh(), data, out=Path(sys.argv[1]), callbacks=[fill])
except StorageError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [0, 4000])
def test_a_full_disk_leaves_the_checkpoint_before(
    separable_data: Dataset, tmp_path: Path, room: int
) -> None:
    """With no room at all, and with room for a part of the file."""
    splits = [
        getattr(separable_data, f"{axis}_{split}")
        for split in ("train", "val", "test")
        for axis in "xy"
    ]
    torch.save(splits, tmp_path / "data.pt")
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", FILL_AT_14, str(run), str(tmp_path / "data.pt"), str(room)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    last = run / "last.safetensors"
    assert f"cannot write {last}: " in done.stdout
    assert "File too large" in done.stdout, "what the system said"
    assert "what stood there before is intact; step 7 is kept. Make room, and resume" in done.stdout
    assert read_checkpoint(last).info["step"] == 7
    assert not [*run.glob(".*.tmp")], "nothing half-written stays behind to take up room"
    resume(run, data=separable_data, progress=False)
    short(fresh(), separable_data, out=tmp_path / "whole")
    assert_same_run(tmp_path / "whole", run)
