"""A program that prints, as JSON, what work was predicted to take and what it took, in bytes.

What it took is the rise of the largest resident set that the kernel has seen since it was told to
forget the last one. It runs in a process of its own: what others have touched would count too.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import lgn_analysis as lgn
from lgn_analysis.data.registry import DATASETS, dataset_bytes
from lgn_analysis.gates.footprint import evaluation_bytes, network_bytes, training_bytes
from lgn_analysis.hessian.estimators.eigen import least_bytes, top_eigenpairs
from lgn_analysis.hessian.operators.dense import dense_bytes
from tests.tiny import random_bits

N_FEATURES, WIDTH, DEPTH, N_CLASSES = 256, 12_000, 4, 10
SIZES = (1200, 1100, 300)


class Falling:
    """The diagonal of falling numbers, which takes no memory of its own."""

    def __init__(self, n: int) -> None:
        self.values = torch.linspace(1.0, 1e-3, n)
        self.shape, self.dtype, self.device = (n, n), torch.float32, torch.device("cpu")
        self.slices = {"all": slice(0, n)}

    def matvec(self, v: torch.Tensor) -> torch.Tensor:
        return self.values * v

    def matmat(self, v: torch.Tensor) -> torch.Tensor:
        return self.values.unsqueeze(1) * v


def network(width: int = WIDTH, n_features: int = N_FEATURES, **options: Any) -> lgn.LogicNetwork:
    return lgn.LogicNetwork(n_features, width, DEPTH, N_CLASSES, 10.0, **options)


def small_probe(width: int) -> lgn.HessianProbe:
    sample = (bits.x_train[:64, :width], bits.y_train[:64])
    return lgn.HessianProbe(network(width, width), sample)


def data() -> lgn.Dataset:
    parts = [(random_bits(n, N_FEATURES, seed=n), torch.arange(n) % N_CLASSES) for n in SIZES]
    return lgn.Dataset.from_arrays(*(array for part in parts for array in part), name="bits")


def resident(what: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{what}:\s+(\d+) kB", status)[1])


def peak(work: Callable[[], object]) -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept would serve again, and not count
    Path("/proc/self/clear_refs").write_text("5")  # forget the largest resident set so far
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def train(model: lgn.LogicNetwork, draws: int = 1) -> object:
    return lgn.train(model, bits, steps=2, batch_size=512, draws_per_step=draws, progress=False)


def training(draws: int = 1, **options: Any) -> tuple[int, int]:
    model = network(**options)
    predicted = training_bytes(model, batch_size=512, sizes=SIZES, draws=draws)
    return predicted, peak(lambda: train(model, draws))


def evaluation() -> tuple[int, int]:
    model = network(relaxation=lgn.GumbelST())
    test = (bits.x_train[:1024], bits.y_train[:1024])
    return evaluation_bytes(model, [1024]), peak(lambda: lgn.evaluate(model, test))


def dense_hessian() -> tuple[int, int]:
    probe = small_probe(20)
    return 2 * 8 * probe.shape[0] ** 2, peak(probe.dense)


def dense_eigenvalues() -> tuple[int, int]:
    operator = Falling(1200)
    return dense_bytes(1200), peak(lambda: top_eigenpairs(operator, k=4, method="dense"))


def lanczos() -> tuple[int, int]:
    operator = Falling(60_000)
    beside, _ = least_bytes(60_000, 4, 10)
    kept = (4 * 10 + 48 + 2) * 60_000 * 4
    return beside + kept, peak(lambda: top_eigenpairs(operator, k=10, max_matvecs=120))


def curvature() -> tuple[int, int]:
    probe = lgn.HessianProbe(network(4000), (bits.x_train[:800], bits.y_train[:800]))
    predicted = probe.operator._bytes * 800
    return predicted, peak(lambda: probe @ torch.ones(probe.shape[0]))


def data_set() -> tuple[int, int]:
    predicted = dataset_bytes(DATASETS["digits"], 600)
    return predicted, peak(lambda: lgn.load_dataset("digits", 600))


if __name__ == "__main__":
    torch.set_num_threads(1)
    bits = data()
    # What is imported and compiled once is no part of the work.
    for kind in (lgn.Soft(), lgn.GumbelST(), lgn.HardST()):
        train(network(200, relaxation=kind))
    train(network(200, dtype=torch.float64))
    lgn.load_dataset("digits")
    probe = small_probe(10)
    probe.dense()
    probe @ torch.ones(probe.shape[0])
    top_eigenpairs(Falling(50), k=2, method="dense")
    found = {
        "network": (
            network_bytes(N_FEATURES, 5 * WIDTH, DEPTH, torch.float32),
            peak(lambda: network(5 * WIDTH)),
        ),
        "training, hard gates": training(relaxation=lgn.GumbelST()),
        "training, several draws": training(3, relaxation=lgn.GumbelST()),
        "training, hard gates without noise": training(relaxation=lgn.HardST()),
        "training, soft gates": training(relaxation=lgn.Soft()),
        "training, automatic differentiation": training(width=1200, dtype=torch.float64),
        "evaluation": evaluation(),
        "dense Hessian": dense_hessian(),
        "dense eigenvalues": dense_eigenvalues(),
        "Lanczos basis": lanczos(),
        "shared by products": curvature(),
        "data set": data_set(),
    }
    sys.stdout.write(json.dumps(found))
