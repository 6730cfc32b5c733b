"""Modules and data as people have them: probed right, or refused by the cause."""

import random
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError, NotDifferentiableError
from tests.hessian.cases import bits, live_hessian, network, perceptron

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(96, 4, generator=GENERATOR, dtype=torch.float64)
Y = torch.arange(96) % 3
VALUES = torch.randn(96, 4, generator=GENERATOR, dtype=torch.float64)


def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 3).double()


def check(model, x, y, loss_fn=functional.cross_entropy, tol=1e-12, **options):
    probe = lgn.HessianProbe(model, (x, y), loss_fn=loss_fn, **options)
    expected = live_hessian(model, x.clone(), y.clone(), loss_fn)
    assert float((probe.dense() - expected).norm()) <= tol * float(expected.norm())
    return probe


class WritesToItsInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = linear()

    def forward(self, x):
        x.mul_(2)
        x.add_(1)
        return self.inner(x).tanh()


def rectified():
    return nn.Sequential(nn.ReLU(inplace=True), perceptron())


@pytest.mark.parametrize("make", [WritesToItsInput, rectified])
@pytest.mark.parametrize("batch_size", [None, 40])
def test_inputs_that_a_module_writes_to_are_left_alone(make, batch_size):
    x = X.clone()
    probe = check(make(), x, Y, batch_size=batch_size)
    probe.check()
    probe.trace(n_probes=2)
    assert torch.equal(x, X)


def test_targets_that_a_loss_writes_to_are_left_alone():
    def loss(output, y):
        y[y == 2] = -100
        return functional.cross_entropy(output, y)

    y, model = Y.clone(), linear()
    probe = lgn.HessianProbe(model, (X, y), loss_fn=loss)
    expected = live_hessian(model, X, torch.where(Y == 2, -100, Y))
    assert torch.allclose(probe.dense(), expected, atol=1e-13)
    assert torch.equal(y, Y)


class Counts(nn.Module):
    """Counts its calls in a buffer, in place or by a new one, in any mode."""

    def __init__(self, in_place):
        super().__init__()
        self.inner, self.in_place = linear(), in_place
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.in_place:
            self.calls += 1
        else:
            self.calls = self.calls + 1
        return self.inner(x)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("penalty", [False, True])
def test_buffers_are_left_as_they_were(in_place, penalty):
    model = Counts(in_place).eval()
    buffer = model.calls

    def loss(output, y):
        return functional.cross_entropy(output, y) + penalty * model.inner.weight.square().sum()

    probe = lgn.HessianProbe(model, (X, Y), loss_fn=loss)
    probe.dense()
    assert model.calls is buffer
    assert int(buffer) == 0


def test_a_probe_shows_buffers_and_modes_of_the_moment_it_was_made():
    torch.manual_seed(0)
    layers = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3)
    model = nn.Sequential(*layers).double().eval()
    probe = lgn.HessianProbe(model, (X, Y))
    expected = live_hessian(model, X, Y)
    model.train()
    model(X + 3)
    assert torch.allclose(probe.dense(), expected, atol=1e-12)
    probe.check()
    assert all(part.training for part in model.modules())


class StochasticDepth(nn.Module):
    def __init__(self, draw):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)]).double()
        self.last = linear()
        self.draw = draw

    def forward(self, x):
        for layer in self.layers:
            if self.training and self.draw() < 0.1:
                continue
            x = x + layer(x).tanh()
        return self.last(x)


DRAWS = {
    "torch": lambda: torch.rand(()),
    "numpy": np.random.random,
    "random": random.random,
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_a_forward_that_is_random_now_and_then_is_refused_every_time(draw):
    for seed in range(12):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  (that state is what is meant)
        random.seed(seed)
        with pytest.raises(InvalidInputError, match="draws random numbers"):
            lgn.HessianProbe(StochasticDepth(draw), (X, Y), check=False)
    check(StochasticDepth(draw).eval(), X, Y)


class NoisyOnOneBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = linear()

    def forward(self, x):
        noise = torch.randn(len(x), 3) if torch.equal(x[0], X[80]) else 0.0
        return self.inner(x) + noise


def test_draws_on_a_later_batch_or_in_the_loss_are_seen():
    with pytest.raises(InvalidInputError, match="draws random numbers"):
        lgn.HessianProbe(NoisyOnOneBatch(), (X, Y), batch_size=16)

    def loss(output, y):
        return functional.cross_entropy(functional.dropout(output, 0.1), y)

    for model, x in ((linear(), X), (network(), bits(96)[0])):
        with pytest.raises(InvalidInputError, match="draws random numbers"):
            lgn.HessianProbe(model, (x, Y), loss_fn=loss)


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False)])
def test_dropout_that_drops_nothing_is_accepted(p, training):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(p), nn.Linear(5, 3)).double()
    check(model.train(training), X, Y)


def test_what_a_module_keeps_from_call_to_call_is_no_random_number():
    model = linear()
    model.calls = 0

    def count(module, inputs, output):
        module.calls += 1
        return output * module.calls

    model.register_forward_hook(count)
    with pytest.raises(InvalidInputError, match="keeps something from call to call"):
        lgn.HessianProbe(model, (X, Y))


class Reentrant(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = linear(), nn.Linear(3, 3).double()

    def forward(self, x):
        return self.last(checkpoint(torch.tanh, self.first(x), use_reentrant=True))


def test_reentrant_checkpoints_are_refused_in_the_words_of_torch():
    with pytest.raises(InvalidInputError, match="set use_reentrant=False"):
        lgn.HessianProbe(Reentrant(), (X, Y))


class Physics(nn.Module):
    """Derivatives of a network with respect to its inputs."""

    def __init__(self, derivative):
        super().__init__()
        torch.manual_seed(0)
        self.u = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        self.derivative = derivative

    def forward(self, x):
        return self.derivative(self.u, x)


def by_autograd(u, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(u(x).sum(), x, create_graph=True)[0]


def by_autograd_on_the_input(u, x):
    x.requires_grad_()
    return torch.autograd.grad(u(x).sum(), x, create_graph=True)[0]


def by_func(u, x):
    return torch.vmap(torch.func.grad(lambda point: u(point)[0]))(x)


def by_jacobian(u, x):
    return torch.vmap(torch.func.jacrev(u))(x)[:, 0]


def laplacian(u, x):
    return torch.vmap(torch.func.hessian(lambda point: u(point)[0]))(x).diagonal(dim1=1, dim2=2)


@pytest.mark.parametrize(
    "derivative", [by_autograd, by_autograd_on_the_input, by_func, by_jacobian, laplacian]
)
@pytest.mark.parametrize("batch_size", [None, 40])
def test_modules_that_differentiate_themselves(derivative, batch_size):
    x = X.clone()
    model = Physics(derivative)
    with torch.no_grad():
        probe = lgn.HessianProbe(
            model, (x, VALUES), loss_fn=functional.mse_loss, batch_size=batch_size
        )
        found = probe.dense()
    assert not x.requires_grad
    assert torch.allclose(found, live_hessian(model, x, VALUES, functional.mse_loss), atol=1e-12)


def test_inference_mode_around_a_probe_and_its_data_costs_nothing():
    model, expected = perceptron(), live_hessian(perceptron(), X, Y)
    with torch.inference_mode():
        inside = lgn.HessianProbe(model, (X.clone(), Y.clone()))
        assert torch.allclose(inside.dense(), expected, atol=1e-12)
        pair = X.clone(), Y.clone()
    assert torch.allclose(lgn.HessianProbe(model, pair).dense(), expected, atol=1e-12)
    made_there = nn.Linear(4, 3)
    with torch.inference_mode():
        made_there.weight = nn.Parameter(torch.zeros(3, 4))
    with pytest.raises(InvalidInputError, match="was made in torch"):
        lgn.HessianProbe(made_there, (X, Y))


def test_ignored_labels_in_one_batch():
    check(linear(), X, torch.where(Y == 2, -100, Y))
    with pytest.raises(InvalidInputError, match=r"labels must lie in 0\.\.2, got 0\.\.7"):
        lgn.HessianProbe(linear(), (X, torch.where(Y == 2, 7, torch.where(Y == 1, -100, Y))))


def language_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 11)).double()


def by_token(output, y):
    return functional.cross_entropy(output.reshape(-1, 11), y.reshape(-1))


def test_labels_of_another_class_axis():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 7, (8, 5), generator=generator)
    y = torch.randint(0, 11, (8, 5), generator=generator)
    y[:, 3:] = -100
    check(language_model(), x, y, by_token)
    y[0, 0] = 11
    with pytest.raises(InvalidInputError, match="Target 11 is out of bounds"):
        lgn.HessianProbe(language_model(), (x, y), loss_fn=by_token)


class Samples(Dataset):
    """Samples whose labels are numbers of Python's."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index], int(Y[index])


class Prebatched(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return X[8 * index : 8 * index + 8], Y[8 * index : 8 * index + 8]


class Stream(IterableDataset):
    def __iter__(self):
        return zip(X, Y, strict=True)


DATA = {
    "a TensorDataset": TensorDataset(X, Y),
    "a Subset": Subset(TensorDataset(X, Y), range(len(X))),
    "a Dataset": Samples(),
    "an IterableDataset": Stream(),
    "a loader": DataLoader(Samples(), batch_size=40),
    "a loader without batches": DataLoader(TensorDataset(X, Y), batch_size=None),
    "a loader of numbers without batches": DataLoader(Samples(), batch_size=None),
    "a loader of batches": DataLoader(Prebatched(), batch_size=None),
}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA.keys())
@pytest.mark.parametrize("batch_size", [None, 7])
def test_data_sets_and_loaders_are_their_samples(data, batch_size):
    model = linear()
    probe = lgn.HessianProbe(model, data, batch_size=batch_size)
    assert torch.allclose(probe.dense(), live_hessian(model, X, Y), atol=1e-13)


def test_samples_of_vectors_are_stacked():
    model = nn.Linear(4, 2).double()
    y = VALUES[:, :2]
    expected = live_hessian(model, X, y, functional.mse_loss)
    for data in (
        Subset(TensorDataset(X, y), range(96)),
        DataLoader(TensorDataset(X, y), batch_size=None),
    ):
        probe = lgn.HessianProbe(model, data, loss_fn=functional.mse_loss)
        assert torch.allclose(probe.dense(), expected, atol=1e-13)


def test_a_data_set_that_augments_is_refused():
    class Augmented(Samples):
        def __getitem__(self, index):
            return X[index] + torch.randn(4), int(Y[index])

    with pytest.raises(InvalidInputError, match="differ between two passes"):
        lgn.HessianProbe(linear(), Augmented())


class Watched(IterableDataset):
    """Batches, of which it counts those that are held at once."""

    def __init__(self):
        self.alive, self.most = 0, 0

    def _forget(self):
        self.alive -= 1

    def __iter__(self):
        for x, y in zip(X.split(8), Y.split(8), strict=True):
            batch = x.clone()
            weakref.finalize(batch, self._forget)
            self.alive += 1
            self.most = max(self.most, self.alive)
            yield batch, y


def test_a_second_pass_over_a_loader_is_not_kept():
    data = Watched()
    lgn.HessianProbe(linear(), DataLoader(data, batch_size=None))
    assert data.most <= 12 + 3  # all of the first pass, and what is being compared


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 20), marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_accepted_whatever_the_seed(dtype, seeds):
    for seed in seeds:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 32), nn.GELU(), nn.Linear(32, 3)).to(dtype)
        lgn.HessianProbe(model, (X.to(dtype), Y))
        lgn.HessianProbe(model, (X.to(dtype), Y), batch_size=30)


def test_half_precision_has_every_estimate():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))
    wide = lgn.HessianProbe(model, (X.float(), Y))
    probe = lgn.HessianProbe(model.bfloat16(), (X.bfloat16(), Y))
    exact = wide.dense()
    assert float((probe.dense() - exact).norm()) < 0.1 * float(exact.norm())
    assert probe.trace(n_probes=4).n_matvecs == 4
    assert probe.to_scipy().matvec(np.ones(probe.shape[0])).dtype == np.float32
    probe.check()


class Particular(nn.Module):
    """Insists on float32, or casts to it."""

    def __init__(self, how):
        super().__init__()
        self.inner, self.how = linear().float(), how

    def forward(self, x):
        if self.how == "asserts":
            assert x.dtype == torch.float32
        if self.how == "raises" and x.dtype != torch.float32:
            raise ValueError("float32, please")
        return self.inner(x.float() if self.how == "casts" else x).float()


@pytest.mark.parametrize("how", ["asserts", "raises", "casts"])
def test_modules_that_insist_on_float32(how):
    check(Particular(how), X.float(), Y, tol=1e-5).check()


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.Parameter(torch.randn(4, 3, dtype=torch.complex128))
        self.last = nn.Linear(3, 3).double()

    def forward(self, x):
        return self.last((x.to(self.w.dtype) @ self.w).abs())


def test_parameters_that_have_no_hessian_are_named():
    with pytest.raises(InvalidInputError, match="weight of LazyLinear has no shape"):
        lgn.HessianProbe(nn.LazyLinear(3), (X, Y))
    with pytest.raises(InvalidInputError, match=r"w is torch\.complex128"):
        lgn.HessianProbe(Complex(), (X, Y))
    with pytest.raises(InvalidInputError, match="meta device"):
        lgn.HessianProbe(nn.Linear(4, 3, device="meta"), (X, Y))
    model = Complex()
    probe = lgn.HessianProbe(model, (X, Y), params="last")
    expected = live_hessian(model, X, Y, params=list(model.last.parameters()))
    assert torch.allclose(probe.dense(), expected, atol=1e-13)


def test_data_without_samples_to_count_are_refused():
    with pytest.raises(InvalidInputError, match=r"y has none.*y\.reshape\(1\)"):
        lgn.HessianProbe(linear(), (X[:1], torch.tensor(1)))
    with pytest.raises(InvalidInputError, match="x has none"):
        lgn.HessianProbe(linear(), (torch.tensor(1.0), Y[:1]))


def test_a_module_that_renormalises_its_weights_is_refused_and_left_alone():
    model = nn.Sequential(nn.Embedding(7, 4, max_norm=0.5), nn.Linear(4, 3))
    weight = model[0].weight.detach().clone()
    with pytest.raises(NotDifferentiableError, match=r"changes its parameter 0\.weight"):
        lgn.HessianProbe(model, (torch.arange(96) % 7, Y))
    assert torch.equal(model[0].weight, weight)


def test_sparse_gradients_are_gradients():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4, sparse=True), nn.Tanh(), nn.Linear(4, 3)).double()
    dense = nn.Sequential(nn.Embedding(7, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    dense.load_state_dict(model.state_dict())
    x = torch.arange(96) % 7
    probe = lgn.HessianProbe(model, (x, Y))
    assert torch.allclose(probe.dense(), live_hessian(dense, x, Y), atol=1e-13)


def test_derivatives_that_are_not_finite_are_said_to_be():
    model = linear()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    with pytest.raises(NotDifferentiableError, match="at zero does this"):
        lgn.HessianProbe(model, (X, Y), loss_fn=lambda output, y: output.norm())


REASONS = {
    "a key": (lambda o, y: {}["logits"], "KeyError 'logits'"),
    "an attribute": (lambda o, y: o.logits, "has no attribute 'logits'"),
    "an assertion": (
        lambda o, y: functional.mse_loss(o, y[:, None].expand(-1, 5)),
        "size of tensor",
    ),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(("loss_fn", "reason"), REASONS.values(), ids=REASONS.keys())
def test_what_a_module_or_loss_raises_is_passed_on_in_one_sentence(loss_fn, reason):
    with pytest.raises(InvalidInputError, match=reason) as caught:
        lgn.HessianProbe(linear(), (X, Y), loss_fn=loss_fn)
    assert "\n" not in str(caught.value)


def holed(shape, value=float("nan")):
    y = torch.zeros(shape, dtype=torch.float64)
    y[90] = value
    return y


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_targets_that_are_no_numbers_are_named_by_batch_and_place(value):
    model, y = nn.Linear(4, 1).double(), holed((96, 1), value)
    said = rf"the targets hold {value} at sample 90, entry \[0\]"
    with pytest.raises(InvalidInputError, match=said):
        lgn.HessianProbe(model, (X, y), loss_fn=functional.mse_loss)
    said = rf"the targets hold {value} at sample 90 \(sample 10 of batch 4\)"
    loader = DataLoader(TensorDataset(X, y), batch_size=20)
    for loss_fn in (functional.mse_loss, lambda o, y: (o - y).square().mean()):
        with pytest.raises(InvalidInputError, match=said):
            lgn.HessianProbe(model, (X, y), loss_fn=loss_fn, batch_size=20)
        with pytest.raises(InvalidInputError, match=said):
            lgn.HessianProbe(model, loader, loss_fn=loss_fn)
    shares = holed((96, 3), value)
    with pytest.raises(InvalidInputError, match=f"the targets hold {value} at sample 90"):
        lgn.HessianProbe(network(), (bits(96)[0], shares))


def test_inputs_that_are_no_numbers_are_named_by_batch_and_place():
    with pytest.raises(InvalidInputError, match=r"nan at sample 90 \(sample 10 of batch 4\)"):
        lgn.HessianProbe(linear(), [*zip(holed((96, 4)).split(20), Y.split(20), strict=True)])


def test_a_loss_that_leaves_out_targets_that_are_no_numbers_is_accepted():
    def loss(output, y):
        known = ~y.isnan()
        return (output - y)[known].square().mean()

    check(nn.Linear(4, 1).double(), X, holed((96, 1)), loss)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(self.encoder(x).tanh())


def test_tied_weights_have_every_name():
    model = Tied()
    check(model, X, VALUES, functional.mse_loss)
    for name in ("encoder.weight", "decoder.weight", "*coder.weight"):
        probe = lgn.HessianProbe(model, (X, VALUES), loss_fn=functional.mse_loss, params=name)
        assert list(probe.slices) == ["encoder.weight"]
        expected = live_hessian(model, X, VALUES, functional.mse_loss, [model.encoder.weight])
        assert torch.allclose(probe.dense(), expected, atol=1e-12)
    probe = lgn.HessianProbe(model, (X, VALUES), loss_fn=functional.mse_loss, params="decoder")
    assert list(probe.slices) == ["encoder.weight", "decoder.bias"]


def test_a_module_that_is_registered_twice_has_both_names():
    inner = linear()
    model = nn.ModuleDict({"one": inner, "two": inner})
    model.forward = lambda x: inner(x)
    probe = lgn.HessianProbe(model, (X, Y), params="two.weight")
    assert list(probe.slices) == ["one.weight"]


def test_the_name_of_a_module_chooses_all_beneath_it():
    torch.manual_seed(0)
    model = nn.Sequential(perceptron(), nn.Tanh(), nn.Linear(3, 3).double())

    def names(params):
        return list(lgn.HessianProbe(model, (X, Y), params=params).slices)

    assert names("0") == ["0.0.weight", "0.0.bias", "0.2.weight", "0.2.bias"]
    assert names("0.2") == ["0.2.weight", "0.2.bias"]
    assert names(["2", "0.0.bias"]) == ["0.0.bias", "2.weight", "2.bias"]
    assert names("0.?") == names("0")
    with pytest.raises(InvalidInputError, match="no parameter matches '00'"):
        names("00")
    pair = bits()
    assert list(lgn.HessianProbe(network(), pair, params="layers.1").slices) == ["layers.1.logits"]
    assert len(lgn.HessianProbe(network(), pair, params="layers").slices) == 2


class WritesSometimes(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(4, 3).double()

    def forward(self, x):
        far = x[:, :1] > 5
        return self.inner(x.tanh_() if bool(far.any()) else x.tanh())


@pytest.mark.parametrize("batch_size", [None, 8])
def test_inputs_that_only_later_batches_write_to_are_left_alone(batch_size):
    x, y = X.clone(), Y
    x[-1] += 10
    before, model = x.clone(), WritesSometimes()
    probe = lgn.HessianProbe(model, (x, y), batch_size=batch_size)
    assert torch.allclose(probe.dense(), live_hessian(model, x.clone(), y), atol=1e-12)
    assert torch.equal(x, before)


@pytest.mark.parametrize("old", [False, True])
def test_weights_that_each_call_computes_anew_are_left_as_they_were(old):
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    if old:
        with pytest.warns(FutureWarning, match="deprecated"):
            nn.utils.weight_norm(model[0])
    else:
        prune.l1_unstructured(model[0], "weight", amount=5)
    weight = model[0].weight
    probe = lgn.HessianProbe(model, (X, Y))
    probe.check()
    probe.operator.displaced(torch.ones(probe.shape[0], dtype=torch.float64)).loss()
    assert model[0].weight is weight


def words(embedding):
    torch.manual_seed(0)
    return nn.Sequential(embedding, nn.Flatten(), nn.Tanh(), nn.Linear(15, 3)).double()


TOKENS = torch.arange(40).reshape(8, 5) % 7


def test_the_row_of_padding_is_constant_as_torch_has_it():
    model = words(nn.Embedding(7, 3, padding_idx=2))
    probe = lgn.HessianProbe(model, (TOKENS, Y[:8]))
    expected = live_hessian(model, TOKENS, Y[:8])
    assert torch.allclose(probe.dense(), expected, atol=1e-12)
    assert not expected[6:9].any()
    bags = nn.Sequential(nn.EmbeddingBag(7, 15, padding_idx=2), nn.Tanh(), nn.Linear(15, 3))
    assert not lgn.HessianProbe(bags.double(), (TOKENS, Y[:8])).dense()[30:45].any()


def test_a_row_of_padding_with_another_use_is_refused_by_name():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(7, 3, padding_idx=2), nn.Linear(3, 7)
            self.head.weight = self.words.weight

        def forward(self, x):
            return self.head(self.words(x).tanh().sum(1))

    with pytest.raises(NotDifferentiableError, match="padding_idx leaves the gradient"):
        lgn.HessianProbe(Tied().double(), (TOKENS, Y[:8]))
