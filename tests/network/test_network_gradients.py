"""Forward and every gradient of a network, against sixteen gates evaluated one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import RELAXATIONS, HardST, Soft
from lgn_analysis.network import LogicNetwork
from tests.oracles import Gradients, gumbel_noise, network_gradients, softmax
from tests.tiny import NetworkFactory, random_bits, random_reals

DRAW = 3
SIZES = {  # batch, n_features, width, depth, n_classes
    "one-sample": (1, 7, 12, 1, 3),
    "odd": (5, 9, 15, 3, 5),
    "over-a-word": (65, 16, 21, 4, 3),
    "shrinking": (4, 30, 16, 2, 4),
}
EVERY_KIND = pytest.mark.parametrize("kind", RELAXATIONS)
EVERY_TAU = pytest.mark.parametrize("tau", [0.3, 1.0, 2.5])


def first_taus(model: LogicNetwork) -> float | list[float]:
    """The temperature of the first training forward: with CAGE one a layer, of a confidence that
    moved once from 1/16."""
    tau = model.relaxation.tau
    if model.relaxation.name != "cage":
        return tau
    certainties = [
        softmax(layer.logits.detach().double().numpy() / tau).max(-1).mean()
        for layer in model.layers
    ]
    confidences = [0.99 / 16 + 0.01 * m for m in certainties]
    return [3.0 - 2.5 * (c - 1 / 16) / (15 / 16) for c in confidences]


def expected_gradients(
    model: LogicNetwork, x: Tensor, cotangent: Tensor, **overrides: float | bool
) -> Gradients:
    """The oracle on the weights of ``model``, with noise of its own making."""
    noise = [np.zeros((model.width, 16))] * model.depth
    if overrides.pop("noisy", model.relaxation.noisy):
        noise = [
            gumbel_noise(model.seed, 2, DRAW, layer, model.width) for layer in range(model.depth)
        ]
    soft = overrides.get("hard") is False
    arguments = {
        "tau": model.relaxation.tau if soft else first_taus(model),
        "hard": model.relaxation.hard,
        "group_tau": model.group_sum.group_tau,
        **overrides,
    }
    return network_gradients(
        x.double().numpy(),
        cotangent.double().numpy(),
        [layer.logits.detach().double().numpy() for layer in model.layers],
        [layer.wiring.numpy() for layer in model.layers],
        noise,
        **arguments,
    )


def compare(
    model: LogicNetwork,
    x: Tensor,
    *,
    mode: str | None = None,
    tolerance: float = 1e-12,
    **overrides: float | bool,
) -> None:
    """Assert that outputs and all gradients are the oracle's."""
    x = x.requires_grad_()
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(len(x), model.n_classes, generator=generator).to(model.dtype)
    outputs = model(x, mode=mode, draw=DRAW)
    logits = [layer.logits for layer in model.layers]
    *dz, dx = torch.autograd.grad(outputs, [*logits, x], cotangent)
    expected = expected_gradients(model, x.detach(), cotangent, **overrides)

    def close(actual: Tensor, wanted: np.ndarray) -> None:
        assert actual.dtype == model.dtype
        torch.testing.assert_close(
            actual.detach().double(), torch.from_numpy(wanted), rtol=tolerance, atol=tolerance
        )

    close(outputs, expected.outputs)
    close(dx, expected.inputs)
    for actual, wanted in zip(dz, expected.logits, strict=True):
        assert np.abs(wanted).max() > 1e-4, "a gradient of zeros would prove nothing"
        close(actual, wanted)


@EVERY_KIND
@EVERY_TAU
@pytest.mark.parametrize("size", SIZES)
def test_training_forward_and_gradients_are_the_sixteen_gates(
    make_network: NetworkFactory, kind: str, tau: float, size: str
) -> None:
    batch, n_features, width, depth, n_classes = SIZES[size]
    model = make_network(
        n_features=n_features,
        width=width,
        depth=depth,
        n_classes=n_classes,
        relaxation=RELAXATIONS[kind](tau),
    )
    compare(model, random_reals(batch, n_features))


@EVERY_KIND
def test_gradients_hold_where_both_inputs_are_one(make_network: NetworkFactory, kind: str) -> None:
    """Trap 4: with A == B the input gradient is that of A plus that of B."""
    model = make_network(relaxation=RELAXATIONS[kind]())
    for layer in model.layers:
        layer.wiring[1, ::2] = layer.wiring[0, ::2]
    compare(model, random_reals(6, 9))


@EVERY_KIND
@EVERY_TAU
def test_soft_mode_is_the_plain_softmax_for_every_relaxation(
    make_network: NetworkFactory, kind: str, tau: float
) -> None:
    model = make_network(relaxation=RELAXATIONS[kind](tau)).eval()
    compare(model, random_reals(6, 9), mode="soft", hard=False, noisy=False)


@pytest.mark.parametrize("kind", ["gumbel-soft", "gumbel-st"])
def test_noisy_mode_has_the_gradients_of_training(make_network: NetworkFactory, kind: str) -> None:
    compare(
        make_network(relaxation=RELAXATIONS[kind](0.7)).eval(), random_reals(6, 9), mode="noisy"
    )


@EVERY_KIND
@pytest.mark.parametrize("grad_factor", [2.0, 0.5, -1.0, 0.0])
def test_grad_factor_multiplies_once_a_layer(
    make_network: NetworkFactory, kind: str, grad_factor: float
) -> None:
    model = make_network(relaxation=RELAXATIONS[kind](), grad_factor=grad_factor)
    x = random_reals(6, 9).requires_grad_()
    cotangent = torch.ones(6, 3).double()
    expected = expected_gradients(model, x.detach(), cotangent, grad_factor=grad_factor)
    plain = expected_gradients(model, x.detach(), cotangent)
    logits = [layer.logits for layer in model.layers]
    outputs = model(x, draw=DRAW)
    *dz, dx = torch.autograd.grad(outputs, [*logits, x], cotangent)
    np.testing.assert_array_equal(outputs.detach(), make_outputs(model, x))
    np.testing.assert_allclose(dx, expected.inputs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, grad_factor**3 * plain.inputs, rtol=1e-12, atol=1e-12)
    for index, gradient in enumerate(dz):
        scaled = grad_factor ** (2 - index) * plain.logits[index]
        np.testing.assert_allclose(gradient, scaled, rtol=1e-12, atol=1e-12)


def make_outputs(model: LogicNetwork, x: Tensor) -> Tensor:
    """The training outputs of the same network without a gradient factor."""
    plain = LogicNetwork.from_config(model.config, grad_factor=1.0, dtype=model.dtype)
    return plain(x, draw=DRAW).detach()


def test_grad_factor_does_not_touch_soft_mode(make_network: NetworkFactory) -> None:
    compare(make_network(relaxation=Soft(), grad_factor=2.0), random_reals(6, 9), mode="soft")


@EVERY_KIND
def test_float32_is_float64_up_to_rounding(make_network: NetworkFactory, kind: str) -> None:
    model = make_network(relaxation=RELAXATIONS[kind](), dtype=torch.float32)
    compare(model, random_reals(6, 9).float(), tolerance=1e-5)


@pytest.mark.parametrize("kind", ["gumbel-st", "hard-st"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hard_training_on_bits_has_bits_at_every_layer(
    make_network: NetworkFactory, kind: str, dtype: torch.dtype
) -> None:
    model = make_network(relaxation=RELAXATIONS[kind](0.3), dtype=dtype, depth=4)
    x = random_bits(65, 9)
    expected = expected_gradients(model, x, torch.ones(65, 3))
    key = NoiseKey(model.seed, Purpose.EVALUATION, DRAW)
    activations = x
    for layer, wanted in zip(model.layers, expected.activations, strict=True):
        activations = layer(activations, draw=key)
        assert activations.dtype == dtype
        assert ((activations == 0) | (activations == 1)).all()
        assert torch.equal(activations.detach().double(), torch.from_numpy(wanted))


def test_hard_training_without_noise_has_the_discrete_outputs(make_network: NetworkFactory) -> None:
    model, x = make_network(relaxation=HardST()), random_bits(65, 9)
    assert torch.equal(model(x), model(x, mode="discrete"))


def test_gradients_are_those_of_finite_differences(make_network: NetworkFactory) -> None:
    model = make_network(relaxation=RELAXATIONS["gumbel-soft"](0.5), depth=2, backend="reference")
    x = random_reals(3, 9).requires_grad_()
    names = [name for name, _ in model.named_parameters()]

    def outputs(x: Tensor, *logits: Tensor) -> Tensor:
        parameters = dict(zip(names, logits, strict=True))
        return torch.func.functional_call(model, parameters, (x,), {"draw": DRAW})

    assert torch.autograd.gradcheck(outputs, (x, *model.parameters()))
