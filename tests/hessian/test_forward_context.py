"""Modules are differentiated by formulas that can be, and what draws random numbers is named."""

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradgradcheck
from torch.func import functional_call, grad, jvp
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from lgn_analysis.hessian.checks.draws import all_generators, draws_random
from lgn_analysis.hessian.operators.forward_context import differentiable_forward
from lgn_analysis.hessian.operators.unfused import UNFUSED

F64 = torch.float64


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=F64, requires_grad=True)


BAGS = torch.tensor([0, 2, 2, 1, 3, 0, 1])
OFFSETS = torch.tensor([0, 2, 2, 5])
LABELS = torch.tensor([0, 2, 1])

FUSED = {
    "weight_norm": (lambda v, g: torch._weight_norm(v, g, 0), (3, 4), (3, 1)),
    "weight_norm of columns": (lambda v, g: torch._weight_norm(v, g, 1), (3, 4), (1, 4)),
    "weight_norm of a kernel": (lambda v, g: torch._weight_norm(v, g, 0), (3, 2, 2), (3, 1, 1)),
    "weight_norm and norms": (
        lambda v, g: torch._weight_norm_interface(v, g, 0)[0],
        (3, 4),
        (3, 1),
    ),
    "attention": (
        functional.scaled_dot_product_attention,
        (1, 2, 3, 4),
        (1, 2, 3, 4),
        (1, 2, 3, 4),
    ),
    "causal attention": (
        lambda q, k: functional.scaled_dot_product_attention(q, k, k, is_causal=True),
        (1, 2, 3, 4),
        (1, 2, 3, 4),
    ),
    "hardsigmoid": (functional.hardsigmoid, (4, 5)),
    "hardsigmoid in place": (lambda x: functional.hardsigmoid(2 * x, inplace=True), (4, 5)),
    "cdist": (torch.cdist, (3, 4), (2, 4)),
    "cdist to itself": (lambda x: torch.cdist(x, x), (3, 4)),
    "cdist of another norm": (lambda x, y: torch.cdist(x, y, p=3.0), (3, 4), (2, 4)),
    "cdist, largest": (lambda x, y: torch.cdist(x, y, p=float("inf")), (3, 4), (2, 4)),
    "cdist, sum": (lambda x, y: torch.cdist(x, y, p=1.0) ** 2, (3, 4), (2, 4)),
    "pdist": (functional.pdist, (4, 3)),
    "bags, mean": (lambda w: functional.embedding_bag(BAGS[:6].view(2, 3), w), (4, 3)),
    "bags, sum": (lambda w: functional.embedding_bag(BAGS, w, OFFSETS, mode="sum"), (4, 3)),
    "bags, max": (lambda w: functional.embedding_bag(BAGS, w, OFFSETS, mode="max"), (4, 3)),
    "bags, padding": (lambda w: functional.embedding_bag(BAGS, w, OFFSETS, padding_idx=0), (4, 3)),
    "bags, last offset": (
        lambda w: functional.embedding_bag(
            BAGS, w, torch.tensor([0, 3, 7]), include_last_offset=True
        ),
        (4, 3),
    ),
    "bags, weighted": (
        lambda w, s: functional.embedding_bag(BAGS, w, OFFSETS, mode="sum", per_sample_weights=s),
        (4, 3),
        (7,),
    ),
    "multi_margin_loss": (lambda x: functional.multi_margin_loss(x, LABELS, p=2), (3, 4)),
    "multi_margin_loss, weighted": (
        lambda x: functional.multi_margin_loss(x, LABELS, weight=torch.arange(4.0, dtype=F64)),
        (3, 4),
    ),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_operations_keep_their_values_and_gain_second_derivatives(name):
    function, *shapes = FUSED[name]
    inputs = [normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    expected = function(*inputs)
    with differentiable_forward():
        assert torch.allclose(function(*inputs), expected, rtol=1e-12, atol=1e-14)
        # their squares: where the function is linear in pieces, its own second derivative is zero
        assert gradgradcheck(lambda *inputs: function(*inputs) ** 2, inputs)


def test_points_that_coincide_have_distance_zero_and_a_hessian():
    """The squared distances are a quadratic form, also on the diagonal of zeros."""
    points = normal(3, 2).detach()

    def total(points):
        return torch.cdist(points, points).square().sum() / 2

    with differentiable_forward():
        hessian = torch.autograd.functional.hessian(total, points).reshape(6, 6)
    quadratic = torch.kron(3 * torch.eye(3, dtype=F64) - 1, torch.eye(2, dtype=F64))
    assert torch.allclose(hessian, 2 * quadratic, atol=1e-13)


def test_every_formula_is_compared():
    called = set()

    class Seen(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            called.add(func)
            return func(*args, **(kwargs or {}))

    for function, *shapes in FUSED.values():
        with Seen():
            function(*(normal(*shape) for shape in shapes))
    assert set(UNFUSED) - called == {torch._C._nn.hardsigmoid}  # what functional.hardsigmoid calls


def weight_norm(module):
    with pytest.warns(FutureWarning, match="deprecated"):
        return torch.nn.utils.weight_norm(module)


NETWORKS = (
    "old weight norm",
    "new weight norm",
    "spectral norm",
    "encoder, training",
    "encoder",
    "checkpointed",
)


def networks():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    return {
        "old weight norm": weight_norm(nn.Linear(4, 3)),
        "new weight norm": parametrizations.weight_norm(nn.Linear(4, 3)),
        "spectral norm": parametrizations.spectral_norm(nn.Linear(4, 3)).eval(),
        "encoder, training": layer.train(),
        "encoder": nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(),
        "checkpointed": Checkpointed(layer),
    }


class Checkpointed(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_ways_of_differentiating_agree(name):
    model = networks()[name].double()
    x, params = normal(2, 3, 4).detach(), dict(model.named_parameters())
    direction = {name: normal(*value.shape).detach() for name, value in params.items()}

    def loss(params):
        with differentiable_forward():
            return functional_call(model, params, (x,)).square().mean()

    with differentiable_forward():
        first = torch.autograd.grad(loss(params), list(params.values()), create_graph=True)
        slope = sum((g * v).sum() for g, v in zip(first, direction.values(), strict=True))
        backward = torch.autograd.grad(slope, list(params.values()))
    if name == "checkpointed":  # torch.func takes no hooks on saved tensors
        model = model.inner
        params, direction = (
            {name.removeprefix("inner."): value for name, value in part.items()}
            for part in (params, direction)
        )
    at = {name: value.detach() for name, value in params.items()}
    forward = jvp(grad(loss), (at,), (direction,))[1]
    for one, other in zip(backward, forward.values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def switches():
    backends = torch.backends
    return (
        backends.cuda.flash_sdp_enabled(),
        backends.cuda.mem_efficient_sdp_enabled(),
        backends.cuda.math_sdp_enabled(),
        backends.cuda.cudnn_sdp_enabled(),
        backends.mha.get_fastpath_enabled(),
    )


def test_switches_of_the_process_are_put_back_after_the_last_of_several_threads():
    before = switches()
    inside = (False, False, True, False, False)
    barrier, seen = threading.Barrier(3), []

    def stay(rounds):
        with differentiable_forward(), differentiable_forward():
            for _ in range(3):
                barrier.wait(10)
                if rounds:
                    rounds -= 1
                    seen.append(switches())
            barrier.wait(10)

    def leave_early():
        with differentiable_forward():
            barrier.wait(10)
        for _ in range(3):
            barrier.wait(10)

    threads = [threading.Thread(target=stay, args=(3,)), threading.Thread(target=leave_early)]
    threads.append(threading.Thread(target=stay, args=(0,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [inside] * 3
    assert switches() == before
    with pytest.raises(ZeroDivisionError), differentiable_forward():
        raise ZeroDivisionError
    assert switches() == before


RNG = np.random.default_rng(0)


class Drawing(nn.Module):
    """Returns x, after a draw by ``draw``."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw
        self.own = torch.Generator()
        self.numpy_own = np.random.default_rng(0)
        self.python_own = random.Random(0)

    def forward(self, x):
        self.draw(self, x)
        return x


class NamesAGenerator(nn.Module):
    def forward(self, x):
        return x if RNG.random() < 0.1 else 2 * x


def helper():
    return RNG.random()


class CallsAHelper(nn.Module):
    def forward(self, x):
        return x if helper() < 0.1 else 2 * x


class Settings:
    def __init__(self):
        self.numpy = np.random.default_rng(0)
        self.python = random.Random(0)
        self.old = np.random.RandomState(0)


SETTINGS = [Settings()]


class SometimesDeep(nn.Module):
    def forward(self, x):
        return x if self.training and torch.rand(()) < 0.1 else 2 * x


X = torch.tensor([[1.0, -1.0, 2.0], [0.5, -2.0, -3.0]])
QKV = torch.ones(1, 1, 2, 4)
DRAWING = {
    "torch.bernoulli_ in Dropout": nn.Dropout(0.5),
    "torch.rand in SometimesDeep": SometimesDeep(),
    "torch.rand in Drawing": Drawing(lambda self, x: torch.rand((), generator=self.own)),
    "torch.randn_like in Drawing": Drawing(lambda self, x: torch.randn_like(x)),
    "torch.exponential_ in Drawing": Drawing(lambda self, x: functional.gumbel_softmax(x)),
    "torch.rrelu_with_noise in RReLU": nn.RReLU(),
    "torch.bernoulli_ in LSTM": nn.LSTM(3, 3, 2, dropout=0.5),
    "torch.bernoulli_ in Drawing": Drawing(
        lambda self, x: functional.scaled_dot_product_attention(QKV, QKV, QKV, dropout_p=0.5)
    ),
    "Python's random": Drawing(lambda self, x: random.random()),
    "numpy.random": Drawing(lambda self, x: np.random.rand()),  # noqa: NPY002
    "numpy_own of Drawing": Drawing(lambda self, x: self.numpy_own.random()),
    "python_own of Drawing": Drawing(lambda self, x: self.python_own.random()),
    "RNG of NamesAGenerator": NamesAGenerator(),
    "a Generator": CallsAHelper(),
    "a Random": Drawing(lambda self, x: SETTINGS[0].python.random()),
    "a RandomState": Drawing(lambda self, x: SETTINGS[0].old.rand()),
}


@pytest.mark.parametrize("name", DRAWING)
def test_what_draws_is_named_every_time_and_costs_no_random_numbers(name):
    model = nn.Sequential(DRAWING[name])

    def states():  # the global ones and the module's own: others may be another thread's
        return (
            torch.get_rng_state().tolist(),
            random.getstate(),
            str(np.random.get_state()),  # noqa: NPY002
            [
                (
                    part.own.get_state().tolist(),
                    part.python_own.getstate(),
                    str(part.numpy_own.bit_generator.state),
                )
                for part in model
                if isinstance(part, Drawing)
            ],
        )

    before = states()
    with differentiable_forward():
        assert {draws_random(lambda: model(X), all_generators(model)) for _ in range(5)} == {name}
    assert states() == before


def seeded_anew(self, x):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random.Random(0).random()
        return torch.rand(3) + torch.rand(3, generator=torch.Generator().manual_seed(1))


QUIET = {
    "dropout in evaluation": nn.Dropout(0.5).eval(),
    "dropout of nothing": nn.Dropout(0.0),
    "stochastic depth in evaluation": SometimesDeep().eval(),
    "randomised ReLU in evaluation": nn.RReLU().eval(),
    "LSTM": nn.LSTM(3, 3, 2, dropout=0.5).eval(),
    "attention": Drawing(lambda self, x: functional.scaled_dot_product_attention(QKV, QKV, QKV)),
    "encoder": nn.TransformerEncoderLayer(3, 1, 4, dropout=0.0),
    "seeded by itself": Drawing(seeded_anew),
}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", QUIET)
def test_what_draws_nothing_that_counts_is_not_accused(name, fused):
    model = QUIET[name]
    if fused:
        assert draws_random(lambda: model(X), all_generators(model)) is None
    else:
        with differentiable_forward():
            assert draws_random(lambda: model(X), all_generators(model)) is None
