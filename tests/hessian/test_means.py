"""Batches add up to the mean loss over all data as torch defines it, or are refused."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian import NetworkHessian
from tests.hessian.cases import bits, live_hessian, network

N = 96
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 4, generator=GENERATOR, dtype=torch.float64)
Y = torch.arange(N) % 3
SORTED = Y.sort().values
VALUES = torch.rand(N, 3, generator=GENERATOR, dtype=torch.float64)
SHARES = VALUES / VALUES.sum(1, keepdim=True)
WEIGHT = torch.tensor([1.0, 5.0, 20.0], dtype=torch.float64)


def linear(*, last=None):
    torch.manual_seed(0)
    layers = [nn.Linear(4, 3)] + ([last] if last else [])
    return nn.Sequential(*layers).double()


def later_ignored():
    """Labels of which the last batches have few that count."""
    y = Y.clone()
    y[:48] = 1 + y[:48] % 2
    y[48:80] = 0
    return y


def a_batch_ignored():
    y = Y.clone()
    y[:48] = -100
    return y


class Renamed(nn.CrossEntropyLoss):
    """A subclass that computes what its base does."""


KNOWN = {
    "class weights, sorted by class": (nn.CrossEntropyLoss(weight=WEIGHT), SORTED),
    "class weights in a partial": (
        functools.partial(functional.cross_entropy, weight=WEIGHT),
        SORTED,
    ),
    "class weights of a subclass": (Renamed(weight=WEIGHT), SORTED),
    "a class of weight zero": (nn.CrossEntropyLoss(weight=WEIGHT * (WEIGHT > 1)), SORTED),
    "ignored labels in later batches": (nn.CrossEntropyLoss(ignore_index=0), later_ignored()),
    "batches whose labels are all ignored": (functional.cross_entropy, a_batch_ignored()),
    "smoothed labels, weights, some ignored": (
        nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2, ignore_index=7),
        torch.where(torch.arange(N) % 7 < 2 + torch.arange(N) // 30, 7, SORTED),
    ),
    "shares of classes, with weights": (nn.CrossEntropyLoss(weight=WEIGHT), SHARES),
    "mse": (nn.MSELoss(), VALUES),
    "l1 smoothed": (nn.SmoothL1Loss(beta=0.3), VALUES),
    "huber": (functools.partial(functional.huber_loss, delta=0.4), VALUES),
    "binary, weighted": (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), (VALUES > 0.5).double()),
    "poisson": (nn.PoissonNLLLoss(), VALUES),
    "gaussian": (functools.partial(functional.gaussian_nll_loss, var=2.0), VALUES),
}


@pytest.mark.parametrize("batch_size", [7, 16, 48])
@pytest.mark.parametrize("case", KNOWN.values(), ids=KNOWN.keys())
def test_batches_of_a_loss_of_torch_are_one_batch(case, batch_size):
    loss_fn, y = case
    model = linear()
    probe = lgn.HessianProbe(model, (X, y), loss_fn=loss_fn, batch_size=batch_size)
    assert torch.allclose(probe.dense(), live_hessian(model, X, y, loss_fn), atol=1e-13)
    assert probe.loss() == pytest.approx(float(loss_fn(model(X), y).detach()), rel=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "batchmean"])
@pytest.mark.filterwarnings("ignore:reduction")
def test_divergences_are_means_of_either_kind(reduction):
    model, loss_fn = linear(last=nn.LogSoftmax(-1)), nn.KLDivLoss(reduction=reduction)
    probe = lgn.HessianProbe(model, (X, SHARES), loss_fn=loss_fn, batch_size=25)
    assert torch.allclose(probe.dense(), live_hessian(model, X, SHARES, loss_fn), atol=1e-13)


def test_negative_log_likelihoods_weigh_by_class():
    model, loss_fn = linear(last=nn.LogSoftmax(-1)), nn.NLLLoss(weight=WEIGHT)
    probe = lgn.HessianProbe(model, (X, SORTED), loss_fn=loss_fn, batch_size=25)
    assert torch.allclose(probe.dense(), live_hessian(model, X, SORTED, loss_fn), atol=1e-13)


def test_maps_of_labels_weigh_by_their_pixels():
    torch.manual_seed(0)
    model = nn.Conv2d(2, 3, 1).double()
    x, y = torch.randn(10, 2, 4, 4).double(), torch.randint(0, 3, (10, 4, 4))
    y[5:, 1:] = 255
    loss_fn = nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=255)
    probe = lgn.HessianProbe(model, (x, y), loss_fn=loss_fn, batch_size=3)
    assert torch.allclose(probe.dense(), live_hessian(model, x, y, loss_fn), atol=1e-13)


def test_batches_of_other_lengths_weigh_by_their_elements():
    model = nn.Linear(4, 3).double()
    batches = [
        (torch.randn(n, length, 4).double(), torch.randn(n, length, 3).double())
        for n, length in ((3, 5), (2, 9))
    ]
    x, y = (torch.cat([b[i].reshape(-1, b[i].shape[-1]) for b in batches]) for i in range(2))
    probe = lgn.HessianProbe(model, batches, loss_fn=nn.MSELoss())
    expected = live_hessian(model, x, y, functional.mse_loss)
    assert torch.allclose(probe.dense(), expected, atol=1e-13)


def test_labels_that_are_all_ignored_are_refused():
    with pytest.raises(InvalidInputError, match="no label counts in the mean loss"):
        lgn.HessianProbe(linear(), (X, torch.full((N,), -100)))
    with pytest.raises(InvalidInputError, match="no label counts in the mean loss"):
        lgn.HessianProbe(network(), (bits(N)[0], torch.full((N,), -100)))


def by_class(output, y):
    return functional.cross_entropy(output, y, weight=WEIGHT)


def padded(output, y):
    return functional.cross_entropy(output, y, ignore_index=0)


def contrastive(output, y):
    unit = functional.normalize(output)
    return functional.cross_entropy(5 * unit @ unit.T, torch.arange(len(unit)))


@pytest.mark.parametrize(
    ("loss_fn", "y", "batch_size"),
    [(by_class, SORTED, 16), (padded, later_ignored(), 48), (contrastive, Y, 16)],
)
@pytest.mark.parametrize("zero", [False, True])
def test_losses_of_one_s_own_that_are_no_mean_over_samples_are_one_batch_or_refused(
    loss_fn, y, batch_size, zero
):
    model = linear()
    if zero:  # every sample has the same loss, and another gradient
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        nn.init.ones_(model[0].bias)
    with pytest.raises(InvalidInputError, match=r"add up to no mean.*or pass one batch"):
        lgn.HessianProbe(model, (X, y), loss_fn=loss_fn, batch_size=batch_size)
    probe = lgn.HessianProbe(model, (X, y), loss_fn=loss_fn)
    assert torch.allclose(probe.dense(), live_hessian(model, X, y, loss_fn), atol=1e-12)


def test_a_batch_without_labels_that_count_is_named_where_the_loss_is_one_s_own():
    with pytest.raises(InvalidInputError, match=r"the loss of batch 3 is nan.*pass one batch"):
        lgn.HessianProbe(linear(), (X, later_ignored()), loss_fn=padded, batch_size=16)


def partial_likelihood(output, y):
    """Cox's: every event against all that were still at risk."""
    order = y[:, 0].argsort(descending=True)
    score, event = output[order, 0], y[order, 1]
    return -((score - torch.logcumsumexp(score, 0)) * event).sum() / event.sum()


def ranking(output, y):
    return functional.softplus(-(output - output.T) * (y[:, None] - y[None]).sign()).mean()


TIMES = torch.stack([VALUES[:, 0], (VALUES[:, 1] > 0.5).double()], 1)
MASK = VALUES[:, 2] > 0.6


class Graph(nn.Module):
    """A graph network over all nodes at once."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(4, 3).double()
        self.register_buffer("adjacency", torch.softmax(torch.randn(N, N).double(), -1))

    def forward(self, x):
        return self.adjacency @ self.inner(x)


class Recurrent(nn.Module):
    """A state for every sample of a batch."""

    def __init__(self, n):
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(4, 3, batch_first=True).double()
        self.register_buffer("state", torch.randn(1, n, 3).double())

    def forward(self, x):
        return self.gru(x.unsqueeze(1).expand(-1, 3, -1), self.state)[0][:, -1]


def scores():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double()


def ranking_by_sample(output, y):
    """A sum over pairs, by the number of samples: it doubles when every sample comes twice."""
    return functional.softplus((output - output.T) * (y[:, None] - y[None])).sum() / len(y)


ONE_BATCH = {
    "a ranking by sample": (scores, VALUES[:, 0], ranking_by_sample),
    "a partial likelihood": (scores, TIMES, partial_likelihood),
    "a ranking": (scores, VALUES[:, 0], ranking),
    "a graph": (Graph, Y, functional.cross_entropy),
    "a graph under a mask": (
        Graph,
        Y,
        lambda o, y: functional.cross_entropy(o[MASK], y[MASK]),
    ),
    "states of a batch": (lambda: Recurrent(N), Y, functional.cross_entropy),
}


@pytest.mark.parametrize("case", ONE_BATCH.values(), ids=ONE_BATCH.keys())
def test_one_batch_is_one_loss(case):
    make, y, loss_fn = case
    model = make()
    probe = lgn.HessianProbe(model, (X, y), loss_fn=loss_fn)
    assert torch.allclose(probe.dense(), live_hessian(model, X, y, loss_fn), atol=1e-12)


def test_a_module_that_takes_batches_of_one_size_takes_several():
    model = Recurrent(48)
    probe = lgn.HessianProbe(model, (X, Y), batch_size=48)
    halves = [live_hessian(model, X[part], Y[part]) for part in (slice(48), slice(48, N))]
    assert torch.allclose(probe.dense(), sum(halves) / 2, atol=1e-12)
    with pytest.raises(InvalidInputError, match="several batches add up to no mean"):
        lgn.HessianProbe(model, (X, SORTED), loss_fn=by_class, batch_size=48)


def test_a_sum_over_samples_is_refused_in_one_batch_too():
    def total(output, y):
        return functional.cross_entropy(output, y, reduction="sum")

    for loss_fn in (total, nn.MSELoss(reduction="sum")):
        y = Y if loss_fn is total else VALUES
        with pytest.raises(InvalidInputError, match="use reduction='mean'"):
            lgn.HessianProbe(linear(), (X, y), loss_fn=loss_fn)


def column():
    torch.manual_seed(0)
    return nn.Linear(4, 1).double()


@pytest.mark.parametrize(
    "loss_fn", [nn.MSELoss(), functional.l1_loss, functools.partial(functional.huber_loss, delta=2)]
)
@pytest.mark.parametrize("batch_size", [None, 20])
def test_targets_that_would_broadcast_are_refused_with_both_shapes(loss_fn, batch_size):
    with pytest.raises(InvalidInputError, match=r"\(\d+, 1\) and targets \(\d+,\)"):
        lgn.HessianProbe(column(), (X, VALUES[:, 0]), loss_fn=loss_fn, batch_size=batch_size)
    flat = nn.Sequential(column(), nn.Flatten(0))
    with pytest.raises(InvalidInputError, match=r"\(\d+,\) and targets \(\d+, 1\)"):
        lgn.HessianProbe(flat, (X, VALUES[:, :1]), loss_fn=loss_fn, batch_size=batch_size)
    with pytest.raises(InvalidInputError, match=r"\(96, 3\) and targets \(96, 1\)"):
        lgn.HessianProbe(network(), (bits(N)[0], VALUES[:, :1]), loss_fn=loss_fn)


def test_a_loss_of_one_s_own_broadcasts_as_it_is_written_in_one_batch_and_is_refused_in_several():
    def loss(output, y):
        return (output - y).square().mean()

    model, y = column(), VALUES[:, 0]
    probe = lgn.HessianProbe(model, (X, y), loss_fn=loss)
    assert torch.allclose(probe.dense(), live_hessian(model, X, y, loss), atol=1e-12)
    with pytest.raises(InvalidInputError, match="targets that broadcast"):
        lgn.HessianProbe(model, (X, y), loss_fn=loss, batch_size=20)


NETWORK_LOSSES = {
    "class weights": (nn.CrossEntropyLoss(weight=WEIGHT), SORTED),
    "ignored labels": (functional.cross_entropy, a_batch_ignored()),
    "smoothed": (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1), SORTED),
    "mse": (nn.MSELoss(), VALUES),
}


@pytest.mark.parametrize("options", [{"batch_size": 16}, {"max_bytes": 1}, {}])
@pytest.mark.parametrize("case", NETWORK_LOSSES.values(), ids=NETWORK_LOSSES.keys())
def test_batches_and_pieces_of_a_network_are_one_batch(case, options):
    loss_fn, y = case
    model, (x, _) = network(), bits(N)
    probe = lgn.HessianProbe(model, (x, y), loss_fn=loss_fn, **options)
    assert isinstance(probe.operator, NetworkHessian)
    soft = lgn.HessianProbe(_Soft(model), (x, y), loss_fn=loss_fn)
    expected = soft.dense()
    assert torch.allclose(probe.dense(), expected, atol=1e-14)
    assert torch.allclose(probe.grad(), soft.grad(), atol=1e-14)
    assert probe.loss() == pytest.approx(soft.loss(), rel=1e-12)
    trace = probe.trace(n_probes=400, seed=1)
    assert abs(trace.estimate - float(expected.trace())) < 5 * trace.stderr  # 6e-7 a case
    probe.check()


class _Soft(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.inner = model

    def forward(self, x):
        return self.inner(x, mode="soft")


def test_a_network_under_weights_of_one_s_own_is_one_batch_or_refused():
    model, (x, _) = network(), bits(N)
    with pytest.raises(InvalidInputError, match="pass one batch"):
        lgn.HessianProbe(model, (x, SORTED), loss_fn=by_class, batch_size=16)
    for n, y in ((N, SORTED), (90, Y)):  # the first 30 of Y hold each class as often as all 90
        probe = lgn.HessianProbe(model, (x[:n], y[:n]), loss_fn=by_class, max_bytes=1)
        expected = live_hessian(_Soft(model), x[:n], y[:n], by_class)
        assert torch.allclose(probe.dense(), expected, atol=1e-14)
    probe = lgn.HessianProbe(model, (x, SORTED), loss_fn=contrastive, max_bytes=1)
    expected = live_hessian(_Soft(model), x, SORTED, contrastive)
    assert torch.allclose(probe.dense(), expected, atol=1e-14)


LOSSES_IN_FLOAT32 = {
    "a module": nn.CrossEntropyLoss(weight=WEIGHT.float()),
    "a partial": functools.partial(functional.cross_entropy, weight=WEIGHT.float()),
    "a closure": lambda o, y: functional.cross_entropy(o, y, weight=WEIGHT.float()),
}


@pytest.mark.parametrize("loss_fn", LOSSES_IN_FLOAT32.values(), ids=LOSSES_IN_FLOAT32.keys())
def test_analyses_in_float64_take_losses_that_hold_float32(loss_fn):
    model, pair = network(dtype=torch.float32), (bits(N)[0], SORTED)
    with torch.no_grad():
        outputs = network()(pair[0], mode="soft")
    expected = float(functional.cross_entropy(outputs, SORTED, weight=WEIGHT))
    seen = lgn.landscape(model, pair, loss_fn=loss_fn, dims=1, grid=3)
    assert seen.loss[1] == pytest.approx(expected, rel=1e-6)
    eigen = lgn.landscape(model, pair, loss_fn=loss_fn, dims=1, grid=3, directions="eigen")
    assert eigen.loss[1] == pytest.approx(expected, rel=1e-6)
    anatomy = lgn.gap_anatomy(model, pair, loss_fn=loss_fn)
    assert anatomy.states["loss"][0] == pytest.approx(expected, rel=1e-6)
    row = lgn.lemma1(model, pair, [1.0], draws=2, order=2, trace_probes=200, loss_fn=loss_fn).loc[0]
    exact = lgn.HessianProbe(network(), pair, loss_fn=nn.CrossEntropyLoss(weight=WEIGHT)).dense()
    stderr = row["prediction_stderr"] * row["trace_z"] / row["prediction"]
    assert abs(row["trace_z"] - float(exact.trace())) < 5 * abs(stderr)  # false alarms 6e-7


def test_analyses_weigh_batches_as_the_loss_does():
    model, pair = network(), (bits(N)[0], SORTED)
    loss_fn = nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=0)
    for split in (16, 96):
        seen = lgn.landscape(model, pair, loss_fn=loss_fn, dims=1, grid=3, batch_size=split)
        anatomy = lgn.gap_anatomy(model, pair, loss_fn=loss_fn, batch_size=split)
        with torch.no_grad():
            expected = float(loss_fn(model(pair[0], mode="soft"), SORTED))
        assert seen.loss[1] == pytest.approx(expected, rel=1e-12)
        assert anatomy.states["loss"][0] == pytest.approx(expected, rel=1e-12)
        if split == 16:
            in_batches = anatomy
    assert in_batches.interactions == pytest.approx(anatomy.interactions, rel=1e-9)
    with pytest.raises(InvalidInputError, match="pass one batch"):
        lgn.gap_anatomy(model, pair, loss_fn=by_class, batch_size=16)
    with pytest.raises(InvalidInputError, match="pass one batch"):
        lgn.landscape(model, pair, loss_fn=by_class, dims=1, grid=3, batch_size=16)
