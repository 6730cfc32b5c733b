"""What has no Hessian is refused by name, in any dtype, on any batch."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError, NotDifferentiableError
from tests.hessian.cases import bits, network, perceptron


class Wrapped(nn.Module):
    """A linear layer with ``function`` on its output."""

    def __init__(self, function, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(4, 3).to(dtype)
        self.function = function

    def forward(self, x):
        return self.function(self.inner(x))


class Cube(torch.autograd.Function):
    """x³ in the style that torch.func does not take; differentiable again and again."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 3 * x**2


class CubeOpaqueInFloat32(Cube):
    """A kernel for float32 alone whose backward takes x for a constant."""

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 3 * (x.detach() if x.dtype == torch.float32 else x) ** 2


class CubeWithAnotherGradient(Cube):
    """A consistent, symmetric Hessian of something that is not the loss."""

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


class CubeOnce(Cube):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 3 * x**2


def data(n=24, dtype=torch.float64):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return x, torch.arange(n) % 3


def straight_through(u):
    return u + (u.round() - u).detach()


def test_a_function_that_torch_func_does_not_take_is_differentiated_backwards():
    probe = lgn.HessianProbe(Wrapped(Cube.apply), data())
    plain = lgn.HessianProbe(Wrapped(lambda u: u**3), data())
    assert probe.operator.method == "double-backward"
    assert torch.allclose(probe.dense(), plain.dense(), atol=1e-14)


@pytest.mark.parametrize(
    ("function", "loss_fn"),
    [
        (straight_through, nn.CrossEntropyLoss()),
        (straight_through, lambda output, y: output.mean()),  # its H v is zero, as differences say
        (CubeWithAnotherGradient.apply, nn.CrossEntropyLoss()),
    ],
)
def test_a_gradient_of_another_function_has_no_hessian(function, loss_fn):
    with pytest.raises(NotDifferentiableError, match="not the derivative of its loss"):
        lgn.HessianProbe(Wrapped(function), data(), loss_fn=loss_fn)


def test_a_backward_that_is_opaque_in_float32_alone_is_caught():
    x, y = data(dtype=torch.float32)
    model = Wrapped(CubeOpaqueInFloat32.apply, torch.float32)
    with pytest.raises(NotDifferentiableError, match="differs from float64"):
        lgn.HessianProbe(model, (x, y))


def test_a_backward_that_says_so_itself_is_refused():
    with pytest.raises(NotDifferentiableError):
        lgn.HessianProbe(Wrapped(CubeOnce.apply), data())


def test_the_methods_agree():
    model, (x, y) = perceptron(), data()
    operator = lgn.HessianProbe(model, (x, y), batch_size=7).operator
    v = torch.randn(operator.shape[0], 3, dtype=torch.float64)
    backward = operator.matmat(v)
    operator.method = "forward-over-reverse"
    assert torch.allclose(operator.matmat(v), backward, atol=1e-13)


def normalised():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()


def test_batch_statistics_are_refused_over_several_batches_and_left_alone_in_one():
    model = normalised()
    with pytest.raises(InvalidInputError, match="not the mean over its samples"):
        lgn.HessianProbe(model, data(), batch_size=8)
    lgn.HessianProbe(model, data()) @ torch.ones(53, dtype=torch.float64)
    assert model[1].num_batches_tracked == 0


def test_class_weights_of_torch_are_the_mean_over_all_batches_and_those_of_a_closure_are_refused():
    weight = torch.tensor([1.0, 5.0, 9.0], dtype=torch.float64)
    model, (x, y) = perceptron(), data()
    loss_fn = nn.CrossEntropyLoss(weight=weight)
    whole = lgn.HessianProbe(model, (x, y), loss_fn=loss_fn).dense()
    split = lgn.HessianProbe(model, (x, y), loss_fn=loss_fn, batch_size=7).dense()
    assert torch.allclose(split, whole, atol=1e-14)
    with pytest.raises(InvalidInputError, match="several batches add up to no mean"):
        lgn.HessianProbe(model, (x, y), loss_fn=lambda o, t: loss_fn(o, t), batch_size=7)


def test_a_label_out_of_range_is_found_in_any_batch():
    x, y = data()
    y[20] = 7
    with pytest.raises(InvalidInputError, match=r"labels must lie in 0\.\.2, got 0\.\.7"):
        lgn.HessianProbe(perceptron(), (x, y), batch_size=8)


def test_a_loader_costs_no_random_numbers():
    model, loader = perceptron(), DataLoader(TensorDataset(*data()), batch_size=5)
    state = torch.random.get_rng_state()
    lgn.HessianProbe(model, loader).trace(n_probes=2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_noise_reaches_the_layers_that_are_not_probed():
    model, pair, noise = network(), bits(), lgn.GumbelNoise(draws=2)
    whole = lgn.HessianProbe(model, pair, noise=noise).dense()
    where = slice(12 * 16, 24 * 16)
    block = lgn.HessianProbe(model, pair, noise=noise, params="layers.1.*").dense()
    assert torch.allclose(block, whole[where, where], atol=1e-14)


def test_tau_is_the_temperature_of_the_loss():
    pair = bits()
    other = lgn.HessianProbe(network(tau=1.0), pair, tau=0.6).dense()
    assert torch.allclose(other, lgn.HessianProbe(network(tau=0.6), pair).dense(), atol=1e-14)
    with pytest.raises(InvalidInputError, match="give one"):
        lgn.HessianProbe(network(), pair, tau=0.6, noise=lgn.GumbelNoise(tau=0.7))
    with pytest.raises(InvalidInputError, match="needs a LogicNetwork"):
        lgn.HessianProbe(perceptron(), data(), tau=0.6)
