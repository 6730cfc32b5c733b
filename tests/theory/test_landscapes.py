"""Slices through the loss: where they go, what they hold, and how their smoothness is measured."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.table import gate_coefficients
from lgn_analysis.theory import LandscapeResult
from lgn_analysis.theory.directions import at_own_length, filter_direction, upright
from tests.hessian.cases import bits, flat_loss, network


def result_of(loss, *coordinates, lengths=None):
    dims = len(coordinates)
    return LandscapeResult(
        coordinates=coordinates,
        loss=loss,
        accuracy=np.full_like(loss, np.nan),
        directions=("direction 1", "direction 2")[:dims],
        lengths=lengths or (1.0,) * dims,
        eigenvalues=(math.nan,) * dims,
        tau=1.0,
        n=1,
        seed=0,
        noise=None,
    )


def norms(model):
    z = torch.cat([layer.logits.detach() for layer in model.layers])
    return torch.linalg.vector_norm(z - z.mean(-1, keepdim=True), dim=-1)


def test_a_slice_is_the_loss_at_the_moved_logits():
    model, (x, y) = network(tau=0.7), bits(60)
    loss, start = flat_loss(model, x, y)
    a, b = torch.randn(2, len(start), generator=torch.Generator().manual_seed(0)).double()
    found = lgn.landscape(model, (x, y), directions=(a, b), grid=5, span=(-0.5, 1.0))
    assert found.loss.shape == found.accuracy.shape == (5, 5)
    for i, s in enumerate(np.linspace(-0.5, 1, 5)):
        for j, t in enumerate(np.linspace(-0.5, 1, 5)):
            moved = start + s * a + t * b
            assert found.loss[i, j] == pytest.approx(float(loss(moved)), rel=1e-12)
    frame = found.to_frame()
    assert frame["loss"].tolist() == found.loss.ravel().tolist()
    assert frame["x"].tolist() == np.repeat(found.coordinates[0], 5).tolist()
    assert found.lengths == pytest.approx((float(a.norm()), float(b.norm())))


def test_the_model_itself_is_at_the_origin():
    model = lgn.LogicNetwork(8, 12, 2, 3, 2.0, relaxation=lgn.Soft(0.7))  # float32: by the kernels
    data = bits(60)
    known = lgn.evaluate(model, data)
    found = lgn.landscape(model, data, grid=3, seed=4)
    assert found.loss[1, 1] == pytest.approx(known.soft_loss, rel=1e-6)
    assert found.accuracy[1, 1] == known.soft_accuracy
    assert found.n == 60


def test_a_filter_direction_has_the_norm_of_each_gates_centred_logits():
    model = network()
    with torch.no_grad():
        model.layers[1].logits[3] = 2.5  # all options alike: nothing to scale to
        model.layers[0].logits += 7  # a shift, to which the softmax is blind
    d = filter_direction(model, 0, 0).reshape(-1, 16)
    assert torch.allclose(torch.linalg.vector_norm(d, dim=-1), norms(model), rtol=1e-12)
    assert d.sum(-1).abs().max() < 1e-12
    assert not d[12 + 3].any()
    other = filter_direction(model, 0, 1).reshape(-1, 16)
    cosine = (d * other).sum() / d.norm() / other.norm()
    assert abs(cosine) < 0.3  # sd 1/√360 = 0.053


def test_a_slice_is_blind_to_a_shift_common_to_a_gates_logits():
    model, data = network(), bits(40)
    before = lgn.landscape(model, data, grid=5)
    with torch.no_grad():
        model.layers[0].logits += 3
    assert np.allclose(lgn.landscape(model, data, grid=5).loss, before.loss, rtol=1e-12)


def test_the_own_length_is_that_of_one_gate_and_of_a_filter_direction():
    model = network()
    one = torch.zeros(24 * 16, dtype=torch.float64)
    one[5 * 16 : 6 * 16] = torch.randn(16)
    assert float(at_own_length(model, one).norm()) == pytest.approx(float(norms(model)[5]))
    d = filter_direction(model, 0, 0)
    assert torch.allclose(at_own_length(model, d / d.norm()), d, rtol=1e-12)


def test_an_eigenvector_and_its_opposite_give_one_direction():
    v = torch.tensor([1.0, -3.0, 2.0])
    assert upright(v).tolist() == upright(-v).tolist() == [-1.0, 3.0, -2.0]


def test_the_curvature_along_eigenvectors_is_their_eigenvalue():
    model, data = network(), bits(60)
    values = torch.linalg.eigvalsh(lgn.HessianProbe(model, data).dense())
    found = lgn.landscape(model, data, directions="eigen", grid=3, span=1e-3)
    assert found.eigenvalues == pytest.approx((float(values[-1]), float(values[0])), rel=1e-4)
    assert found.eigenvalues[0] > 0 > found.eigenvalues[1]
    for axis, (value, length) in enumerate(zip(found.eigenvalues, found.lengths, strict=True)):
        bend = np.diff(found.loss, n=2, axis=axis).ravel()[1] / (1e-3 * length) ** 2
        assert bend == pytest.approx(value, rel=1e-3)
    single = lgn.landscape(model, data, directions="eigen", dims=1, grid=3, span=1e-3)
    assert single.directions == ("top eigenvector",)
    assert single.curvature == pytest.approx(float(values[-1]), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_the_line_to_the_discrete_network_runs_in_gate_weights(dtype, tau):
    model = lgn.LogicNetwork(8, 12, 2, 3, 2.0, relaxation=lgn.Soft(tau), dtype=dtype)
    x, y = bits(60)
    found = lgn.landscape(model, (x, y), directions="discrete", grid=5)
    known, rel = lgn.evaluate(model, (x, y)), 1e-6 if dtype == torch.float32 else 1e-12
    assert found.coordinates[0].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.loss[0] == pytest.approx(known.soft_loss, rel=rel)
    assert found.loss[-1] == pytest.approx(known.discrete_loss, rel=rel)
    assert found.accuracy[-1] == known.discrete_accuracy
    features = x.double().T
    for layer in model.layers:
        z = layer.logits.detach().double()
        p = 0.25 * (z / tau).softmax(-1) + 0.75 * functional.one_hot(layer.gates, 16)
        c = gate_coefficients(p)
        a, b = features[layer.wiring[0]], features[layer.wiring[1]]
        features = c[:, :1] + c[:, 1:2] * a + c[:, 2:3] * b + c[:, 3:] * a * b
    loss = float(functional.cross_entropy(model.group_sum(features.T), y))
    assert found.loss[3] == pytest.approx(loss, rel=rel)


def test_the_line_to_the_discrete_network_starts_along_the_gaps_first_order():
    model, data = network(), bits(60)
    found = lgn.landscape(model, data, directions="discrete", grid=3, span=(0.0, 1e-3))
    slope = (-3 * found.loss[0] + 4 * found.loss[1] - found.loss[2]) / 1e-3
    bend = (found.loss[0] - 2 * found.loss[1] + found.loss[2]) / 0.5e-3**2
    whole = lgn.gap_anatomy(model, data).whole
    assert slope == pytest.approx(whole["first_order"], rel=1e-4)
    assert bend / 2 == pytest.approx(whole["second_order"], rel=0.02, abs=1e-6)


def test_noise_takes_the_mean_over_its_frozen_draws():
    model, data = network(tau=0.8), bits(40)
    noise = lgn.GumbelNoise(tau=0.5, draws=3, seed=2)
    found = lgn.landscape(model, data, grid=3, noise=noise)
    probe = lgn.HessianProbe(model, data, noise=noise)
    assert found.loss[1, 1] == pytest.approx(probe.loss(), rel=1e-12)
    assert found.tau == 0.5
    moved = copy.deepcopy(model)
    d = filter_direction(model, 0, 0).reshape(2, 12, 16)
    with torch.no_grad():
        for layer, step in zip(moved.layers, d, strict=True):
            layer.logits += step
    there = lgn.HessianProbe(moved, data, noise=noise).loss()
    assert found.loss[2, 1] == pytest.approx(there, rel=1e-12)
    assert 0 <= found.accuracy.min() <= found.accuracy.max() <= 1


def test_tau_may_be_another_than_the_models():
    model, data = network(tau=0.8), bits(40)
    probe = lgn.HessianProbe(model, data, tau=1.6)
    assert lgn.landscape(model, data, grid=3, tau=1.6).loss[1, 1] == pytest.approx(probe.loss())
    line = lgn.landscape(model, data, directions="discrete", grid=3, tau=1.6)
    assert line.loss[0] == pytest.approx(probe.loss(), rel=1e-12)


def test_ragged_batches_weigh_by_their_samples():
    model, data = network(), bits(50)
    whole = lgn.landscape(model, data, grid=3)
    parts = lgn.landscape(model, data, grid=3, batch_size=7)
    assert np.allclose(parts.loss, whole.loss, rtol=1e-12)
    assert np.allclose(parts.accuracy, whole.accuracy, rtol=1e-12)


@pytest.mark.parametrize("n", [5, 41])
@pytest.mark.parametrize("span", [0.3, 2.0])
def test_a_parabola_has_roughness_4_whatever_grid_span_and_scale(n, span):
    x = np.linspace(-span, span, n)
    found = result_of(7 + 0.2 * x**2, x, lengths=(5.0,))
    assert found.roughness == pytest.approx(4, rel=1e-9)
    assert found.curvature == pytest.approx(0.4 / 25, rel=1e-9)
    assert found.concave_share == 0
    bowl = result_of(x[:, None] ** 2 + x[None] ** 2, x, x, lengths=(1.0, 1.0))
    assert bowl.roughness == pytest.approx(1, rel=1e-9)  # twice the height
    assert bowl.curvature == pytest.approx(2, rel=1e-9)


def test_a_line_is_smooth_a_wave_is_rough_and_a_constant_has_no_roughness():
    x = np.linspace(-1, 1, 2001)
    assert result_of(3 * x, x).roughness == pytest.approx(0, abs=1e-12)
    wave = result_of(np.cos(np.pi * 3 * x), x)
    assert wave.roughness == pytest.approx((np.pi * 3) ** 4 / 8, rel=1e-3)
    assert wave.concave_share == pytest.approx(0.5, abs=1e-3)
    flat = result_of(np.ones(5), np.linspace(-1, 1, 5))
    assert math.isnan(flat.roughness)
    assert math.isnan(flat.concave_share)
    assert flat.curvature == 0


def test_equal_seeds_give_equal_slices():
    model, data = network(), bits(30)
    state = torch.random.get_rng_state()
    first, second, other = (lgn.landscape(model, data, grid=3, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first.loss, second.loss)
    assert not np.array_equal(first.loss, other.loss)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert "random direction 1, random direction 2" in repr(first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directions": "up"}, "unknown directions 'up'"),
        ({"directions": "discrete", "dims": 2}, "dims must be 1"),
        ({"directions": "discrete", "noise": lgn.GumbelNoise()}, "leave out noise"),
        ({"directions": "discrete", "span": 1.0}, r"t lies in \[0, 1\]"),
        ({"directions": (torch.ones(3),)}, "a vector of 384 numbers"),
        ({"directions": (torch.zeros(384),)}, "other than zero"),
        ({"directions": (torch.ones(384),) * 3}, "one or two directions, got 3"),
        ({"grid": 2}, "at least 3"),
        ({"span": 0.0}, "not empty"),
        ({"tau": 0.0}, "above zero"),
        ({"tau": 2.0, "noise": lgn.GumbelNoise(tau=1.0)}, "give one"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        lgn.landscape(network(), bits(20), **options)


def test_real_inputs_are_refused_only_on_the_way_to_the_discrete_network():
    model, (x, y) = network(), bits(20)
    x = x.double() * 0.5
    with pytest.raises(InvalidInputError, match="threshold them first"):
        lgn.landscape(model, (x, y), directions="discrete", grid=3)
    assert np.isfinite(lgn.landscape(model, (x, y), grid=3).loss).all()
    with pytest.raises(InvalidInputError, match="needs a LogicNetwork, got Linear"):
        lgn.landscape(torch.nn.Linear(8, 3), (x, y))
