"""Lemma 1: exact as the noise scale goes to zero, at any tau, in the right coordinate."""

import math

import pytest
import torch
from cases import bits, flat_loss, network

import lgn_analysis as lgn
from lgn_analysis.errors import InvalidInputError


def exact_trace(model, data):
    return float(torch.trace(lgn.HessianProbe(model, data).dense()))


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_the_ratio_is_one_for_small_noise_at_any_tau(tau):
    model, data = network(tau=tau), bits(40)
    with torch.no_grad():
        for layer in model.layers:
            layer.logits *= 3  # away from the flat start
    frame = lgn.lemma1(model, data, scales=[0.05 * tau], draws=800, trace_probes=2000)
    row = frame.iloc[0]
    # The intervals of both errors, doubled: false-alarm rate about 1e-4. A trace taken in the wrong
    # coordinate would be off by tau², that is 4 at 0.5 and at 2.
    half = (row["ratio_high"] - row["ratio_low"]) / 2
    assert abs(row["ratio"] - 1) < 2 * half
    assert half < 0.25


def test_the_prediction_uses_the_trace_in_z():
    model, data = network(tau=2.0), bits()
    frame = lgn.lemma1(model, data, scales=[0.1, 0.2], draws=2, trace_probes=3000)
    for row in frame.itertuples():
        assert row.prediction == pytest.approx(row.scale**2 * math.pi**2 / 12 * row.trace_z)
        assert row.trace_u == pytest.approx(4 * row.trace_z)
    exact = exact_trace(model, data)
    error = frame["prediction_stderr"][0] / (0.01 * math.pi**2 / 12)
    assert abs(frame["trace_z"][0] - exact) < 5 * error  # false-alarm rate 1e-6


def test_the_gain_is_that_of_plain_monte_carlo():
    # Without the control variate, with torch's own Gumbel noise: an independent estimate.
    model, (x, y) = network(tau=0.7), bits()
    loss, start = flat_loss(model, x, y)
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(4000, len(start), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        gains = torch.stack([loss(start - 0.8 * torch.log(-torch.log(row))) for row in u])
    gains = gains - loss(start)
    row = lgn.lemma1(model, (x, y), scales=[0.8], draws=2000, trace_probes=2).iloc[0]
    error = math.hypot(float(gains.std()) / math.sqrt(4000), row["gain_stderr"])
    assert abs(row["gain"] - float(gains.mean())) < 5 * error  # false-alarm rate 1e-6


def test_the_control_variate_narrows_the_interval_at_small_scales():
    model, (x, y) = network(), bits()
    probe = lgn.HessianProbe(model, (x, y))
    row = lgn.lemma1(model, (x, y), scales=[0.1], draws=200, trace_probes=2).iloc[0]
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
