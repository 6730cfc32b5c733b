"""Activation-space probes: the trace of the dense Hessian, with an interval that covers."""

import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from tests.hessian.cases import bits, network, perceptron


def trace_of(probe):
    return float(torch.trace(probe.dense()))


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("batch_size", [None, 17])
def test_the_estimate_is_the_trace_of_the_dense_hessian_layer_by_layer(tau, batch_size):
    probe = lgn.HessianProbe(network(tau=tau), bits(40), batch_size=batch_size)
    dense = probe.dense()
    result = probe.trace(method="activation", n_probes=300)
    # 5 standard errors each: false-alarm rate 6e-7.
    assert abs(result.estimate - float(torch.trace(dense))) < 5 * result.stderr
    for row, where in zip(result.per_layer.itertuples(), probe.slices.values(), strict=True):
        assert abs(row.estimate - float(torch.trace(dense[where, where]))) < 5 * row.stderr
    assert result.per_layer["estimate"].sum() == pytest.approx(result.estimate)


def test_one_layer_has_an_exact_softmax_part_and_the_same_trace():
    # In the last layer each output is linear in its gates, and only the group sum mixes them.
    probe = lgn.HessianProbe(network(), bits(40), params="layers.1.*")
    result = probe.trace(method="activation", n_probes=400)
    assert abs(result.estimate - trace_of(probe)) < 5 * result.stderr
    assert list(result.per_layer["layer"]) == ["layers.1.logits"]


def test_frozen_noise_and_another_tau_are_traced_too():
    noise = lgn.GumbelNoise(tau=0.8, draws=3)
    probe = lgn.HessianProbe(network(tau=2.0), bits(40), noise=noise)
    result = probe.trace(method="activation", n_probes=400)
    assert abs(result.estimate - trace_of(probe)) < 5 * result.stderr


@pytest.mark.parametrize("options", [{"n_probes": 2}, {"n_probes": 6}, {"rtol": 0.05}])
def test_intervals_cover(options):
    # 300 repeats: the standard error of a share of 95 % is 1.3 %; 4 of them below is 90 %.
    # False-alarm rate 3e-5 where the coverage is exactly 95 %.
    probe = lgn.HessianProbe(network(), bits(40))
    exact, covered = trace_of(probe), 0
    for seed in range(300):
        low, high = probe.trace(method="activation", seed=seed, **options).ci
        covered += low <= exact <= high
    assert covered / 300 > 0.90


def test_the_variance_of_a_product_is_far_below_that_of_hutchinson():
    data = lgn.load_dataset("digits")
    model = lgn.LogicNetwork(960, 500, 2, 10, 10.0)
    lgn.train(model, data, steps=300, eval_every=300, progress=False)
    probe = lgn.HessianProbe(model, (data.x_train[:128], data.y_train[:128]))
    ours = probe.trace(method="activation", n_probes=16)
    theirs = probe.trace(method="hutchinson", n_probes=64)
    assert (2 * theirs.stderr / ours.stderr) ** 2 > 20  # variances of one product each
    assert abs(ours.estimate - theirs.estimate) < 5 * theirs.stderr


def test_automatic_knows_a_network_and_says_so():
    assert "activation" in lgn.HessianProbe(network(), bits()).trace(n_probes=2).reason
    x, y = torch.randn(9, 4).double(), torch.arange(9) % 3
    general = lgn.HessianProbe(perceptron(), (x, y))
    assert "activation" not in general.trace(n_probes=2).reason
    with pytest.raises(InvalidInputError, match="needs a LogicNetwork"):
        general.trace(method="activation", n_probes=2)
    with pytest.raises(InvalidInputError, match="unknown method"):
        general.trace(method="best")


def test_a_share_of_the_frobenius_norm_is_a_tolerance():
    probe = lgn.HessianProbe(network(), bits(40))
    result = probe.trace(method="activation", rtol=None, ftol=0.1)
    assert result.converged
    assert (result.ci[1] - result.ci[0]) / 2 <= 0.12 * float(probe.dense().norm())


def test_useless_options_are_refused():
    probe = lgn.HessianProbe(network(), bits())
    with pytest.raises(InvalidInputError, match="at least 2"):
        probe.trace(n_probes=1)
    with pytest.raises(InvalidInputError, match="tolerance"):
        probe.trace(rtol=None)
