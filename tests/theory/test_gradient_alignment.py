"""Alignment of mean gradients: every number by brute force, the interval on noise of known size."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.table import gate_coefficients
from lgn_analysis.theory import gradient_alignment
from lgn_analysis.theory.gradient_alignment import BLOCK, _Layer
from tests.hessian.cases import bits

DRAWS, SEED = 8 * BLOCK, 3


def gradients(model, relaxation, x, y, key, *, labels):
    """Return ∂L/∂z [layer, width · 16] through gates evaluated one layer at a time, by plain autograd."""
    logits = [layer.logits.detach().clone().requires_grad_() for layer in model.layers]
    values = x.to(model.dtype)
    for index, (layer, z) in enumerate(zip(model.layers, logits, strict=True)):
        noise = None
        if key is not None:
            noise = lgn.gates.noise.gumbel(key, index, len(z), dtype=z.dtype)
        c = gate_coefficients(relaxation.training_weights(z, noise))
        a, b = values[:, layer.wiring[0]], values[:, layer.wiring[1]]
        values = c[:, 0] + c[:, 1] * a + c[:, 2] * b + c[:, 3] * a * b
    outputs = model.group_sum(values)
    loss = functional.cross_entropy(outputs, y)
    if labels:
        loss = loss - (outputs.logsumexp(1) - outputs.mean(1)).mean()
    return torch.stack([g.reshape(-1) for g in torch.autograd.grad(loss, logits)]).numpy()


@pytest.fixture(scope="module")
def case():
    model = lgn.LogicNetwork(
        9, 6, 2, 3, 1.5, relaxation=lgn.GumbelST(0.8), seed=5, dtype=torch.float64
    )
    x, y = bits(11, 9, 3)
    return model, (x, y), gradient_alignment(model, (x, y), draws=DRAWS, seed=SEED)


@pytest.mark.parametrize("part", ["whole", "labels"])
def test_every_number_is_that_of_all_draws_by_brute_force(case, part):
    model, (x, y), found = case
    keys = [NoiseKey(SEED, Purpose.PROBE, draw) for draw in range(DRAWS)]
    labels = part == "labels"
    all_draws = np.stack(
        [gradients(model, lgn.GumbelST(0.8), x, y, key, labels=labels) for key in keys]
    )
    soft = gradients(model, lgn.Soft(1.0), x, y, None, labels=labels)
    blocks = all_draws.reshape(8, BLOCK, 2, -1)
    for layer in range(2):
        s, g = soft[layer], blocks[:, :, layer]
        rows = found[(found["layer"] == layer) & (found["part"] == part)].set_index("draws")
        assert list(rows.index) == [1, 4, 16, 64, 256, math.inf]
        means = g.mean(1)
        pairs = [means[i] @ means[j] for i, j in itertools.permutations(range(8), 2)]
        assert rows["signal"].to_numpy() == pytest.approx(np.mean(pairs) / (s @ s), rel=1e-9)
        assert rows["slope"].to_numpy() == pytest.approx(means.mean(0) @ s / (s @ s), rel=1e-9)
        averages = {m: g[:, :m].mean(1) for m in (1, 4, 16, 64)}
        averages[256] = means.reshape(2, 4, -1).mean(1)
        for m, averaged in averages.items():
            norms = np.linalg.norm(averaged, axis=1)
            cosines = averaged @ s / (norms * np.linalg.norm(s))
            assert rows.loc[m, "cosine"] == pytest.approx(cosines.mean(), rel=1e-9)
            noise = np.mean(norms**2) - np.mean(pairs)
            assert rows.loc[m, "snr_squared"] == pytest.approx(np.mean(pairs) / noise, rel=1e-9)


def test_the_network_is_left_as_it_is_and_the_seed_decides(case):
    model, batch, found = case
    assert model.relaxation == lgn.GumbelST(0.8)
    assert all(layer.logits.grad is None for layer in model.layers)
    other = gradient_alignment(model, batch, draws=DRAWS, seed=SEED + 1)
    assert not np.allclose(other["cosine"], found["cosine"], equal_nan=True)


def test_the_interval_covers_the_cosine_of_the_mean():
    """At 95 % fewer than 176 of 200 would be a chance of 2e-5."""
    generator = np.random.default_rng(0)
    p, blocks = 200, 32
    s, across = np.eye(p)[0], np.eye(p)[1]
    m = 0.5 * s + 0.5 * math.sqrt(3) * across  # at 60 degrees
    covered = 0
    for _ in range(200):
        means = m + generator.normal(size=(blocks, p)) / math.sqrt(p)
        _, last = _Layer(list(torch.from_numpy(means)), torch.from_numpy(3 * s))._limit()
        covered += last["cosine_low"] <= 0.5 <= last["cosine_high"]
        assert last["cosine"] == pytest.approx(0.5, abs=0.2)
    assert covered >= 176


def test_a_mean_that_is_lost_in_noise_has_no_cosine():
    generator = np.random.default_rng(1)
    means = generator.normal(size=(16, 50))
    means -= means.mean(0)  # products of different blocks are then negative on average
    signal, limit = _Layer(list(torch.from_numpy(means)), torch.ones(50))._limit()
    assert signal < 0
    assert math.isnan(limit["cosine"])


@pytest.mark.parametrize("draws", [0, 448, 1000])
def test_draws_that_make_no_blocks_are_refused(case, draws):
    model, batch, _ = case
    with pytest.raises(InvalidInputError, match="multiple of 64, at least 512"):
        gradient_alignment(model, batch, draws=draws)
