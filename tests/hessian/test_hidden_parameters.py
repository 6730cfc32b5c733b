"""A loss or a module that reaches parameters by a second way is probed as it is called."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.hessian import ModuleHessian, NetworkHessian
from tests.hessian.cases import bits, live_hessian, network, perceptron

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(40) % 3
ELSEWHERE = torch.randn(9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def penalised(model, strength=1.0, power=2):
    def loss(output, y):
        penalty = sum(p.pow(power).sum() for p in model.parameters())
        return functional.cross_entropy(output, y) + strength * penalty

    return loss


def at_zero():
    model = nn.Linear(4, 3).double()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def with_list(model, w):
    model.others = [w]
    return model


class SecondReference(nn.Module):
    """A parameter that is registered, and used through a plain list."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.b = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.ws = [self.b]

    def forward(self, x):
        return self.a * self.ws[0] ** 2 * x


class ViewOfAWeight(nn.Module):
    """Columns of a weight that were taken when the module was made."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 5).double(), nn.Linear(5, 3).double()
        self.columns = [self.last.weight[:, :2]]

    def forward(self, x):
        hidden = self.first(x).tanh()
        return self.last(hidden) + hidden[:, :2] @ self.columns[0].T


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 5).double(), nn.Linear(5, 3).double()

    def forward(self, x):
        hidden = checkpoint(lambda u: torch.tanh(self.first(u)), x, use_reentrant=False)
        return self.last(hidden)


class CheckpointedInParts(nn.Module):
    def __init__(self):
        super().__init__()
        layers = nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)
        self.layers = nn.Sequential(*layers).double()

    def forward(self, x):
        return checkpoint_sequential(self.layers, 2, x, use_reentrant=False)


def tuple_of(model, loss_fn=functional.cross_entropy, y=Y):
    return model, loss_fn, y


def penalty_of_a_module(strength=1.0, power=2, make=perceptron):
    model = make()
    return tuple_of(model, penalised(model, strength, power))


def captured_in_a_partial():
    model = perceptron()

    def loss(output, y, w):
        return functional.cross_entropy(output, y) + w.pow(4).sum()

    return tuple_of(model, functools.partial(loss, w=model[0].weight))


def calls_the_model_again():
    model = perceptron()
    return tuple_of(
        model, lambda o, y: functional.cross_entropy(o, y) + model(ELSEWHERE).square().mean()
    )


class LossWithTheModel(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.held = [model]

    def forward(self, output, y):
        return functional.cross_entropy(output, y) + self.held[0][2].weight.square().sum()


def a_loss_that_is_a_module():
    model = perceptron()
    return tuple_of(model, LossWithTheModel(model))


LIVE = {
    "an L2 penalty": penalty_of_a_module,
    "a small L2 penalty": lambda: penalty_of_a_module(5e-5),
    "an L4 penalty": lambda: penalty_of_a_module(power=4),
    "an L2 penalty where it has no gradient": lambda: penalty_of_a_module(1e-3, make=at_zero),
    "a parameter in a partial": captured_in_a_partial,
    "a loss that calls the model again": calls_the_model_again,
    "a loss that holds the model": a_loss_that_is_a_module,
    "a view that was made before": lambda: tuple_of(ViewOfAWeight()),
    "checkpointed activations": lambda: tuple_of(Checkpointed()),
    "activations checkpointed in parts": lambda: tuple_of(CheckpointedInParts()),
    "a scripted module": lambda: tuple_of(torch.jit.script(perceptron())),
    "a traced module": lambda: tuple_of(torch.jit.trace(perceptron(), X[:3])),
    "DataParallel": lambda: tuple_of(nn.DataParallel(perceptron())),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", LIVE.values(), ids=LIVE.keys())
@pytest.mark.parametrize("batch_size", [None, 16])
def test_the_hessian_is_that_of_plain_calls(case, batch_size):
    model, loss_fn, y = case()
    probe = lgn.HessianProbe(model, (X, y), loss_fn=loss_fn, batch_size=batch_size)
    assert probe.operator.method == "live"
    assert "live" in repr(probe)
    expected = live_hessian(model, X, y, loss_fn)
    assert torch.allclose(probe.dense(), expected, rtol=1e-10, atol=1e-12)
    probe.check()


class HiddenInLaterSamples(nn.Module):
    """A weight's second reference that only samples far out use."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(4, 3).double()
        self.weights = [self.inner.weight]

    def forward(self, x):
        output = self.inner(x).tanh()
        return torch.where(x[:, :1] > 5, output + x @ self.weights[0].T ** 2 / 10, output)


@pytest.mark.parametrize("loss_fn", [functional.cross_entropy, lambda o, y: o.square().mean()])
@pytest.mark.parametrize("batch_size", [None, 32])
def test_every_batch_is_compared_with_plain_calls(loss_fn, batch_size):
    x, y = X.repeat(3, 1), Y.repeat(3)
    x[100:] += 10
    model = HiddenInLaterSamples()
    probe = lgn.HessianProbe(model, (x, y), loss_fn=loss_fn, batch_size=batch_size)
    assert torch.allclose(probe.dense(), live_hessian(model, x, y, loss_fn), atol=1e-12)


class Keeps(nn.Module):
    """Doubles its weight once, for all calls."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3).double()
        self.kept = None

    def forward(self, x):
        if self.kept is None:
            self.kept = 2 * self.inner.weight
        return (x @ self.kept.T).tanh()


def test_what_was_computed_from_parameters_and_is_kept_is_refused():
    with pytest.raises(NotDifferentiableError, match="keeps from call to call"):
        lgn.HessianProbe(Keeps(), (X, Y))


def test_a_penalty_adds_its_trace():
    model = nn.Linear(4, 1)
    x, y = X.float(), torch.randn(40, 1)

    def loss(output, y):
        penalty = sum(p.square().sum() for p in model.parameters())
        return functional.mse_loss(output, y) + penalty

    with_it = lgn.HessianProbe(model, (x, y), loss_fn=loss)
    without = lgn.HessianProbe(model, (x, y), loss_fn=functional.mse_loss)
    assert float(with_it.dense().trace() - without.dense().trace()) == pytest.approx(10, abs=1e-5)
    unchecked = lgn.HessianProbe(model, (x, y), loss_fn=loss, check=False)
    assert torch.equal(unchecked.dense(), with_it.dense())


def test_a_second_reference_in_closed_form():
    x, y = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    probe = lgn.HessianProbe(SecondReference(), (x, y), loss_fn=functional.mse_loss)
    expected = torch.tensor([[2.0, 8.0], [8.0, 12.0]], dtype=torch.float64)
    assert torch.allclose(probe.dense(), expected)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_block_of_a_penalised_module(frozen):
    model = perceptron()
    loss_fn = penalised(model)
    expected = live_hessian(model, X, Y, loss_fn, list(model[0].parameters()))
    model[0].requires_grad_(not frozen)
    probe = lgn.HessianProbe(model, (X, Y), loss_fn=loss_fn, params="0")
    assert torch.allclose(probe.dense(), expected, atol=1e-12)
    assert [p.requires_grad for p in model[0].parameters()] == [not frozen] * 2


def test_a_displaced_live_operator_is_that_of_a_moved_model():
    model = perceptron()
    loss_fn = penalised(model, power=4)
    probe = lgn.HessianProbe(model, (X, Y), loss_fn=loss_fn)
    before = probe.dense()
    step = torch.linspace(-0.1, 0.1, probe.shape[0], dtype=torch.float64)
    values = [p.detach().clone() for p in model.parameters()]
    moved = probe.operator.displaced(step)
    loss, product = moved.loss(), moved.matvec(step)
    assert all(torch.equal(p, v) for p, v in zip(model.parameters(), values, strict=True))
    with torch.no_grad():
        point = nn.utils.parameters_to_vector(model.parameters()) + step
        nn.utils.vector_to_parameters(point, model.parameters())
    again = lgn.HessianProbe(model, (X, Y), loss_fn=loss_fn)
    assert loss == pytest.approx(again.loss(), rel=1e-14)
    assert torch.allclose(product, again @ step, atol=1e-13)
    assert torch.equal(probe.dense(), before)  # the point at which it was made


def test_a_live_probe_leaves_the_module_as_it_was_even_where_a_call_raises():
    model = perceptron()
    loss_fn = penalised(model)
    probe = lgn.HessianProbe(model, (X, Y), loss_fn=loss_fn)
    for p in model.parameters():
        p.requires_grad_(False)
        p += 1.0
    values = [p.clone() for p in model.parameters()]
    probe.loss()
    model.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        probe.loss()
    assert all(torch.equal(p, v) for p, v in zip(model.parameters(), values, strict=True))
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("penalty", [False, True])
def test_hooks_on_gradients_are_no_part_of_the_loss(penalty):
    model, plain = perceptron(), perceptron()
    handle = model[0].weight.register_hook(torch.zeros_like)
    makers = {False: lambda _: functional.cross_entropy, True: penalised}
    probe = lgn.HessianProbe(model, (X, Y), loss_fn=makers[penalty](model))
    expected = live_hessian(plain, X, Y, makers[penalty](plain))
    assert torch.allclose(probe.dense(), expected, atol=1e-12)
    functional.cross_entropy(model(X), Y).backward()
    assert not model[0].weight.grad.any()  # the hook is still there
    handle.remove()
    functional.cross_entropy(model(X), Y).backward()
    assert model[0].weight.grad.any()


def test_a_term_that_a_forward_leaves_behind_needs_no_plain_calls():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = perceptron()

        def forward(self, x):
            hidden = self.inner[0](x).tanh()
            self.term = hidden.square().mean()
            return self.inner[2](hidden)

    model = Auxiliary()

    def loss(output, y):
        return functional.cross_entropy(output, y) + model.term

    probe = lgn.HessianProbe(model, (X, Y), loss_fn=loss)
    assert probe.operator.method == "double-backward"
    assert torch.allclose(probe.dense(), live_hessian(model, X, Y, loss), atol=1e-12)


class Soft(nn.Module):
    """A network as its soft mode computes it."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def forward(self, x):
        return self.inner(x, mode="soft")


def network_again(model):
    x, _ = bits(5, seed=3)
    return lambda o, y: functional.cross_entropy(o, y) + model(x, mode="soft").square().mean()


@pytest.mark.parametrize("make", [penalised, network_again])
def test_a_loss_that_reads_the_logits_of_a_network(make):
    model, (x, y) = network(), bits(30)
    loss_fn = make(model)
    probe = lgn.HessianProbe(model, (x, y), loss_fn=loss_fn)
    assert isinstance(probe.operator, ModuleHessian)
    assert probe.operator.method == "live"
    assert torch.allclose(probe.dense(), live_hessian(Soft(model), x, y, loss_fn), atol=1e-13)
    with pytest.raises(InvalidInputError, match="reads the network's logits"):
        lgn.HessianProbe(model, (x, y), loss_fn=loss_fn, noise=lgn.GumbelNoise(draws=2))
    with pytest.raises(InvalidInputError, match="reads the network's logits"):
        lgn.HessianProbe(model, (x, y), loss_fn=loss_fn, tau=0.5)


def test_a_loss_of_outputs_alone_keeps_a_network_s_kernels():
    own = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))  # the loss's, not the network's

    def loss(output, y):
        return functional.cross_entropy(own * output, y)

    model, (x, y) = network(), bits(30)
    probe = lgn.HessianProbe(model, (x, y), loss_fn=loss)
    assert isinstance(probe.operator, NetworkHessian)
    assert torch.allclose(probe.dense(), live_hessian(Soft(model), x, y, loss), atol=1e-13)


ANALYSES = {
    "landscape": lambda model, pair, loss: lgn.landscape(model, pair, loss_fn=loss, dims=1, grid=3),
    "anatomy": lambda model, pair, loss: lgn.gap_anatomy(model, pair, loss_fn=loss),
    "lemma": lambda model, pair, loss: lgn.lemma1(
        model, pair, [0.5], draws=2, order=2, trace_probes=2, loss_fn=loss
    ),
}


@pytest.mark.parametrize("analyse", ANALYSES.values(), ids=ANALYSES.keys())
def test_analyses_of_a_loss_of_outputs_refuse_a_penalty(analyse):
    model = network()
    with pytest.raises(InvalidInputError, match="reads the network's parameters beside"):
        analyse(model, bits(20), penalised(model))
