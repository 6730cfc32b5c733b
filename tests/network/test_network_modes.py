"""Soft, noisy, discrete, train and eval: what each computes, and on which noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import CAGE, GumbelSoft, GumbelST, HardST, Relaxation, Soft
from lgn_analysis.network import GroupSum, LogicLayer, LogicNetwork
from tests.oracles import discrete_outputs
from tests.tiny import NetworkFactory, random_bits, random_reals

NOISY = pytest.mark.parametrize("noisy", [GumbelSoft(), GumbelST()], ids=repr)
NOISE_FREE = pytest.mark.parametrize("noise_free", [Soft(), HardST(), CAGE()], ids=repr)


def discrete_oracle(model: LogicNetwork, x: Tensor) -> list[list[float]]:
    layers = [
        (layer.logits.detach().numpy().argmax(-1).tolist(), layer.wiring.tolist())
        for layer in model.layers
    ]
    outputs = np.array(discrete_outputs(x.long().tolist(), layers), dtype=float)
    blocks = outputs.reshape(len(x), model.group_sum.n_groups, -1)
    return (blocks.sum(-1) / model.group_sum.group_tau).tolist()


@pytest.mark.parametrize("batch", [1, 63, 64, 65, 129])
def test_discrete_mode_is_the_boolean_circuit(make_network: NetworkFactory, batch: int) -> None:
    """Trap 5: a batch that is no multiple of the packed word."""
    model, x = make_network(group_tau=1.0, depth=4), random_bits(batch, 9)
    assert model(x, mode="discrete").tolist() == discrete_oracle(model, x)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_discrete_mode_takes_bits_of_any_dtype(
    make_network: NetworkFactory, kind: torch.dtype
) -> None:
    model, x = make_network(group_tau=1.0), random_bits(10, 9)
    outputs = model(x.to(kind), mode="discrete")
    assert outputs.tolist() == discrete_oracle(model, x)
    assert outputs.dtype == torch.float64
    assert not outputs.requires_grad


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, 1 - 1e-7, math.nan, math.inf])
def test_discrete_mode_refuses_what_is_no_bit(make_network: NetworkFactory, value: float) -> None:
    model, x = make_network().eval(), random_bits(10, 9).double()
    x[7, 3] = value
    for module in (model, model.layers[0]):
        with pytest.raises(InvalidInputError, match="inputs hold values other than 0 and 1"):
            module(x)


def test_eval_is_discrete_for_every_relaxation(
    make_network: NetworkFactory, relaxation: Relaxation
) -> None:
    model, x = make_network(relaxation=relaxation).eval(), random_bits(20, 9)
    assert torch.equal(model(x), model(x, mode="discrete"))


def test_train_is_the_relaxation_and_modes_ignore_it(
    make_network: NetworkFactory, relaxation: Relaxation
) -> None:
    model, x = make_network(relaxation=relaxation), random_bits(20, 9)
    outputs = {
        "train": model(x, draw=4),
        "soft": model(x, mode="soft"),
        "discrete": model(x, mode="discrete"),
    }
    training_mode = {"soft": "soft", "hard-st": "discrete", "cage": "discrete"}.get(relaxation.name)
    if training_mode is None:
        assert torch.equal(outputs["train"], model(x, mode="noisy", draw=4))
        assert not torch.equal(outputs["train"], outputs["soft"])
        assert not torch.equal(outputs["train"], outputs["discrete"])
    else:
        assert torch.equal(outputs["train"], outputs[training_mode])
    model.eval()
    assert torch.equal(outputs["soft"], model(x, mode="soft"))
    assert torch.equal(outputs["discrete"], model(x, mode="discrete"))


@NOISE_FREE
def test_noisy_mode_without_noise_is_refused(
    make_network: NetworkFactory, noise_free: Relaxation
) -> None:
    model = make_network(relaxation=noise_free)
    message = f"{type(noise_free).__name__} draws no noise, so it has no noisy mode"
    for module in (model, model.layers[0]):
        with pytest.raises(InvalidInputError, match=message):
            module(random_bits(2, 9), mode="noisy")


def test_an_unknown_mode_is_refused(make_network: NetworkFactory) -> None:
    with pytest.raises(InvalidInputError, match="unknown mode 'hard'; use one of soft, noisy, di"):
        make_network()(random_bits(2, 9), mode="hard")


@NOISY
def test_a_draw_is_its_outputs(make_network: NetworkFactory, noisy: Relaxation) -> None:
    model, x = make_network(relaxation=noisy), random_bits(20, 9)
    outputs = [model(x, draw=draw) for draw in (0, 1, 2**32)]
    assert torch.equal(outputs[0], model(x, draw=0))
    assert torch.equal(outputs[0], model(x, draw=NoiseKey(model.seed, Purpose.EVALUATION, 0)))
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], model(x, draw=NoiseKey(model.seed, Purpose.TRAINING, 0)))


@pytest.mark.parametrize("number", [np.int64(0), torch.tensor(0)], ids=["numpy", "torch"])
def test_a_draw_may_be_any_whole_number(make_network: NetworkFactory, number: object) -> None:
    model, x = make_network(), random_bits(20, 9)
    assert torch.equal(model(x, draw=number), model(x, draw=0))


@NOISY
def test_without_a_draw_torch_governs_the_noise(
    make_network: NetworkFactory, noisy: Relaxation
) -> None:
    model, x = make_network(relaxation=noisy), random_bits(20, 9)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = model(x), model(x)
        torch.manual_seed(0)
        assert torch.equal(model(x), first)
        assert not torch.equal(first, second)


def train_plainly(model: torch.nn.Module) -> Tensor:
    """Twenty steps of a loop that knows nothing of this package; returns the last outputs."""
    x, y = random_bits(30, 9), torch.arange(30) % 3
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(20):
        optimiser.zero_grad()
        functional.cross_entropy(model(x.double()), y).backward()
        optimiser.step()
    return model(x.double())


def test_torch_manual_seed_governs_a_plain_training_loop(make_network: NetworkFactory) -> None:
    outputs = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            outputs.append(train_plainly(make_network()))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@NOISY
def test_each_sample_of_a_batch_meets_the_same_noise(
    make_network: NetworkFactory, noisy: Relaxation
) -> None:
    model, x = make_network(relaxation=noisy), random_bits(1, 9).expand(5, 9)
    outputs = model(x, draw=0)
    assert torch.equal(outputs, outputs[:1].expand_as(outputs))


@pytest.mark.parametrize("mode", ["soft", "discrete", "noisy", None])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,), (2, 0)])
def test_any_number_of_batch_dimensions_is_taken(
    make_network: NetworkFactory, mode: str | None, shape: tuple[int, ...]
) -> None:
    model, x = make_network(), random_bits(*shape, 9)
    outputs = model(x, mode=mode, draw=0)
    assert outputs.shape == (*shape, 3)
    flat = model(x.reshape(-1, 9), mode=mode, draw=0)
    torch.testing.assert_close(outputs.reshape(-1, 3), flat, rtol=1e-14, atol=1e-14)
    assert model.layers[0](x, mode=mode).shape == (*shape, 12)


def stacked(model: LogicNetwork) -> torch.nn.Sequential:
    """The same network of single modules, as one stacks layers in plain PyTorch."""
    layers = [
        LogicLayer(
            layer.n_in,
            layer.n_out,
            relaxation=model.relaxation,
            seed=model.seed,
            index=index,
            dtype=model.dtype,
        )
        for index, layer in enumerate(model.layers)
    ]
    return torch.nn.Sequential(*layers, GroupSum(model.n_classes, model.group_sum.group_tau))


def test_layers_in_a_sequential_are_the_network(
    make_network: NetworkFactory, relaxation: Relaxation
) -> None:
    model, x = make_network(relaxation=relaxation), random_bits(20, 9)
    sequential = stacked(model)
    for layer, twin in zip(model.layers, sequential, strict=False):
        assert torch.equal(layer.logits, twin.logits)
        assert torch.equal(layer.wiring, twin.wiring)
    assert torch.equal(sequential.eval()(x), model.eval()(x))
    if not relaxation.noisy:
        assert torch.equal(sequential.train()(x), model.train()(x))
    key, activations = NoiseKey(1, Purpose.TRAINING, 2), x
    for layer in sequential.train()[:-1]:
        activations = layer(activations, draw=key)
    assert torch.equal(sequential[-1](activations), model.train()(x, draw=key))


def test_a_sequential_trains_and_draws_fresh_noise_a_layer(make_network: NetworkFactory) -> None:
    sequential, x = stacked(make_network()), random_bits(20, 9)
    before = [parameter.clone() for parameter in sequential.parameters()]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        train_plainly(sequential)
        assert not torch.equal(sequential(x), sequential(x))
    for parameter, old in zip(sequential.parameters(), before, strict=True):
        assert not torch.equal(parameter, old)


Loss = Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]


def functional_loss(model: LogicNetwork, mode: str | None = "soft") -> Loss:
    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        arguments = {"mode": mode, "draw": 0}
        outputs = torch.func.functional_call(model, parameters, (x,), arguments)
        return functional.cross_entropy(outputs, y)

    return loss


def test_functional_gradient_is_the_backward_pass(
    make_network: NetworkFactory, relaxation: Relaxation
) -> None:
    model = make_network(relaxation=relaxation, backend="reference")
    x, y = random_reals(6, 9), torch.arange(6) % 3
    gradient = torch.func.grad(functional_loss(model, None))(dict(model.named_parameters()), x, y)
    functional.cross_entropy(model(x, draw=0), y).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradient[name], parameter.grad, rtol=1e-12, atol=1e-15)


def test_gradients_a_sample_go_through_vmap(
    make_network: NetworkFactory, relaxation: Relaxation
) -> None:
    model = make_network(relaxation=relaxation, backend="reference")
    x, y = random_reals(6, 9), torch.arange(6) % 3
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    gradient = torch.func.grad(functional_loss(model, None))
    together = torch.func.vmap(gradient, in_dims=(None, 0, 0))(parameters, x, y)
    for i in range(6):
        alone = gradient(parameters, x[i], y[i])
        for name in parameters:
            torch.testing.assert_close(together[name][i], alone[name], rtol=1e-12, atol=1e-15)


@pytest.fixture
def small(make_network: NetworkFactory) -> tuple[LogicNetwork, Callable[[Tensor], Tensor]]:
    """A network of 2 × 3 gates, and its soft loss as a function of one vector of logits."""
    model = make_network(
        n_features=5, width=3, depth=2, relaxation=GumbelST(0.7), backend="reference"
    )
    names, shapes = zip(*((n, p.shape) for n, p in model.named_parameters()), strict=True)
    x, y = random_bits(8, 5), torch.arange(8) % 3

    def loss(z: Tensor) -> Tensor:
        parts = [part.reshape(3, 16) for part in z.split(48)]
        return functional_loss(model)(dict(zip(names, parts, strict=True)), x, y)

    assert shapes == ((3, 16), (3, 16))
    return model, loss


def test_functional_jacobian_and_hessian_are_those_of_autograd(
    small: tuple[LogicNetwork, Callable[[Tensor], Tensor]],
) -> None:
    model, loss = small
    z = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    jacobian = torch.autograd.functional.jacobian(loss, z)
    hessian = torch.autograd.functional.hessian(loss, z)
    assert hessian.abs().max() > 1e-3
    torch.testing.assert_close(torch.func.jacrev(loss)(z), jacobian, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(torch.func.hessian(loss)(z), hessian, rtol=1e-12, atol=1e-14)
    reverse = torch.func.jacrev(torch.func.jacrev(loss))(z)
    torch.testing.assert_close(reverse, hessian, rtol=1e-12, atol=1e-14)


def test_the_hessian_is_a_finite_difference_of_gradients(
    small: tuple[LogicNetwork, Callable[[Tensor], Tensor]],
) -> None:
    """Trap 3: symmetry is no check of a Hessian-vector product, this is."""
    model, loss = small
    z = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    v = torch.from_numpy(np.random.default_rng(0).standard_normal(96))
    gradient = torch.func.grad(loss)
    difference = (gradient(z + 1e-5 * v) - gradient(z - 1e-5 * v)) / 2e-5
    product = torch.func.hessian(loss)(z) @ v
    torch.testing.assert_close(product, difference, rtol=1e-6, atol=1e-9)


def test_one_step_along_all_sixteen_logits_of_a_gate_is_a_null_vector_of_the_hessian(
    small: tuple[LogicNetwork, Callable[[Tensor], Tensor]],
) -> None:
    """Trap 11."""
    model, loss = small
    z = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    hessian = torch.func.hessian(loss)(z)
    directions = torch.block_diag(*[torch.ones(1, 16).double()] * 6)
    products = hessian @ directions.T
    assert hessian.abs().max() > 1e-3
    assert products.abs().max() < 1e-15


@pytest.mark.parametrize("hard", [GumbelST(), HardST(), CAGE()], ids=repr)
@pytest.mark.parametrize("depth", [1, 2])
def test_no_second_derivative_of_hard_training(
    make_network: NetworkFactory, hard: Relaxation, depth: int
) -> None:
    """Trap 3, also for one layer under a linear loss, where only a softmax could be curved."""
    model = make_network(relaxation=hard, depth=depth, backend="reference")
    x = random_bits(6, 9)
    logits = model.layers[0].logits
    (gradient,) = torch.autograd.grad(model(x, draw=0)[:, 0].sum(), logits, create_graph=True)
    with pytest.raises(NotDifferentiableError, match="the gradient of no function"):
        torch.autograd.grad(gradient.square().sum(), logits)
    parameters = dict(model.named_parameters())
    y = torch.arange(6) % 3
    gradient_of = torch.func.grad(functional_loss(model, None))
    with pytest.raises(NotDifferentiableError, match="the gradient of no function"):
        torch.func.jvp(lambda x: gradient_of(parameters, x, y), (x.double(),), (x.double(),))
    with pytest.raises(NotDifferentiableError, match="the gradient of no function"):
        torch.func.jvp(lambda z: gradient_of(z, x, y), (parameters,), (parameters,))
