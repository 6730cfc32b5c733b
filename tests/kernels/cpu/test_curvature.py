"""Second derivatives of the soft loss, against automatic differentiation of the reference.

In float64 everything agrees to 1e-12 of its largest entry. In float32 a product passes through some
depth · 2 roundings of values of order one and sums of at most width terms: ``FLOAT32`` is 2**-23 times
64, several times the error that is seen, and is taken of the largest entry of the float64 result.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.relaxations import Soft
from lgn_analysis.kernels import cpu, reference
from lgn_analysis.kernels.cpu.runtime import plans
from lgn_analysis.kernels.interface import NetworkSpec, OutputLoss, Weight
from tests.kernels.cpu.conftest import make_case

FLOAT32 = 64 * 2.0**-23
RTOL = {torch.float32: FLOAT32, torch.float64: 1e-12}
DTYPES = [torch.float32, torch.float64]
LAYERS = [(0, 1, 2), (0,), (1,), (2,), (0, 2), (1, 2)]
SEED = 2**63 + 5


class Problem:
    """A small network, samples and a loss, in float64; ``make`` prepares one of the two backends."""

    def __init__(
        self,
        batch: int = 130,
        *,
        kind: str = "bool",
        tau: float = 0.7,
        layers: tuple[int, ...] = (0, 1, 2),
        loss: str = "cross-entropy",
        **overrides: Any,
    ) -> None:
        case = make_case(Soft(), **overrides | {"dtype": torch.float64})
        self.network: NetworkSpec = case.network
        self.logits = [z.detach() for z in case.logits]
        generator = torch.Generator().manual_seed(batch)
        x = torch.rand(batch, case.model.n_features, generator=generator, dtype=torch.float64)
        # Values that float32 holds too, and not only those between 0 and 1.
        self.x = x < 0.5 if kind == "bool" else (3.0 * x - 1.0).float()
        labels = torch.randint(self.network.n_groups, (batch,), generator=generator)
        cotangent = torch.randn(self.network.n_groups, generator=generator, dtype=torch.float64)
        losses: dict[str, OutputLoss] = {
            "cross-entropy": lambda o: functional.cross_entropy(o, labels, reduction="sum"),
            "linear": lambda o: (o @ cotangent.to(o.dtype)).sum(),
            "square": lambda o: o.square().sum(),
        }
        self.loss, self.tau, self.layers = losses[loss], tau, list(layers)
        self.logits = [z.float().double() for z in self.logits]

    def make(self, backend: Any, dtype: torch.dtype = torch.float64) -> Any:
        logits = [z.to(dtype) for z in self.logits]
        x = self.x if self.x.dtype == torch.bool else self.x.to(dtype)
        return backend.Curvature(
            self.network, logits, x, self.loss, tau=self.tau, layers=self.layers
        )

    def directions(self, k: int) -> Tensor:
        n = sum(self.logits[layer].numel() for layer in self.layers)
        generator = torch.Generator().manual_seed(k)
        return torch.randn(k, n, generator=generator).double()


def close(got: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    """Compare to a part of the largest entry; float64 results, whatever the arithmetic was."""
    assert got.dtype == torch.float64
    atol = RTOL[dtype] * float(wanted.abs().max())
    torch.testing.assert_close(got, wanted, rtol=0.0, atol=atol)


def compare(
    problem: Problem, dtype: torch.dtype, k: int = 3, draws: tuple[int, int] = (3, 4)
) -> None:
    """Compare everything in ``dtype`` with the reference in float64."""
    ours, wanted = problem.make(cpu, dtype), problem.make(reference)
    assert ours.loss == pytest.approx(wanted.loss, rel=RTOL[dtype])
    close(ours.slopes, wanted.slopes, dtype)
    rows = problem.directions(k)
    close(ours.products(rows.to(dtype)), wanted.products(rows), dtype)
    for weight in get_args(Weight):
        got, expected = (c.activation_products(SEED, *draws, weight=weight) for c in (ours, wanted))
        assert got[0].shape == (draws[1], len(problem.layers), len(problem.x))
        for mine, theirs in zip(got, expected, strict=True):
            close(mine, theirs, dtype)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds NaN, or bits at random, before a kernel writes it."""

    def empty(n: int, dtype: Any) -> plans.Array:
        if np.dtype(dtype).kind == "f":
            return np.full(n, np.nan, dtype=dtype)
        noise = np.random.default_rng(0).integers(
            256, size=n * np.dtype(dtype).itemsize, dtype=np.uint8
        )
        return noise.view(dtype)

    monkeypatch.setattr(plans, "empty", empty)
    monkeypatch.setattr("lgn_analysis.kernels.cpu.curvature.operator.empty", empty)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["bool", "values"])
@pytest.mark.parametrize("batch", [1, 15, 63, 64, 65, 129])
def test_ragged_batches_are_the_reference(batch: int, kind: str, dtype: torch.dtype) -> None:
    compare(Problem(batch, kind=kind), dtype)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layers", LAYERS, ids=str)
def test_any_layers_can_be_probed(layers: tuple[int, ...], dtype: torch.dtype) -> None:
    compare(Problem(70, layers=layers), dtype)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "overrides",
    [
        {"depth": 1, "layers": (0,)},
        {"depth": 2, "layers": (0, 1)},
        {"depth": 6, "layers": (1, 3, 4)},
        {"n_classes": 1, "loss": "square"},
        {"n_classes": 70},
        {"group_tau": 0.3},
        {"n_features": 3},
        {"width": 65},
        {"tau": 0.3},
        {"tau": 4.0},
        {"loss": "linear"},
        {"loss": "square"},
    ],
    ids=str,
)
def test_other_shapes_and_losses_are_the_reference(
    overrides: dict[str, Any], dtype: torch.dtype
) -> None:
    compare(Problem(66, **overrides), dtype)


def test_lengths_are_the_reference_where_gates_have_nearly_chosen() -> None:
    """The reference takes roots of differences there, so some 1e-8 of a length are its rounding."""
    problem = Problem(66, tau=0.1)
    got = problem.make(cpu).activation_products(SEED, 0, 2)
    wanted = problem.make(reference).activation_products(SEED, 0, 2)
    narrow = problem.make(cpu, torch.float32).activation_products(SEED, 0, 2)
    for mine, theirs, rough in zip(got, wanted, narrow, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.0, atol=1e-9 * float(theirs.abs().max()))
        close(rough, mine, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_wide_groups_are_the_reference(dtype: torch.dtype) -> None:
    compare(Problem(33, width=2310, depth=2, layers=(0, 1)), dtype)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [0, 1, 2, 3, 4, 5, 16, 17])
def test_directions_do_not_know_each_other(k: int, dtype: torch.dtype) -> None:
    problem = Problem()
    rows = problem.directions(k)
    together = problem.make(cpu, dtype).products(rows.to(dtype))
    assert together.shape == rows.shape
    if k > 0:
        close(together, problem.make(reference).products(rows), dtype)


@pytest.mark.parametrize("draws", [(0, 1), (1, 1), (1, 2), (2, 5), (2**33 - 3, 3), (7, 0)], ids=str)
def test_draws_are_those_that_are_asked_for(draws: tuple[int, int]) -> None:
    problem = Problem(67)
    got = problem.make(cpu).activation_products(1, *draws)
    wanted = problem.make(reference).activation_products(1, *draws)
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_null_vectors_give_nothing(dtype: torch.dtype) -> None:
    problem = Problem()
    ours = problem.make(cpu, dtype)
    rows = problem.directions(3).to(dtype)
    scale = ours.products(rows).abs().max()
    assert not ours.products(torch.zeros_like(rows)).any()
    # Softmax does not see a constant added to a gate's logits.
    constant = rows.view(3, -1, 16)[..., :1].expand(-1, -1, 16).reshape(3, -1)
    assert ours.products(constant).abs().max() < RTOL[dtype] * scale
    # For the same reason every gate's part of a product adds up to nothing.
    sums = ours.products(rows).view(3, -1, 16).sum(-1)
    assert sums.abs().max() < RTOL[dtype] * scale


def test_products_are_finite_differences_of_gradients() -> None:
    problem = Problem(90)
    (row,) = problem.directions(1)
    pieces = [part.view(-1, 16) for part in row.view(3, -1)]

    def gradient(step: float) -> Tensor:
        moved = Problem(90)
        moved.logits = [z + step * v for z, v in zip(problem.logits, pieces, strict=True)]
        slopes = moved.make(cpu).slopes
        z = [z.clone().requires_grad_() for z in moved.logits]
        c = torch.stack([torch.softmax(one / problem.tau, -1) for one in z])
        c = c @ reference.COEFFICIENTS.double()
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad((c * slopes).sum(), z)])

    h = 1e-5
    wanted = (gradient(h) - gradient(-h)) / (2 * h)
    (got,) = problem.make(cpu).products(row[None])
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7 * float(wanted.abs().max()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_number_of_threads_changes_no_bit(dtype: torch.dtype) -> None:
    problem, before = Problem(300), torch.get_num_threads()
    rows = problem.directions(5).to(dtype)
    results = []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        ours = problem.make(cpu, dtype)
        results.append([ours.slopes, ours.products(rows), *ours.activation_products(1, 0, 3)])
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [1, 17, 130])
def test_wide_layers_have_narrow_blocks(
    batch: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lgn_analysis.kernels.cpu.curvature.operator._LEVEL_BYTES", 0)
    compare(Problem(batch), dtype)


def test_more_blocks_than_parts_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lgn_analysis.kernels.cpu.curvature.operator.MAX_PARTS", 2)
    compare(Problem(330), torch.float64)


def test_threads_may_enter_together(n_threads: int) -> None:
    problem = Problem()
    ours, rows = problem.make(cpu), problem.directions(5)
    tasks: list[Callable[[], Tensor]] = [
        lambda: ours.products(rows),
        lambda: ours.products(rows[:1]),
        lambda: torch.cat(ours.activation_products(1, 0, 4)[:1]),
    ]
    expected, wrong = [task() for task in tasks], []

    def enter() -> None:
        for _ in range(10):
            for task, wanted in zip(tasks, expected, strict=True):
                if not torch.equal(task(), wanted):
                    wrong.append(task)

    workers = [threading.Thread(target=enter) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_rows_of_any_layout_and_dtype_are_taken() -> None:
    problem = Problem()
    ours, rows = problem.make(cpu), problem.directions(4)
    wanted = ours.products(rows)
    assert torch.equal(ours.products(rows.T.contiguous().T), wanted)
    assert torch.equal(ours.products(rows.float()), wanted)  # they hold float32 values


def test_logits_and_rows_are_left_alone() -> None:
    problem = Problem()
    rows, logits = problem.directions(2), [z.clone() for z in problem.logits]
    kept = rows.clone()
    ours = problem.make(cpu)
    ours.products(rows)
    ours.activation_products(0, 0, 2)
    assert torch.equal(rows, kept)
    assert all(map(torch.equal, logits, problem.logits))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.logits.__setitem__(0, p.logits[0].half()), "all float32 or all float64"),
        (lambda p: p.logits.__setitem__(0, p.logits[0].float()), "all float32 or all float64"),
        (lambda p: p.logits.pop(), "expected 3 logits"),
        (lambda p: p.logits.__setitem__(1, p.logits[1].to("meta")), "on the CPU"),
        (lambda p: setattr(p, "x", p.x[:0]), "at least one sample"),
        (lambda p: setattr(p, "x", p.x[:, :5]), r"x \[batch, 41\]"),
        (lambda p: setattr(p, "layers", [1, 0]), "rising layers"),
        (lambda p: setattr(p, "layers", []), "rising layers"),
        (lambda p: setattr(p, "layers", [0, 3]), "in 0..2"),
    ],
)
def test_what_cannot_be_done_is_refused(change: Callable[[Problem], Any], message: str) -> None:
    problem = Problem(5)
    change(problem)
    with pytest.raises(InvalidInputError, match=message):
        cpu.Curvature(
            problem.network,
            problem.logits,
            problem.x,
            problem.loss,
            tau=1.0,
            layers=problem.layers,
        )


def test_layers_of_unequal_width_are_refused() -> None:
    problem = Problem(5)
    *first, last = problem.network.wirings
    network = NetworkSpec((*first, last[:, :65].contiguous()), 41, Soft(), 5, 1.0)
    with pytest.raises(InvalidInputError, match=r'one width.*backend="reference"'):
        cpu.Curvature(network, problem.logits, problem.x, problem.loss, tau=1.0, layers=[0])


def test_directions_and_draws_that_do_not_fit_are_refused() -> None:
    ours = Problem(5).make(cpu)
    with pytest.raises(InvalidInputError, match=r"directions \[k, 3360\]"):
        ours.products(torch.zeros(2, 3359))
    with pytest.raises(InvalidInputError, match="draws 0"):
        ours.activation_products(0, 2**33 - 1, 2)
    with pytest.raises(InvalidInputError, match="draw must lie in"):
        ours.activation_products(0, -1, 2)
    with pytest.raises(InvalidInputError, match="one of softmax, variance, got 'none'"):
        ours.activation_products(0, 0, 2, weight="none")
