"""A network that is told to use the CUDA backend, against its twin on the reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.gates.relaxations import RELAXATIONS, GumbelSoft
from lgn_analysis.metrics import evaluate, gate_usage
from lgn_analysis.network import LogicNetwork


def coins(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) < 0.5


@pytest.fixture
def make_twins(device: torch.device) -> Callable[..., tuple[LogicNetwork, LogicNetwork]]:
    def build(name: str, **options: object) -> tuple[LogicNetwork, LogicNetwork]:
        relaxation = RELAXATIONS[name](0.9)
        models = [
            LogicNetwork(11, 18, 2, 3, 2.0, relaxation=relaxation, backend=backend, **options)  # type: ignore[arg-type]
            for backend in ("cuda", "reference")
        ]
        return models[0].to(device), models[1].to(device)

    return build


@pytest.mark.parametrize("mode", [None, "soft", "noisy", "discrete"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_mode_is_the_reference(
    mode: str | None,
    dtype: torch.dtype,
    make_twins: Callable[..., tuple[LogicNetwork, LogicNetwork]],
) -> None:
    mine, theirs = make_twins("gumbel-st", dtype=dtype)
    x = coins(2, 5, 11).to(mine.device)
    for inputs in (x, x.to(dtype), x.to(torch.uint8)):
        got = mine(inputs, mode=mode, draw=4)
        assert got.shape == (2, 5, 3)
        torch.testing.assert_close(got, theirs(inputs, mode=mode, draw=4), rtol=1e-5, atol=1e-5)


def test_a_plain_training_loop_is_the_reference(
    make_twins: Callable[..., tuple[LogicNetwork, LogicNetwork]],
) -> None:
    twins = make_twins("gumbel-st", grad_factor=1.2)
    x, y = coins(9, 11).to(twins[0].device), torch.arange(9, device=twins[0].device) % 3
    for model in twins:
        optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
        torch.manual_seed(3)  # draws the noise
        for _ in range(3):
            optimiser.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimiser.step()
    for mine, theirs in zip(twins[0].layers, twins[1].layers, strict=True):
        torch.testing.assert_close(mine.logits, theirs.logits, rtol=1e-3, atol=1e-3)


def test_metrics_are_those_of_the_reference(
    make_twins: Callable[..., tuple[LogicNetwork, LogicNetwork]],
) -> None:
    mine, theirs = make_twins("gumbel-st")
    x, y = coins(70, 11), torch.arange(70) % 3
    got, expected = (evaluate(model, (x, y), noise_draws=1) for model in (mine, theirs))
    assert got.discrete_accuracy == expected.discrete_accuracy
    assert got.soft_loss == pytest.approx(expected.soft_loss, rel=1e-5)
    assert gate_usage(mine, x)["constant"].equals(gate_usage(theirs, x)["constant"])


def test_a_layer_changed_by_hand_is_obeyed(
    make_twins: Callable[..., tuple[LogicNetwork, LogicNetwork]],
) -> None:
    twins = make_twins("gumbel-st")
    x = coins(5, 11).to(twins[0].device)
    for model in twins:
        model.layers[1].relaxation = GumbelSoft(0.5)
    got, expected = (model(x, draw=1) for model in twins)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_many_networks_at_once_go_through_the_reference(
    make_twins: Callable[..., tuple[LogicNetwork, LogicNetwork]],
) -> None:
    mine, theirs = make_twins("hard-st")
    x = coins(5, 11).to(mine.device)
    names = [name for name, _ in mine.named_parameters()]
    stacks = {name: torch.stack([p.detach(), -p.detach()]) for name, p in mine.named_parameters()}

    def outputs(model: LogicNetwork, parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, parameters, (x,))

    got = torch.vmap(lambda p: outputs(mine, p))(stacks)
    for place in range(2):
        expected = outputs(theirs, {name: stacks[name][place] for name in names})
        torch.testing.assert_close(got[place], expected)
