"""Runs that a test kills: a process that has trained once, and so loaded everything, forks them.

    python killed_program.py

For each line ``DIRECTORY BACKEND RELAXATION`` on stdin a child begins the run in the directory, or
goes on with it; its process is named on stdout, and how it ended once it has.
"""

import os
import sys
import tempfile
from pathlib import Path

import torch

from lgn_analysis.data import Dataset
from lgn_analysis.gates.relaxations import RELAXATIONS
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training import resume, train

STEPS = 40


def problem() -> Dataset:
    """Return some bits with classes that a network can learn."""
    x = torch.rand(150, 12, generator=torch.Generator().manual_seed(3)) < 0.5
    y = x[:, :4].sum(-1) % 3
    return Dataset.from_arrays(x, y, x[:60], y[:60], x[60:], y[60:], name="killed")


def live(out: Path, backend: str, relaxation: str) -> None:
    """Train to the end, evaluating so often that most of the time goes into files."""
    if (out / "last.safetensors").exists():
        resume(out, data=problem(), progress=False)
        return
    model = LogicNetwork(
        12, 60, 2, 3, 2.0, relaxation=RELAXATIONS[relaxation](1.0), backend=backend
    )
    train(model, problem(), steps=STEPS, batch_size=32, eval_every=3, out=out, progress=False)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name in ("reference", "cpu"):
            live(Path(folder) / name, name, "gumbel-st")
    for line in sys.stdin:
        directory, *how = line.split()
        child = os.fork()
        if child == 0:
            live(Path(directory), *how)
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        sys.stdout.write(f"{os.waitpid(child, 0)[1]}\n")
        sys.stdout.flush()
