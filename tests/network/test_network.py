"""Networks and layers: what they hold, what they are built from, what they refuse."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import GumbelST, Relaxation, Soft
from lgn_analysis.network import GroupSum, LogicLayer, LogicNetwork
from tests.tiny import NetworkFactory, random_bits, random_reals


def test_a_network_has_the_shapes_it_was_asked_for(make_network: NetworkFactory) -> None:
    model = make_network(n_features=20, width=15, depth=2, n_classes=5)
    assert [tuple(layer.logits.shape) for layer in model.layers] == [(15, 16)] * 2
    assert [tuple(layer.wiring.shape) for layer in model.layers] == [(2, 15)] * 2
    assert [(layer.n_in, layer.index) for layer in model.layers] == [(20, 0), (15, 1)]
    assert model.n_gates == 30
    assert model(random_bits(7, 20)).shape == (7, 5)
    assert sum(parameter.numel() for parameter in model.parameters()) == 30 * 16


def test_group_sum_adds_contiguous_blocks() -> None:
    x = random_reals(4, 12)
    blocks = [[x[i, 4 * k : 4 * k + 4].sum().item() / 2.5 for k in range(3)] for i in range(4)]
    torch.testing.assert_close(GroupSum(3, 2.5)(x), torch.tensor(blocks, dtype=torch.float64))


def test_more_groups_than_classes_are_kept(make_network: NetworkFactory) -> None:
    model = make_network(n_groups=6)
    assert model(random_bits(4, 9)).shape == (4, 6)
    assert model.n_classes == 3


def test_wiring_is_in_the_state_dict(make_network: NetworkFactory) -> None:
    """Trap 2: a network reloaded without its wiring is another network."""
    model, other = make_network(seed=1).eval(), make_network(seed=2).eval()
    x = random_bits(50, 9)
    assert {"layers.0.wiring", "layers.0.logits"} <= {*model.state_dict()}
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


def test_a_seed_is_its_wiring_and_logits(make_network: NetworkFactory) -> None:
    first, same, other = make_network(), make_network(), make_network(seed=6)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])
        assert not torch.equal(tensor, other.state_dict()[name])


def test_layers_of_one_network_differ(make_network: NetworkFactory) -> None:
    _, second, third = make_network().layers
    assert not torch.equal(second.logits, third.logits)
    assert not torch.equal(second.wiring, third.wiring)


def test_a_float32_network_is_the_rounded_float64_one(make_network: NetworkFactory) -> None:
    narrow = make_network(dtype=torch.float32)
    assert torch.equal(narrow.layers[1].logits, make_network().layers[1].logits.float())
    assert torch.equal(narrow.layers[1].wiring, make_network().layers[1].wiring)


@pytest.mark.parametrize("wiring", ["random", "unique"])
@pytest.mark.parametrize("init", ["normal", "residual"])
def test_a_config_builds_the_same_network(
    make_network: NetworkFactory, relaxation: Relaxation, wiring: str, init: str
) -> None:
    model = make_network(relaxation=relaxation, wiring=wiring, init=init, grad_factor=1.5)
    again = LogicNetwork.from_config(model.config, dtype=model.dtype)
    assert again.config == model.config
    assert again.relaxation == relaxation
    assert torch.equal(again(random_reals(5, 9), draw=1), model(random_reals(5, 9), draw=1))


def test_numpy_numbers_make_a_plain_config() -> None:
    arguments: dict[str, Any] = {
        name: np.int64(value)
        for name, value in {"n_features": 4, "width": 6, "depth": 1, "n_classes": 3}.items()
    }
    model = LogicNetwork(
        **arguments, group_tau=np.float32(2), seed=np.int64(3), relaxation=Soft(np.float32(0.5))
    )
    assert {type(value) for value in model.config.values()} == {int, float, str}


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_the_same_network(make_network: NetworkFactory, copier: Any) -> None:
    model = make_network(relaxation=GumbelST(0.5))
    x = random_bits(20, 9)
    assert torch.equal(copier(model)(x, draw=0), model(x, draw=0))


def test_a_layer_without_a_seed_obeys_the_seed_of_torch() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = LogicLayer(6, 6), LogicLayer(6, 6)
        torch.manual_seed(0)
        assert torch.equal(LogicLayer(6, 6).logits, first.logits)
    assert not torch.equal(first.logits, second.logits)


def test_a_layer_takes_and_keeps_a_wiring_of_ones_own() -> None:
    wiring = torch.tensor([[0, 1], [0, 2]], dtype=torch.int32)
    layer = LogicLayer(3, 2, wiring=wiring)
    wiring[:] = 0
    assert layer.wiring.tolist() == [[0, 1], [0, 2]]
    with torch.no_grad():
        layer.logits[:] = torch.eye(16)[[12, 7]]  # NOT A, A OR B
    assert layer.eval()(torch.tensor([[1, 0, 1], [0, 0, 0]])).tolist() == [[0, 1], [1, 0]]


def test_two_layers_under_one_key_meet_different_noise_at_different_indices() -> None:
    layers = [LogicLayer(8, 50, seed=1, index=index) for index in (0, 1)]
    layers[1].load_state_dict(layers[0].state_dict())
    key, x = NoiseKey(0, Purpose.TRAINING), random_bits(5, 8)
    assert not torch.equal(layers[0](x, draw=key), layers[1](x, draw=key))


SIZES: dict[str, Any] = {
    "n_features": 960,
    "width": 1000,
    "depth": 2,
    "n_classes": 10,
    "group_tau": 10.0,
}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"width": 1001}, "width 1001 is not divisible by n_classes 10; use 1000 or 1010"),
        ({"width": 7}, "width 7 is not divisible by n_classes 10; use 10"),
        ({"width": 0}, "width must be a positive multiple of n_classes 10, got 0; use 10"),
        ({"width": -10}, "width must be a positive multiple of n_classes 10, got -10; use 10"),
        (
            {"n_groups": 300},
            "width 1000 is not divisible by n_groups 300; use 900 or 1200",
        ),
        (
            {"width": 400},
            "400 gates read at most 800 of 960 inputs; use a width of at least 480, or fewer "
            "thresholds",
        ),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"n_features": 0}, "a layer needs at least one input and one gate, got n_in=0, n_out=100"),
        (
            {"n_classes": 0},
            "n_classes must be at least 1 and n_groups at least n_classes, got n_classes=0, "
            "n_groups=0",
        ),
        (
            {"n_groups": 5},
            "n_classes must be at least 1 and n_groups at least n_classes, got n_classes=10, "
            "n_groups=5",
        ),
        ({"group_tau": 0.0}, "group_tau must be finite and above zero, got 0.0"),
        ({"group_tau": float("nan")}, "group_tau must be finite and above zero, got nan"),
        ({"grad_factor": float("inf")}, "grad_factor must be finite, got inf"),
        ({"wiring": "uniqe"}, "unknown wiring 'uniqe'; use one of random, unique"),
        (
            {"n_features": 20, "wiring": "unique"},
            "20 inputs make only 190 different pairs, too few for 1000 gates",
        ),
        ({"init": "randn"}, "unknown init 'randn'; use one of normal, residual"),
        ({"backend": "cudda"}, "unknown backend 'cudda'; use one of"),
        ({"seed": -1}, "seed must lie in 0..2**64-1, got -1"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(
    override: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"^{re.escape(message)}"):
        LogicNetwork(**SIZES | override)


@pytest.mark.parametrize("mode", ["soft", "noisy", "discrete", None])
def test_inputs_of_another_width_are_refused(make_network: NetworkFactory, mode: str) -> None:
    model = make_network()
    for shape in ((5, 8), (5, 10), (9, 5), ()):
        message = re.escape(f"expected inputs [batch, 9], got shape {shape}")
        for module in (model, model.layers[0]):
            with pytest.raises(InvalidInputError, match=message):
                module(torch.zeros(shape), mode=mode)


def test_packed_activations_refuse_inputs_of_another_width(make_network: NetworkFactory) -> None:
    with pytest.raises(InvalidInputError, match=r"expected inputs \[batch, 9\]"):
        next(make_network().packed_activations(random_bits(5, 10)))


@pytest.mark.parametrize("index", [-1, 2**24])
def test_a_layer_index_outside_the_noise_is_refused(index: int) -> None:
    with pytest.raises(InvalidInputError, match=rf"index must lie in 0\.\.16777215, got {index}"):
        LogicLayer(4, 4, index=index)


def test_a_group_sum_refuses_features_that_it_cannot_share_out() -> None:
    with pytest.raises(InvalidInputError, match="n 10 is not divisible by n_groups 4; use 8 or 12"):
        GroupSum(4)(torch.zeros(2, 10))
    with pytest.raises(InvalidInputError, match="n_groups must be at least 1, got 0"):
        GroupSum(0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_noise_in_a_narrow_float_is_refused_not_nan(
    make_network: NetworkFactory, dtype: torch.dtype
) -> None:
    """Trap 1: in half precision the smallest uniform is zero, and the outputs were silently 0."""
    with pytest.raises(InvalidInputError, match=r"convert the model: model\.float\(\)"):
        make_network(dtype=dtype)(random_bits(5, 9))


def test_a_network_describes_itself(make_network: NetworkFactory) -> None:
    text = repr(make_network())
    assert "9 bits, 36 gates, 576 parameters" in text
    assert "12, 12, relaxation=GumbelST(tau=1.0), index=2" in text
