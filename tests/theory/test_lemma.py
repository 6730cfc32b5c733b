"""Lemma 1: exact as the noise scale goes to zero, at any tau, in the right coordinate."""

import math

import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from tests.hessian.cases import bits, flat_loss, network


def exact_trace(model, data):
    return float(torch.trace(lgn.HessianProbe(model, data).dense()))


def steep(tau=1.0):
    """A network away from the flat start."""
    model = network(tau=tau)
    with torch.no_grad():
        for layer in model.layers:
            layer.logits *= 3
    return model


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_the_ratio_is_one_for_small_noise_at_any_tau(tau):
    scales = [0.002 * tau, 0.15 * tau]
    frame = lgn.lemma1(steep(tau), bits(40), scales=scales, draws=100, trace_probes=400)
    small, large = frame.itertuples()
    # A trace taken in the wrong coordinate would be off by tau², that is 4 at 0.5 and at 2.
    assert small.ratio_high - small.ratio_low < 0.02
    assert small.ratio_low - 0.01 < 1 < small.ratio_high + 0.01
    assert large.scale_u == pytest.approx(0.15)
    # The next two orders take up most of what the lemma leaves.
    assert abs(large.ratio_4 - 1) < 0.3 * abs(large.ratio - 1)


def test_the_prediction_uses_the_trace_in_z():
    model, data = network(tau=2.0), bits()
    frame = lgn.lemma1(model, data, scales=[0.1, 0.2], draws=2, order=2, trace_probes=400)
    for row in frame.itertuples():
        assert row.prediction == pytest.approx(row.scale**2 * math.pi**2 / 12 * row.trace_z)
        assert row.trace_u == pytest.approx(4 * row.trace_z)
    exact = exact_trace(model, data)
    error = frame["prediction_stderr"][0] / (0.01 * math.pi**2 / 12)
    assert abs(frame["trace_z"][0] - exact) < 5 * error  # false-alarm rate 1e-6
    assert "third" not in frame


def test_the_next_orders_are_those_of_the_cumulants():
    # The third order is K3 times the sum of d3F/dz_i3, the fourth K4 times that of d4F/dz_i4 and 3 K2²
    # times that of d4F/dz_i2dz_j2: the mean of g is a shift that F does not see.
    model, (x, y) = lgn.LogicNetwork(4, 3, 1, 3, 0.5, dtype=torch.float64), bits(6, 4)
    loss, start = flat_loss(model, x, y)
    hessian = torch.func.hessian(loss)
    h = 1e-3
    unit = torch.eye(len(start), dtype=torch.float64)
    ends = [(hessian(start + h * e), hessian(start - h * e)) for e in unit]
    middle = hessian(start)
    third = sum(float((up - down)[i, i]) / (2 * h) for i, (up, down) in enumerate(ends))
    fourths = torch.stack([((up - 2 * middle + down) / h**2).diagonal() for up, down in ends])
    k2, k3, k4 = math.pi**2 / 6, 2 * 1.2020569031595943, math.pi**4 / 15
    fourth = k4 * float(fourths.diagonal().sum()) + 3 * k2**2 * float(fourths.sum())
    row = lgn.lemma1(model, (x, y), scales=[1.0], draws=1500, trace_probes=2).iloc[0]
    # 5 standard errors, false-alarm rate 1e-6.
    assert abs(6 * row["third"] - k3 * third) < 5 * 6 * row["third_stderr"]
    assert abs(24 * row["fourth"] - fourth) < 5 * 24 * row["fourth_stderr"]
    assert row["third_stderr"] < 0.3 * abs(row["third"])
    assert row["fourth_stderr"] < 0.3 * abs(row["fourth"])


def test_intervals_of_the_ratio_narrow_with_the_scale():
    frame = lgn.lemma1(steep(), bits(40), scales=[0.01, 0.1, 1.0], draws=40, trace_probes=400)
    width = frame["ratio_high"] - frame["ratio_low"]
    assert width[0] < width[1] < width[2]
    assert frame["control"][0] == "gradient, curvature"


def test_the_gain_is_that_of_plain_monte_carlo():
    # Without the control variate, with torch's own Gumbel noise: an independent estimate.
    model, (x, y) = network(tau=0.7), bits()
    loss, start = flat_loss(model, x, y)
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(4000, len(start), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        gains = torch.stack([loss(start - 0.8 * torch.log(-torch.log(row))) for row in u])
    gains = gains - loss(start)
    row = lgn.lemma1(model, (x, y), scales=[0.8], draws=2000, order=2, trace_probes=2).iloc[0]
    error = math.hypot(float(gains.std()) / math.sqrt(4000), row["gain_stderr"])
    assert abs(row["gain"] - float(gains.mean())) < 5 * error  # false-alarm rate 1e-6


def test_the_control_variate_narrows_the_interval_at_small_scales():
    model, (x, y) = network(), bits()
    probe = lgn.HessianProbe(model, (x, y))
    row = lgn.lemma1(model, (x, y), scales=[0.1], draws=200, order=2, trace_probes=200).iloc[0]
    # Without it the spread of the gain is that of its first-order part, s · |∇F| · sd(g).
    plain = 0.1 * float(probe.grad().norm()) * math.pi / math.sqrt(6) / math.sqrt(200)
    assert row["gain_stderr"] < plain / 3


def test_equal_seeds_give_equal_frames():
    model, data = network(), bits()
    first, second = (lgn.lemma1(model, data, scales=[0.5], draws=4) for _ in range(2))
    assert first.equals(second)


def test_one_draw_has_no_interval():
    with pytest.raises(InvalidInputError, match="at least 2 draws"):
        lgn.lemma1(network(), bits(), draws=1)
