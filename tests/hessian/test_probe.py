"""The probe's products are the Hessian of the mean loss, or it refuses."""

import inspect
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError, NotDifferentiableError
from tests.hessian.cases import bits, flat_loss, network, perceptron


@pytest.mark.parametrize("tau", [0.3, 1.0, 2.5])
def test_the_dense_hessian_of_a_network_is_that_of_plain_autograd(tau):
    model, (x, y) = network(tau=tau), bits()
    loss, start = flat_loss(model, x, y)
    exact = torch.autograd.functional.hessian(loss, start)
    assert torch.allclose(lgn.HessianProbe(model, (x, y)).dense(), exact, atol=1e-14)


@pytest.mark.parametrize("relaxation", [lgn.Soft, lgn.GumbelSoft, lgn.GumbelST, lgn.HardST])
@pytest.mark.parametrize("training", [True, False])
def test_a_network_is_probed_in_soft_mode_whatever_it_trains_by(relaxation, training):
    model, (x, y) = network(relaxation=relaxation).train(training), bits()
    other = network(relaxation=lgn.Soft)
    v = torch.randn(model.n_gates * 16, dtype=torch.float64)
    assert torch.equal(lgn.HessianProbe(model, (x, y)) @ v, lgn.HessianProbe(other, (x, y)) @ v)
    assert model.training is training


def test_grad_factor_is_no_part_of_the_loss():
    x, y = bits()
    plain = lgn.LogicNetwork(8, 12, 2, 3, 2.0, dtype=torch.float64)
    scaled = lgn.LogicNetwork(8, 12, 2, 3, 2.0, dtype=torch.float64, grad_factor=3.0)
    v = torch.randn(plain.n_gates * 16, dtype=torch.float64)
    assert torch.equal(
        lgn.HessianProbe(plain, (x, y)) @ v, lgn.HessianProbe(scaled.train(), (x, y)) @ v
    )


def test_a_product_is_a_finite_difference_of_gradients():
    model, (x, y) = network(), bits()
    loss, start = flat_loss(model, x, y)
    v = torch.randn_like(start)
    step = 1e-5
    ends = [torch.func.grad(loss)(start + sign * step * v) for sign in (1, -1)]
    difference = (ends[0] - ends[1]) / (2 * step)
    product = lgn.HessianProbe(model, (x, y)) @ v
    assert torch.allclose(product, difference, rtol=1e-6, atol=1e-9)


def test_the_all_ones_direction_of_every_gate_is_a_null_vector():
    model, (x, y) = network(tau=0.7), bits()
    probe = lgn.HessianProbe(model, (x, y))
    v = torch.randn(model.n_gates, 1, dtype=torch.float64).expand(-1, 16).reshape(-1)
    assert (probe @ v).abs().max() < 1e-15


def test_ragged_batches_weigh_by_their_samples():
    model, (x, y) = perceptron(), (torch.randn(11, 4).double(), torch.arange(11) % 3)
    whole = lgn.HessianProbe(model, (x, y)).dense()
    pieces = list(zip(x.split(4), y.split(4), strict=True))
    assert torch.allclose(lgn.HessianProbe(model, pieces).dense(), whole, atol=1e-12)
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    assert torch.allclose(lgn.HessianProbe(model, loader).dense(), whole, atol=1e-12)
    assert torch.allclose(lgn.HessianProbe(model, (x, y), batch_size=3).dense(), whole, atol=1e-12)


def test_any_module_agrees_with_curvlinops():
    from curvlinops import HessianLinearOperator

    model = perceptron()
    x, y = torch.randn(11, 4).double(), torch.arange(11) % 3
    params = list(model.parameters())
    theirs = HessianLinearOperator(model, nn.CrossEntropyLoss(), params, [(x, y)])
    v = torch.randn(43, dtype=torch.float64)
    assert torch.allclose(lgn.HessianProbe(model, (x, y)) @ v, theirs @ v, atol=1e-10)


def test_chosen_parameters_give_their_block():
    model, (x, y) = network(), bits()
    whole = lgn.HessianProbe(model, (x, y)).dense()
    block = lgn.HessianProbe(model, (x, y), params="layers.1.*")
    where = slice(12 * 16, 24 * 16)
    assert torch.allclose(block.dense(), whole[where, where], atol=1e-14)
    with pytest.raises(InvalidInputError, match="no parameter matches 'layer9'"):
        lgn.HessianProbe(model, (x, y), params="layer9")


def test_scipy_sees_the_same_operator():
    model, (x, y) = network(), bits()
    probe = lgn.HessianProbe(model, (x, y))
    v = np.random.default_rng(0).normal(size=(probe.shape[0], 3))
    assert np.allclose(probe.to_scipy() @ v, (probe @ torch.from_numpy(v)).numpy(), atol=1e-14)


def test_float32_agrees_with_float64_to_rounding():
    (x, y), single, double = bits(), network(dtype=torch.float32), network()
    a, b = (lgn.HessianProbe(model, (x, y)).dense().double() for model in (single, double))
    assert (a - b).norm() / b.norm() < 1e-5


def test_a_probe_leaves_the_module_and_the_random_state_as_they_were():
    model, (x, y) = network().train(), bits()
    model.layers[0].logits.grad = torch.ones_like(model.layers[0].logits)
    state = torch.random.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    probe = lgn.HessianProbe(model, (x, y))
    probe.trace(n_probes=2)
    probe.density(n_probes=1, steps=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(model.layers[0].logits.grad, torch.ones_like(model.layers[0].logits))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class FrozenBackward(torch.autograd.Function):
    """x³ whose backward takes its input for a constant: the Hessian is symmetric and wrong."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0].detach())
        ctx.save_for_forward(inputs[0].detach())

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 3 * x.detach() ** 2

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return tangent * 3 * x.detach() ** 2


class Cubed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3).double()

    def forward(self, x):
        return FrozenBackward.apply(self.inner(x))


def test_a_layer_whose_backward_is_not_differentiable_is_caught():
    x, y = torch.randn(9, 4).double(), torch.arange(9) % 3
    with pytest.raises(NotDifferentiableError, match="finite differences"):
        lgn.HessianProbe(Cubed(), (x, y))


def test_a_module_in_eval_mode_without_a_gradient_is_refused_with_a_way_out():
    class Argmax(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x):
            return functional.one_hot(self.inner(x).argmax(-1), 3).float()

    x, y = torch.randn(5, 4), torch.arange(5) % 3
    with pytest.raises(NotDifferentiableError, match="carries no gradient"):
        lgn.HessianProbe(Argmax(), (x, y))


def layers(relaxation):
    layer = lgn.LogicLayer(8, 12, relaxation=relaxation, seed=0, dtype=torch.float64)
    return nn.Sequential(layer, lgn.GroupSum(3, 2.0)).train()


def test_a_straight_through_gradient_has_no_hessian():
    with pytest.raises(NotDifferentiableError, match="straight-through"):
        lgn.HessianProbe(layers(lgn.HardST()), bits())


def test_a_module_that_draws_noise_is_refused():
    with pytest.raises(InvalidInputError, match="draws random numbers"):
        lgn.HessianProbe(layers(lgn.GumbelST()), bits())


def test_soft_layers_in_a_sequential_are_probed_like_any_module():
    model, (x, y) = layers(lgn.Soft()), bits()
    logits = model[0].logits.detach()

    def loss(flat):
        out = torch.func.functional_call(model, {"0.logits": flat.reshape(12, 16)}, (x,))
        return functional.cross_entropy(out, y)

    exact = torch.autograd.functional.hessian(loss, logits.reshape(-1))
    assert torch.allclose(lgn.HessianProbe(model, (x, y)).dense(), exact, atol=1e-14)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (lambda x, y: iter([(x, y)]), "read once"),
        (lambda x, y: [], "no samples"),
        (lambda x, y: (x[:0], y[:0]), "no samples"),
        (lambda x, y: (x, y[:-1]), "must be equal"),
        (lambda x, y: (x.double() / 0, y), "NaN or infinite"),
        (lambda x, y: DataLoader(TensorDataset(x, y), shuffle=True), "shuffles"),
        (lambda x, y: [x, y], "pair"),
        (lambda x, y: 3, "expected"),
    ],
)
def test_data_that_are_no_fixed_loss_are_refused(data, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        lgn.HessianProbe(network(), data(*bits()))


def test_batches_that_differ_between_passes_are_refused():
    class Random:
        def __iter__(self):
            x, y = bits()
            yield x ^ (torch.rand(x.shape) > 0.5), y

    with pytest.raises(InvalidInputError, match="differ between two passes"):
        lgn.HessianProbe(network(), Random())


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_loss_that_is_no_mean_is_refused(reduction):
    with pytest.raises(InvalidInputError, match="mean over"):
        lgn.HessianProbe(network(), bits(), loss_fn=nn.CrossEntropyLoss(reduction=reduction))


def test_labels_out_of_range_are_refused():
    x, y = bits()
    with pytest.raises(InvalidInputError, match="out of bounds"):
        lgn.HessianProbe(network(), (x, y + 7))


def test_a_dense_hessian_that_does_not_fit_is_refused_with_the_numbers():
    probe = lgn.HessianProbe(network(), bits())
    with pytest.raises(InvalidInputError, match="384 parameters"):
        probe.dense(limit=1000)


def test_frozen_noise_is_the_mean_over_its_draws():
    model, (x, y) = network(tau=1.5), bits()
    noise = lgn.GumbelNoise(tau=0.8, draws=3, seed=5)
    probe = lgn.HessianProbe(model, (x, y), noise=noise)
    total = torch.zeros(probe.shape, dtype=torch.float64)
    for draw in range(3):
        moved = network(tau=0.8)
        with torch.no_grad():
            for index, layer in enumerate(moved.layers):
                key = lgn.NoiseKey(5, lgn.Purpose.PROBE, draw)
                from lgn_analysis.gates.noise import gumbel

                layer.logits += gumbel(key, index, layer.n_out, dtype=torch.float64)
        total += lgn.HessianProbe(moved, (x, y)).dense() / 3
    assert torch.allclose(probe.dense(), total, atol=1e-14)
    with pytest.raises(InvalidInputError, match="needs a LogicNetwork"):
        lgn.HessianProbe(perceptron(), (x[:, :4].double(), y), noise=noise)


@pytest.mark.parametrize(
    ("what", "options", "sentence"),
    [
        ("trace", {"sketch": 4}, "method='activation' has no option 'sketch'; it has rtol"),
        ("trace", {"method": "hutchinson", "sketch": 4}, "'sketch'; it has .*, probes, max_bytes"),
        ("trace", {"method": "hutch++", "max_bytes": 1}, "allows 1 byte"),
        ("trace", {"method": "xtrace", "probes": "gaussian"}, "method='xtrace' has no option"),
        ("eigs", {"method": "dense", "max_matvecs": 9}, "method='dense' has no option 'max_m"),
        ("density", {"method": "dense", "deflate": 3}, "method='dense' has no option 'deflate'"),
    ],
)
def test_an_option_that_a_method_has_not_is_refused_by_name(what, options, sentence):
    probe = lgn.HessianProbe(network(), bits())
    with pytest.raises(InvalidInputError, match=sentence):
        getattr(probe, what)(**options)
    assert probe.n_matvecs == 0


@pytest.mark.parametrize("what", ["trace", "frobenius", "eigs", "density"])
def test_every_option_of_an_estimator_is_in_its_signature_and_explained(what):
    method = getattr(lgn.HessianProbe, what)
    names = [n for n in inspect.signature(method).parameters if n not in ("self", "operator")]
    assert all(re.search(rf"^ +{name}: ", method.__doc__, re.MULTILINE) for name in names)
    assert not [p for p in inspect.signature(method).parameters.values() if p.kind is p.VAR_KEYWORD]
