"""Work that takes more than the half mebibyte that a system says is free, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

import lgn_analysis as lgn
from lgn_analysis.data import Dataset
from lgn_analysis.gates.footprint import require_training_memory
from lgn_analysis.hessian import DenseOperator, hutchpp_trace, spectral_density, xtrace_trace
from tests.tiny import fresh, random_bits

MIB = 2**20


def wide(width: int = 3000, depth: int = 4) -> lgn.LogicNetwork:
    return lgn.LogicNetwork(12, width, depth, 3, 2.0, seed=1)


def sample(n: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    return random_bits(n, 12), torch.arange(n) % 3


def operator(n: int = 500) -> DenseOperator:
    return DenseOperator(torch.eye(n, dtype=torch.float64))


@dataclass(frozen=True)
class Refusal:
    """Work that is made with memory and asked for without.

    Attributes:
        name: of the case.
        make: makes what the work needs, before memory is pretended to be short.
        work: what is refused.
        sentence: a pattern of what it says.
    """

    name: str
    make: Callable[[], object]
    work: Callable[..., object]
    sentence: str


HALF = r"need [\d.]+ MiB and 512 KiB are free; "
REFUSALS = [
    Refusal(
        "network",
        lambda: None,
        lambda _: wide(),
        r"the logits and the wiring of 4 x 3000 gates " + HALF + "lower width or depth",
    ),
    Refusal(
        "training",
        wide,
        lambda model: require_training_memory(model, batch_size=64, sizes=(600, 60, 60)),
        "the steps and evaluations of 4 x 3000 gates in batches of 64 "
        + HALF
        + "lower batch_size, width or depth",
    ),
    Refusal(
        "evaluation",
        wide,
        lambda model: lgn.evaluate(model, sample()),
        "the activations of 4 x 3000 gates on 600 samples " + HALF + "lower batch_size",
    ),
    Refusal(
        "products",
        wide,
        lambda model: lgn.HessianProbe(model, sample()),
        "the activations and gradients of 4 x 3000 gates on 600 samples, which products share, "
        + HALF
        + "lower max_bytes, which takes longer, or probe fewer samples",
    ),
    Refusal(
        "products of a module",
        lambda: torch.nn.Sequential(
            torch.nn.Linear(12, 300), torch.nn.Tanh(), torch.nn.Linear(300, 3)
        ),
        lambda module: lgn.HessianProbe(module, (sample()[0].float(), sample()[1]), check=False),
        "the graphs of the gradient over 600 samples, which are kept, "
        + HALF
        + "lower max_bytes, which takes longer, or probe fewer samples",
    ),
    Refusal(
        "dense Hessian",
        lambda: lgn.HessianProbe(fresh(width=12), sample(20)),
        lambda probe: probe.dense(),
        r"the 384 rows of a dense Hessian, and their transpose, " + HALF + "use products",
    ),
    Refusal(
        "dense eigenvalues",
        operator,
        lambda op: lgn.hessian.top_eigenpairs(op, k=2, method="dense"),
        "the eigenvalues of a dense matrix of 500 rows " + HALF + "use method='lanczos'",
    ),
    Refusal(
        "Lanczos basis",
        lambda: operator(2000),
        lambda op: lgn.hessian.top_eigenpairs(op, k=5, method="lanczos"),
        "68 Lanczos vectors of 2000 numbers, and 5 pairs, " + HALF + "lower k, or give a max_bytes",
    ),
    Refusal(
        "density",
        lambda: operator(2000),
        lambda op: spectral_density(op, method="lanczos", deflate=0),
        "8 recurrences of 40 vectors of 2000 numbers " + HALF + "lower steps, or give a max_bytes",
    ),
    Refusal(
        "Hutchinson",
        lambda: operator(2000),
        lambda op: lgn.hessian.hutchinson_trace(op, n_probes=2),
        "16 probes of 2000 numbers at a time, and what is kept beside them, "
        + HALF
        + "lower max_bytes, or probe fewer parameters",
    ),
    Refusal(
        "Hutch++",
        lambda: operator(2000),
        lambda op: hutchpp_trace(op, n_probes=2, sketch=50),
        "16 probes of 2000 numbers at a time, and what is kept beside them, " + HALF,
    ),
    Refusal(
        "XTrace",
        lambda: operator(500),
        lambda op: xtrace_trace(op, n_probes=100, max_bytes=2 * MIB),
        "100 more test vectors of 500 numbers " + HALF + "ask for fewer, or lower max_bytes",
    ),
    Refusal(
        "landscape",
        wide,
        lambda model: lgn.landscape(model, sample(8), dims=1, grid=3),
        "1 directions of 192000 numbers, and the points along them, " + HALF,
    ),
    Refusal(
        "gap anatomy",
        wide,
        lambda model: lgn.gap_anatomy(model, sample(), batch_size=100),
        "the derivatives of 4 x 3000 gates on 100 samples " + HALF + "lower batch_size",
    ),
    Refusal(
        "thermometer",
        lambda: torch.zeros(100, 3000),
        lambda x: lgn.thermometer(x, [0.25, 0.5]),
        "the bits of 100 samples of 3000 values at 2 thresholds need 586 KiB and 512 KiB are free; "
        "use fewer thresholds",
    ),
    Refusal(
        "own arrays",
        lambda: torch.zeros(1000, 200),
        lambda x: Dataset.from_arrays(*[x, torch.arange(1000) % 2] * 3, name="own"),
        r"the checks of x_train, \[1000, 200\] numbers that are to be bits, need 586 KiB and 512 KiB "
        "are free; give it as bool",
    ),
]
