"""The whole training forward as one node of autograd, against the network on the reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import CAGE, FUSED
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.cuda.network import discrete_activity, discrete_forward, training_forward
from lgn_analysis.kernels.interface import NetworkSpec
from lgn_analysis.network import LogicNetwork

KEY = NoiseKey(3, Purpose.TRAINING, 9)
NAMES = [name for name, kind in FUSED.items() if not kind.adaptive]
RTOL = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


class Twins:
    """A network on the reference, and the same one as a pass over the kernels."""

    def __init__(self, name: str, device: torch.device, *, batch: int = 65, depth: int = 3) -> None:
        self.model = LogicNetwork(
            n_features=14,
            width=20,
            depth=depth,
            n_classes=5,
            group_tau=3.0,
            relaxation=FUSED[name](0.8),
            seed=1,
            grad_factor=1.3,
            backend="reference",
        ).to(device)
        self.network = NetworkSpec(
            tuple(layer.wiring for layer in self.model.layers),
            14,
            self.model.relaxation,
            5,
            3.0,
            1.3,
        )
        self.logits = [layer.logits for layer in self.model.layers]
        generator = torch.Generator().manual_seed(2)
        self.reals = torch.rand(batch, 14, generator=generator).to(device)
        self.bits = self.reals < 0.5
        self.weights = torch.randn(batch, 5, generator=generator).to(device)
        self.directions = [torch.randn(20, 16, generator=generator).to(device) for _ in self.logits]
        self.key = KEY if self.model.relaxation.noisy else None

    def loss(self, x: Tensor, *, kernels: bool) -> Tensor:
        if kernels:
            outputs = training_forward(self.network, self.logits, x, self.key)
        else:
            outputs = self.model(x, draw=KEY)
        return (outputs.softmax(-1) * self.weights).sum()

    def hessian_vector(self, x: Tensor, *, kernels: bool) -> tuple[Tensor, ...]:
        loss = self.loss(x, kernels=kernels)
        gradients = torch.autograd.grad(loss, self.logits, create_graph=True)
        slope = sum((g * v).sum() for g, v in zip(gradients, self.directions, strict=True))
        return torch.autograd.grad(slope, self.logits)  # type: ignore[arg-type]


def assert_near(got: Tensor, expected: Tensor, rtol: float) -> None:
    """Compare in norm: a cancelled entry has no digits of its own."""
    assert float((got - expected).norm()) <= rtol * float(expected.norm())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", RTOL)
def test_outputs_and_gradients_on_bits_are_the_reference(
    name: str, dtype: torch.dtype, device: torch.device
) -> None:
    twins = Twins(name, device)
    twins.network = replace(twins.network, gradient_dtype=dtype)
    got = training_forward(twins.network, twins.logits, twins.bits, twins.key)
    torch.testing.assert_close(got, twins.model(twins.bits, draw=KEY), rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad((got.softmax(-1) * twins.weights).sum(), twins.logits)
    expected = torch.autograd.grad(twins.loss(twins.bits, kernels=False), twins.logits)
    for mine, theirs in zip(gradients, expected, strict=True):
        assert_near(mine, theirs, RTOL[dtype])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_on_reals_and_of_the_inputs_are_the_reference(
    name: str, device: torch.device
) -> None:
    twins = Twins(name, device, batch=7)
    x = twins.reals.requires_grad_()
    wanted = [*twins.logits, x]
    expected = torch.autograd.grad(twins.loss(x, kernels=False), wanted)
    loss = twins.loss(x, kernels=True)
    for mine, theirs in zip(torch.autograd.grad(loss, wanted), expected, strict=True):
        assert_near(mine, theirs, RTOL[torch.float32])


@pytest.mark.parametrize("on_bits", [True, False])
def test_layers_of_cage_have_a_temperature_each(on_bits: bool, device: torch.device) -> None:
    twins = Twins("cage", device)
    twins.model.layers[1].confidence.fill_(0.9)
    x = twins.bits if on_bits else twins.reals
    expected = torch.autograd.grad(twins.loss(x, kernels=False), twins.logits)
    cage = twins.model.relaxation
    assert isinstance(cage, CAGE)
    taus = tuple(float(cage.backward_tau(layer.confidence)) for layer in twins.model.layers)
    assert len({*taus}) == 3
    twins.network = replace(twins.network, taus=taus)
    got = torch.autograd.grad(twins.loss(x, kernels=True), twins.logits)
    for mine, theirs in zip(got, expected, strict=True):
        assert_near(mine, theirs, RTOL[torch.float32])


@pytest.mark.parametrize("batch", [1, 64, 130])
def test_a_single_layer_and_any_batch_work(batch: int, device: torch.device) -> None:
    twins = Twins("gumbel-st", device, batch=batch, depth=1)
    expected = torch.autograd.grad(twins.loss(twins.bits, kernels=False), twins.logits)
    got = torch.autograd.grad(twins.loss(twins.bits, kernels=True), twins.logits)
    assert_near(got[0], expected[0], RTOL[torch.float32])


def test_bits_and_the_same_bits_as_floats_agree(device: torch.device) -> None:
    twins = Twins("gumbel-st", device)
    packed = training_forward(twins.network, twins.logits, twins.bits, KEY)
    dense = training_forward(twins.network, twins.logits, twins.bits.float(), KEY)
    torch.testing.assert_close(packed, dense, rtol=1e-6, atol=1e-6)


def test_bits_with_a_gradient_of_their_own_go_through_floats(device: torch.device) -> None:
    twins = Twins("gumbel-st", device, batch=7)
    x = twins.bits.float().requires_grad_()
    (expected,) = torch.autograd.grad(twins.loss(x, kernels=False), x)
    (got,) = torch.autograd.grad(twins.loss(x, kernels=True), x)
    assert_near(got, expected, RTOL[torch.float32])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_discrete_network_counts_the_bits_of_its_groups(
    dtype: torch.dtype, device: torch.device
) -> None:
    twins = Twins("gumbel-st", device)
    logits = [z.to(dtype) for z in twins.logits]
    counts = discrete_forward(twins.network, logits, twins.bits)
    expected = twins.model.to(dtype)(twins.bits, mode="discrete") * twins.network.group_tau
    torch.testing.assert_close(counts, expected.round().to(torch.int32))


@pytest.mark.parametrize("batch", [1, 63, 64, 65, 130])
def test_activity_is_the_reference(batch: int, device: torch.device) -> None:
    twins = Twins("gumbel-st", device, batch=batch)
    activity = discrete_activity(twins.network, twins.logits, twins.bits)
    expected = reference.discrete_activity(twins.network, twins.logits, twins.bits)
    torch.testing.assert_close(activity, expected)


def test_wiring_written_behind_its_versions_back_is_noticed(device: torch.device) -> None:
    twins = Twins("gumbel-st", device, batch=7)
    discrete_forward(twins.network, twins.logits, twins.bits)
    wiring = twins.network.wirings[1]
    wiring.data[:] = wiring.data.flip(1)
    counts = discrete_forward(twins.network, twins.logits, twins.bits)
    expected = twins.model(twins.bits, mode="discrete") * twins.network.group_tau
    torch.testing.assert_close(counts, expected.round().to(torch.int32))
    wiring.data[1, 3] = 20
    with pytest.raises(
        InvalidInputError, match=r"layer 1 reads input 20, and it has inputs 0\.\.19"
    ):
        discrete_forward(twins.network, twins.logits, twins.bits)


def test_a_backward_pass_can_be_repeated_to_the_same_bits(device: torch.device) -> None:
    twins = Twins("gumbel-soft", device)
    loss = twins.loss(twins.bits, kernels=True)
    first = torch.autograd.grad(loss, twins.logits, retain_graph=True)
    for once, again in zip(first, torch.autograd.grad(loss, twins.logits), strict=True):
        torch.testing.assert_close(again, once, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["gumbel-st", "hard-st"])
def test_a_second_derivative_of_a_straight_through_gradient_is_refused(
    name: str, device: torch.device
) -> None:
    twins = Twins(name, device, batch=5, depth=1)
    with pytest.raises(NotDifferentiableError, match="gradient of no function"):
        twins.hessian_vector(twins.bits, kernels=True)
    # A linear loss of one layer: the incoming gradient depends on nothing, and still.
    outputs = training_forward(twins.network, twins.logits, twins.bits, twins.key)
    (gradient,) = torch.autograd.grad(outputs.sum(), twins.logits, create_graph=True)
    with pytest.raises(NotDifferentiableError, match="gradient of no function"):
        gradient.sum().backward()


@pytest.mark.parametrize("name", ["soft", "gumbel-soft"])
def test_a_second_derivative_of_a_soft_gradient_is_the_reference(
    name: str, device: torch.device
) -> None:
    twins = Twins(name, device, batch=5, depth=2)
    got = twins.hessian_vector(twins.bits, kernels=True)
    expected = twins.hessian_vector(twins.bits, kernels=False)
    for mine, theirs in zip(got, expected, strict=True):
        assert_near(mine, theirs, 1e-4)


@pytest.mark.parametrize("name", ["soft", "gumbel-st"])
def test_torch_func_differentiates_once_and_forward_mode_is_refused(
    name: str, device: torch.device
) -> None:
    twins = Twins(name, device, batch=5, depth=1)

    def loss(logits: list[Tensor]) -> Tensor:
        outputs = training_forward(twins.network, logits, twins.bits, twins.key)
        return (outputs.softmax(-1) * twins.weights).sum()

    (got,) = torch.func.grad(loss)([z.detach() for z in twins.logits])
    (expected,) = torch.autograd.grad(twins.loss(twins.bits, kernels=False), twins.logits)
    assert_near(got, expected, RTOL[torch.float32])
    with pytest.raises(NotDifferentiableError, match="forward-mode"):
        torch.func.jvp(loss, (twins.logits,), (twins.directions,))


def test_nothing_is_kept_where_no_gradient_is_wanted(device: torch.device) -> None:
    twins = Twins("gumbel-st", device)
    with torch.no_grad():
        outputs = training_forward(twins.network, twins.logits, twins.bits, KEY)
    assert outputs.grad_fn is None
    torch.testing.assert_close(outputs, twins.model(twins.bits, draw=KEY).detach())
