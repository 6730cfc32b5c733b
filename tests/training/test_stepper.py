"""Training steps, whoever takes them: a backend as a whole, or autograd and Adam."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lgn_analysis.data import Dataset
from lgn_analysis.gates.relaxations import RELAXATIONS, GumbelST
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training import stepper as module
from lgn_analysis.training.stepper import Steps

LR = 0.02


def make_steps(
    data: Dataset, backend: str | None, name: str = "gumbel-st", **options: object
) -> Steps:
    model = LogicNetwork(
        12,
        30,
        2,
        3,
        2.0,
        relaxation=RELAXATIONS[name](0.9),
        seed=1,
        backend=backend,
        **options,  # type: ignore[arg-type]
    )
    return Steps(model, data.x_train, data.y_train, batch_size=20, lr=LR, seed=7)


def nothing(n: int) -> None:
    pass


def parameters(steps: Steps) -> list[Tensor]:
    return [parameter.detach() for parameter in steps.model.parameters()]


@pytest.mark.parametrize("name", RELAXATIONS)
def test_a_backend_takes_the_steps_that_autograd_takes(name: str, separable_data: Dataset) -> None:
    fast = make_steps(separable_data, None, name)
    slow = make_steps(separable_data, "reference", name)
    assert fast.model.network_backend is not None
    assert slow.model.network_backend is None
    assert fast.advance(0, 6, nothing) == pytest.approx(slow.advance(0, 6, nothing), rel=1e-5)
    for mine, theirs in zip(parameters(fast), parameters(slow), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0.05 * LR)
    for mine, theirs in zip(
        fast.optimiser.state.values(), slow.optimiser.state.values(), strict=True
    ):
        assert mine["step"] == theirs["step"] == 6
        torch.testing.assert_close(mine["exp_avg"], theirs["exp_avg"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("backend", [None, "reference"])
def test_steps_do_not_depend_on_how_many_are_taken_at_a_time(
    backend: str | None, separable_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_steps(separable_data, backend)
    whole.advance(0, 9, nothing)
    monkeypatch.setattr(module, "MOST_AT_ONCE", 2)
    pieces = make_steps(separable_data, backend)
    taken: list[int] = []
    pieces.advance(0, 4, taken.append)
    pieces.advance(4, 9, taken.append)
    assert sum(taken) == 9
    for one, other in zip(parameters(whole), parameters(pieces), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_each_epoch_takes_every_sample_once(separable_data: Dataset) -> None:
    steps = make_steps(separable_data, None)
    per_epoch = len(separable_data.y_train) // 20
    epochs = [
        torch.cat([steps._batch(epoch * per_epoch + place) for place in range(per_epoch)])
        for epoch in range(2)
    ]
    for epoch in epochs:
        assert len(epoch.unique()) == 20 * per_epoch
    assert not torch.equal(*epochs)


def test_float64_and_layers_changed_by_hand_go_through_autograd(separable_data: Dataset) -> None:
    steps = make_steps(separable_data, None, dtype=torch.float64)
    twin = make_steps(separable_data, "reference", dtype=torch.float64)
    changed = make_steps(separable_data, None)
    changed.model.layers[1].relaxation = GumbelST(0.3)
    assert changed.model.network_backend is None
    changed.advance(0, 2, nothing)
    assert steps.advance(0, 3, nothing) == pytest.approx(twin.advance(0, 3, nothing), rel=1e-12)


def test_hooks_are_called_and_what_is_frozen_stays(separable_data: Dataset) -> None:
    steps = make_steps(separable_data, None)
    calls: list[Tensor] = []
    handle = steps.model.register_forward_hook(lambda module, x, y: calls.append(y))
    steps.advance(0, 2, nothing)
    assert len(calls) == 2
    handle.remove()
    frozen = steps.model.layers[0].logits.requires_grad_(False)
    before = frozen.clone()
    steps.advance(2, 4, nothing)
    torch.testing.assert_close(frozen, before, rtol=0, atol=0)
    steps.model.layers[0].logits.requires_grad_(True)
    steps.advance(4, 6, nothing)
    assert not torch.equal(frozen, before)
    assert len(calls) == 2


def test_a_schedule_of_tau_by_hand_is_obeyed(separable_data: Dataset) -> None:
    trained = []
    for backend in (None, "reference"):
        steps = make_steps(separable_data, backend)
        for first, tau in ((0, 2.0), (2, 0.4)):
            relaxation = GumbelST(tau)
            steps.model.relaxation = relaxation
            for layer in steps.model.layers:
                layer.relaxation = relaxation
            steps.advance(first, first + 2, nothing)
        trained.append(parameters(steps))
    for mine, theirs in zip(*trained, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0.05 * LR)


@pytest.mark.parametrize("change", ["group_tau", "wiring", "data", "parameter"])
def test_a_network_changed_between_steps_is_trained_as_it_is(
    separable_data: Dataset, change: str
) -> None:
    """As PyTorch would: a parameter that the optimiser does not know stays as it is."""
    trained = []
    for backend in (None, "reference"):
        steps = make_steps(separable_data, backend)
        steps.advance(0, 2, nothing)
        layer = steps.model.layers[1]
        if change == "group_tau":
            steps.model.group_sum.group_tau = 0.5
        elif change == "wiring":
            layer.wiring.data[:] = layer.wiring.flip(1)
        elif change == "data":
            layer.logits.data = layer.logits.detach().flip(0)
        else:
            layer.logits = torch.nn.Parameter(layer.logits.detach().clone())
        steps.advance(2, 5, nothing)
        trained.append([z.detach().clone() for z in parameters(steps)])
    for mine, theirs in zip(*trained, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0.05 * LR)
