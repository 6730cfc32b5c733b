"""A whole network forward and backward, against the reference; every gradient, ragged batches."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.gates.relaxations import GumbelSoft, GumbelST, HardST, Relaxation, Soft
from lgn_analysis.kernels import cpu
from lgn_analysis.kernels.cpu.runtime import plans
from lgn_analysis.network import LogicLayer
from tests.kernels.cpu.conftest import BATCHES, Case, make_case

TOLERANCE = {"rtol": 1e-4, "atol": 2e-6}


def inputs_of(kind: str, case: Case, batch: int) -> Tensor:
    """Bits as bool, bits as floats, or values between 0 and 1."""
    if kind == "bool":
        return case.bits(batch)
    if kind == "bits":
        return case.bits(batch).float().requires_grad_()
    generator = torch.Generator().manual_seed(batch)
    return torch.rand(batch, case.model.n_features, generator=generator).requires_grad_()


def gradients(outputs: Tensor, case: Case, x: Tensor) -> list[Tensor]:
    cotangent = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    wanted = [*case.logits, *([x] if x.requires_grad else [])]
    return list(torch.autograd.grad(outputs, wanted, cotangent))


def compare(case: Case, x: Tensor) -> None:
    expected = case.model(x, draw=case.key)
    outputs = cpu.training_forward(case.network, case.logits, x, case.key)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
    for got, wanted in zip(gradients(outputs, case, x), gradients(expected, case, x), strict=True):
        scale = wanted.abs().max()
        torch.testing.assert_close(got / scale, wanted / scale, **TOLERANCE)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds NaN, or bits at random, before a kernel writes it."""

    def empty(n: int, dtype: object) -> plans.Array:
        if np.dtype(dtype).kind == "f":  # type: ignore[call-overload]
            return np.full(n, np.nan, dtype=dtype)  # type: ignore[call-overload]
        generator = np.random.default_rng(0)
        noise = generator.integers(256, size=n * np.dtype(dtype).itemsize, dtype=np.uint8)  # type: ignore[call-overload]
        return noise.view(dtype)

    monkeypatch.setattr(plans, "empty", empty)
    monkeypatch.setattr("lgn_analysis.kernels.cpu.network.empty", empty)
    monkeypatch.setattr("lgn_analysis.kernels.cpu.training.run.empty", empty)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("kind", ["bool", "bits", "values"])
def test_outputs_and_every_gradient_are_the_reference(case: Case, kind: str, batch: int) -> None:
    compare(case, inputs_of(kind, case, batch))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("kind", ["bool", "bits", "values"])
@pytest.mark.parametrize(
    "overrides",
    [
        {"depth": 1},
        {"depth": 2},
        {"depth": 5},
        {"grad_factor": 1.5},
        {"n_groups": 7},
        {"n_groups": 70},
        {"n_features": 3},
        {"n_features": 64},
        {"width": 65, "n_classes": 5},
    ],
    ids=lambda overrides: "-".join(f"{name}={value}" for name, value in overrides.items()),
)
@pytest.mark.parametrize("relaxation", [GumbelST(0.7), GumbelSoft(0.7)], ids=lambda r: r.name)
def test_other_shapes_are_the_reference_too(
    relaxation: Relaxation, overrides: dict[str, int], kind: str
) -> None:
    case = make_case(relaxation, **overrides)
    compare(case, inputs_of(kind, case, 70))


@pytest.mark.parametrize("tau", [0.1, 0.5, 4.0])
def test_the_temperature_counts(relaxation: Relaxation, tau: float) -> None:
    compare(case := make_case(type(relaxation)(tau)), case.bits(65))


def test_wide_groups_are_the_reference() -> None:
    compare(case := make_case(GumbelST(), width=2310, depth=2), case.bits(65))
    compare(case := make_case(Soft(), width=2310, depth=2), case.bits(65))


@pytest.mark.parametrize("kind", ["bool", "values"])
def test_the_number_of_threads_changes_no_bit(case: Case, kind: str) -> None:
    before = torch.get_num_threads()
    results = []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        x = inputs_of(kind, case, 130)
        outputs = cpu.training_forward(case.network, case.logits, x, case.key)
        results.append([outputs.detach(), *gradients(outputs, case, x)])
    torch.set_num_threads(before)
    for other in results[1:]:
        for got, wanted in zip(other, results[0], strict=True):
            assert torch.equal(got, wanted)


def test_threads_may_enter_together(case: Case, n_threads: int) -> None:
    x = case.bits(130)
    expected = cpu.training_forward(case.network, case.logits, x, case.key)
    expected_grads = torch.autograd.grad(expected.sum(), case.logits)
    wrong: list[str] = []

    def enter() -> None:
        for _ in range(20):
            outputs = cpu.training_forward(case.network, case.logits, x, case.key)
            grads = torch.autograd.grad(outputs.sum(), case.logits)
            if not torch.equal(outputs, expected):
                wrong.append("outputs differ")
            if not all(map(torch.equal, grads, expected_grads)):
                wrong.append("gradients differ")

    workers = [threading.Thread(target=enter) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("kind", ["bool", "values"])
def test_without_gradients_nothing_is_kept_and_nothing_changes(
    case: Case, kind: str, n_threads: int
) -> None:
    x = inputs_of(kind, case, 1000).detach()
    with torch.no_grad():
        outputs = cpu.training_forward(case.network, case.logits, x, case.key)
    assert torch.equal(outputs, cpu.training_forward(case.network, case.logits, x, case.key))
    assert not outputs.requires_grad


def test_wiring_that_changes_in_place_is_noticed() -> None:
    case = make_case(GumbelST())
    compare(case, case.bits(65))
    case.network.wirings[1][:] = case.network.wirings[1].flip(1)
    compare(case, case.bits(65))


@pytest.mark.parametrize("way", ["data", "numpy", "storage"])
def test_wiring_that_is_written_to_behind_the_versions_back_is_noticed(way: str) -> None:
    case = make_case(GumbelST())
    compare(case, case.bits(65))
    wiring = case.network.wirings[1]
    view = {"data": wiring.data, "numpy": wiring.numpy(), "storage": wiring.view(-1).detach()}[way]
    before = wiring._version
    for place, value in ((3, 5), (69, 7)):
        view.reshape(2, 70)[1, place] = value
        compare(case, case.bits(65))
    if way != "storage":
        assert wiring._version == before


@pytest.mark.parametrize(("value", "layer", "last"), [(41, 0, 40), (-1, 0, 40), (70, 2, 69)])
def test_wiring_out_of_range_is_refused_wherever_it_was_written(
    value: int, layer: int, last: int
) -> None:
    case = make_case(GumbelST())
    bits = case.bits(65)
    cpu.discrete_forward(case.network, case.logits, bits)
    case.network.wirings[layer].numpy()[1, 69] = value
    message = rf"layer {layer} reads input {value}, and it has inputs 0\.\.{last}; write"
    for forward in (
        lambda: cpu.training_forward(case.network, case.logits, bits, case.key),
        lambda: cpu.discrete_forward(case.network, case.logits, bits),
        lambda: cpu.discrete_activity(case.network, case.logits, bits),
    ):
        with pytest.raises(InvalidInputError, match=message):
            forward()


@pytest.mark.parametrize("value", [-1, 41])
def test_one_packed_layer_never_reads_out_of_bounds(value: int) -> None:
    case = make_case(GumbelST())
    layer = case.model.layers[0]
    layer.wiring.data[0, 2] = value
    with pytest.raises(InvalidInputError, match=rf"reads input {value}, and it has inputs 0\.\.40"):
        cpu.gate_layer_packed(cpu.pack_bits(case.bits(9).T), layer.wiring, layer.gates)


def test_a_layer_is_named_by_its_own_number() -> None:
    layer = LogicLayer(20, 40, relaxation=GumbelST(), seed=1, index=4).train()
    layer.wiring.data[1, 7] = 20
    with pytest.raises(InvalidInputError, match="layer 4 reads input 20"):
        layer(torch.zeros(3, 20))


def test_wiring_that_is_exchanged_is_noticed_even_under_the_number_of_a_dead_one() -> None:
    case = make_case(GumbelST())
    plan = plans.find_plan(case.network.wirings, 41, 5)
    assert plans.find_plan(case.network.wirings, 41, 5) is plan
    assert plans.find_plan(case.network.wirings, 41, 7) is not plan
    first, _, third = case.network.wirings
    plan = plans.find_plan((first, third.clone(), third), 41, 5)
    assert plans.find_plan((first, third.clone(), third), 41, 5) is plan
    assert plans.find_plan((first, third.flip(1), third), 41, 5) is not plan


def test_a_network_made_in_inference_mode_runs() -> None:
    with torch.inference_mode():
        case = make_case(GumbelST())
        outputs = cpu.training_forward(case.network, case.logits, case.bits(9), case.key)
    assert outputs.shape == (9, 5)


def test_backward_twice_through_one_graph_adds_the_same_gradient(case: Case) -> None:
    x = case.bits(65)
    outputs = cpu.training_forward(case.network, case.logits, x, case.key).sum()
    first = torch.autograd.grad(outputs, case.logits, retain_graph=True)
    cpu.training_forward(case.network, case.logits, ~x, case.key)  # leases memory in between
    second = torch.autograd.grad(outputs, case.logits)
    for got, wanted in zip(second, first, strict=True):
        assert torch.equal(got, wanted)


def test_logits_that_moved_before_the_backward_pass_are_refused(case: Case) -> None:
    outputs = cpu.training_forward(case.network, case.logits, case.bits(5), case.key)
    with torch.no_grad():
        case.logits[0].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


@pytest.mark.parametrize("relaxation", [Soft(0.8), GumbelSoft(0.8)], ids=lambda r: r.name)
@pytest.mark.parametrize("kind", ["bool", "values"])
def test_second_derivative_of_a_soft_relaxation_is_the_reference(
    relaxation: Relaxation, kind: str
) -> None:
    case = make_case(relaxation)
    x = inputs_of(kind, case, 9)

    def hessian_vector(outputs: Tensor) -> tuple[Tensor, ...]:
        loss = (outputs**2).mean()
        grads = torch.autograd.grad(loss, case.logits, create_graph=True)
        return torch.autograd.grad(sum((g**2).sum() for g in grads), case.logits)

    got = hessian_vector(cpu.training_forward(case.network, case.logits, x, case.key))
    wanted = hessian_vector(case.model(x, draw=case.key))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a / b.abs().max(), b / b.abs().max(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("relaxation", [GumbelST(), HardST()], ids=lambda r: r.name)
def test_second_derivative_of_a_straight_through_gradient_is_refused(
    relaxation: Relaxation,
) -> None:
    case = make_case(relaxation)
    outputs = cpu.training_forward(case.network, case.logits, case.bits(9), case.key)
    grads = torch.autograd.grad((outputs**2).sum(), case.logits, create_graph=True)
    with pytest.raises(NotDifferentiableError, match="soft mode"):
        torch.autograd.grad(grads[0].sum(), case.logits)


def test_memory_is_lent_again_and_never_twice_at_once() -> None:
    case = make_case(GumbelST())
    plan = plans.find_plan(case.network.wirings, 41, 5)
    sizes = {"a": (100, np.float32), "b": (7, np.int64)}
    first, second = plan.lease(sizes), plan.lease(sizes)
    assert first["a"].ctypes.data != second["a"].ctypes.data
    assert first["a"].ctypes.data % 64 == 0
    where = first["a"].ctypes.data
    del first
    assert plan.lease(sizes)["a"].ctypes.data == where
    for n in range(1, 20):  # other sizes do not pile up
        plan.lease({"a": (n, np.float32)})
    assert len(plan._spare) <= 4
