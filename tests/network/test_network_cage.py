"""CAGE in layers and networks: where the confidence lives, what moves it and what leaves it alone."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.checkpoints import load, save
from lgn_analysis.gates.relaxations import CAGE, HardST
from lgn_analysis.network import GroupSum, LogicLayer, LogicNetwork
from tests.tiny import NetworkFactory, random_bits


def mean_certainty(layer: LogicLayer, tau: float) -> float:
    """The mean of the largest softmax(z / tau), gate by gate in Python numbers."""
    total = 0.0
    for row in (layer.logits.detach().double() / tau).tolist():
        e = torch.tensor(row, dtype=torch.float64).exp().tolist()
        total += max(e) / sum(e)
    return total / layer.n_out


def confidences(model: LogicNetwork) -> list[float]:
    return [float(layer.confidence) for layer in model.layers]


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_confidence_is_the_moving_average_of_each_layers_certainty(
    make_network: NetworkFactory, backend: str | None, dtype: torch.dtype
) -> None:
    model = make_network(relaxation=CAGE(0.7, decay=0.8), dtype=dtype, backend=backend)
    expected = [1 / 16] * 3
    assert confidences(model) == expected
    for step in range(4):
        for layer in model.layers:
            layer.logits.data[: step + 1] *= 2.0
        model(random_bits(5, 9))
        expected = [
            0.8 * c + 0.2 * mean_certainty(layer, 0.7)
            for c, layer in zip(expected, model.layers, strict=True)
        ]
        assert confidences(model) == pytest.approx(expected, rel=1e-6)
    assert len({*confidences(model)}) == 3


def test_nothing_but_a_training_forward_moves_it(make_network: NetworkFactory) -> None:
    model, x = make_network(relaxation=CAGE()), random_bits(5, 9)
    model(x, mode="soft")
    model(x, mode="discrete")
    model.eval()(x)
    assert confidences(model) == [1 / 16] * 3
    model.train()(x)
    assert all(c > 1 / 16 for c in confidences(model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_is_its_layers(make_network: NetworkFactory, dtype: torch.dtype) -> None:
    """By a backend for whole networks, and layer by layer."""
    model = make_network(relaxation=CAGE(), dtype=dtype)
    stack = nn.Sequential(*copy.deepcopy(model).layers, GroupSum(3, 1.5))  # type: ignore[misc]
    x, losses = random_bits(20, 9), []
    for module in (model, stack):
        for _ in range(3):
            module.zero_grad()
            loss = module(x).square().sum()
            loss.backward()
        losses.append(loss)
    torch.testing.assert_close(losses[0], losses[1])
    for mine, theirs in zip(model.layers, stack, strict=False):
        assert isinstance(theirs, LogicLayer)
        torch.testing.assert_close(mine.confidence, theirs.confidence)
        torch.testing.assert_close(mine.logits.grad, theirs.logits.grad, rtol=1e-5, atol=1e-6)


def test_its_forward_is_that_of_hard_st(make_network: NetworkFactory) -> None:
    cage, hard = (make_network(relaxation=relaxation) for relaxation in (CAGE(), HardST()))
    x = torch.rand(5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cage(x), hard(x))
    assert torch.equal(cage(x, mode="soft"), hard(x, mode="soft"))


def test_it_is_saved_with_the_model(make_network: NetworkFactory, tmp_path: Path) -> None:
    model, x = make_network(relaxation=CAGE(0.6, tau_min=0.2)), random_bits(5, 9)
    for _ in range(3):
        model(x)
    save(model, tmp_path / "m")
    again = load(tmp_path / "m").train()
    assert confidences(again) == confidences(model)
    assert again.relaxation == model.relaxation
    for network in (model, again):
        network(x).square().sum().backward()
    for mine, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert mine.grad is not None
        assert torch.equal(mine.grad, theirs.grad)


def test_other_relaxations_keep_no_confidence(make_network: NetworkFactory) -> None:
    assert not any("confidence" in name for name in make_network().state_dict())


def test_a_layer_turned_to_cage_by_hand_is_refused(make_network: NetworkFactory) -> None:
    model = make_network()
    model.layers[1].relaxation = CAGE()
    with pytest.raises(InvalidInputError, match="was made without CAGE and keeps no confidence"):
        model(random_bits(5, 9), draw=0)


def test_many_networks_at_once_leave_the_confidence_alone(make_network: NetworkFactory) -> None:
    model = make_network(relaxation=CAGE())
    x = random_bits(5, 9)
    stacks = {name: torch.stack([p.detach(), 2 * p]) for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        outputs: Tensor = torch.func.functional_call(model, parameters, (x,))
        return outputs.square().sum()

    together = torch.vmap(torch.func.grad(loss))({k: v.detach() for k, v in stacks.items()})
    assert confidences(model) == [1 / 16] * 3
    alone = copy.deepcopy(model)
    alone(x).square().sum().backward()
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(together[name][0], parameter.grad)


def test_the_temperature_can_be_set(make_network: NetworkFactory) -> None:
    model = make_network(relaxation=CAGE(1.0, decay=0.5))
    model.set_tau(0.25)
    assert model.relaxation == CAGE(0.25, decay=0.5)
    assert {layer.relaxation for layer in model.layers} == {model.relaxation}
    assert LogicNetwork.from_config(model.config).relaxation == model.relaxation
    with pytest.raises(InvalidInputError, match="tau must be finite and above zero, got 0"):
        model.set_tau(0.0)
    assert model.relaxation.tau == 0.25
