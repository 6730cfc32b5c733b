"""Noise, argmax and softmax in one pass, its gradient, and Adam, against plain PyTorch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from lgn_analysis.gates.noise import gumbel
from lgn_analysis.gates.relaxations import GumbelST, HardST, Relaxation
from lgn_analysis.gates.table import COEFFICIENTS, gate_coefficients
from lgn_analysis.kernels.cpu.logits import (
    Adam,
    adam_factors,
    adam_step,
    logit_gradient,
    make_scratch,
    select_gates,
)
from lgn_analysis.kernels.cpu.network import addresses, make_rule
from lgn_analysis.kernels.cpu.runtime.compiling import entry
from lgn_analysis.kernels.cpu.runtime.layout import Activations
from lgn_analysis.kernels.cpu.simd import load, store
from lgn_analysis.kernels.interface import NetworkSpec
from tests.kernels.cpu.conftest import KEY

FIRST_LAYER = 3


@entry
def choose(logits, width, span, rule, activations):
    select_gates(logits, width, span, rule, activations, make_scratch())


@entry
def write_gradients(sums, weights, n, tau, gradients):
    for gate in range(n):
        store(gradients, 16 * gate, logit_gradient(sums, gate, weights, gate, tau))


@entry
def move(logits, means, squares, gradients, adam, n, step):
    factors = adam_factors(adam, step)
    for gate in range(n):
        gradient = load(gradients, 16 * gate, 16)
        adam_step(logits, means, squares, 16 * gate, gradient, adam, factors)


def chosen(
    relaxation: Relaxation, logits: list[Tensor], parts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights, gates and coefficients of layers, chosen in so many parts."""
    depth, width = len(logits), logits[0].shape[0]
    weights = np.full(depth * width * 16, np.nan, dtype=np.float32)
    gates = np.full(depth * width, 255, dtype=np.uint8)
    coefficients = np.full(depth * width * 4, np.nan, dtype=np.float32)
    network = NetworkSpec((), 0, relaxation, 1, 1.0, first_layer=FIRST_LAYER)
    taus = np.full(depth, relaxation.tau)
    rule = make_rule(network, KEY if relaxation.noisy else None, taus)
    floats, words = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
    activations = Activations(0, False, weights, gates, coefficients, words, floats, floats)
    edges = [depth * width * part // parts for part in range(parts + 1)]
    for span in itertools.pairwise(edges):
        choose(addresses(logits), width, span, rule, activations)
    return weights.reshape(depth, width, 16), gates.reshape(depth, width), coefficients


@pytest.mark.parametrize("width", [1, 2, 3, 64, 65, 131])
@pytest.mark.parametrize("tau", [0.05, 1.0, 3.0])
def test_weights_gates_and_coefficients_are_the_relaxation(
    relaxation: Relaxation, width: int, tau: float
) -> None:
    relaxation = type(relaxation)(tau)
    generator = torch.Generator().manual_seed(width)
    logits = [3 * torch.randn(width, 16, generator=generator) for _ in range(3)]
    weights, gates, coefficients = chosen(relaxation, logits, parts=1)
    for layer, z in enumerate(logits):
        perturbed = z.double()
        if relaxation.noisy:
            perturbed = perturbed + gumbel(KEY, FIRST_LAYER + layer, width, dtype=torch.float64)
        expected = torch.softmax(perturbed / tau, dim=-1)
        got = torch.from_numpy(weights[layer]).double()
        torch.testing.assert_close(got, expected, rtol=2e-5 / min(tau, 1.0), atol=1e-7)
        assert np.array_equal(gates[layer], perturbed.argmax(-1).numpy())
        mixed = COEFFICIENTS[perturbed.argmax(-1)] if relaxation.hard else gate_coefficients(got)
        wanted = torch.from_numpy(coefficients.reshape(3, width, 4)[layer]).double()
        torch.testing.assert_close(wanted, mixed.double(), rtol=0, atol=1e-6)


def test_how_gates_are_shared_out_changes_no_bit(relaxation: Relaxation) -> None:
    logits = [torch.randn(67, 16, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    whole = chosen(relaxation, logits, parts=1)
    for parts in (2, 3, 7, 201):
        for got, wanted in zip(chosen(relaxation, logits, parts=parts), whole, strict=True):
            assert np.array_equal(got, wanted)


def test_the_first_of_equal_logits_is_chosen_and_nan_stays_in_range() -> None:
    logits = torch.zeros(4, 16)
    logits[1, 5] = logits[1, 9] = 2.0
    logits[2, 7] = float("nan")
    logits[3] = float("nan")
    weights, gates, _ = chosen(HardST(), [logits], parts=1)
    assert gates[0, :2].tolist() == [0, 5]
    assert (gates < 16).all()
    assert np.isnan(weights[0, 2:]).any(-1).all()


def test_decisions_are_those_of_the_reference_but_for_ties_in_rounding() -> None:
    # Two float32 noises of one word differ by 8·2**-23·max(1, |g|) at most; only closer calls flip.
    logits = [torch.randn(4096, 16, generator=torch.Generator().manual_seed(8))]
    _, gates, _ = chosen(GumbelST(), logits, parts=1)
    noise = gumbel(KEY, FIRST_LAYER, 4096, dtype=torch.float32)
    perturbed = logits[0] + noise
    top, second = perturbed.topk(2).values.unbind(-1)
    close = top - second < 16 * 2.0**-23 * noise.abs().amax(-1).clamp(min=1.0)
    same = torch.from_numpy(gates[0]) == perturbed.argmax(-1)
    assert (same | close).all()
    assert same.double().mean() > 0.999


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_gradient_of_the_logits_is_that_of_the_softmax(tau: float) -> None:
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(37, 16, generator=generator, dtype=torch.float64).requires_grad_()
    sums = torch.randn(37, 4, generator=generator, dtype=torch.float64)
    weights = torch.softmax(z / tau, dim=-1)
    (gate_coefficients(weights) * sums).sum().backward()
    gradients = np.full(37 * 16, np.nan, dtype=np.float32)
    flat = [t.detach().float().numpy().reshape(-1) for t in (sums, weights)]
    write_gradients(*flat, 37, tau, gradients)
    assert z.grad is not None
    expected = z.grad.float()
    torch.testing.assert_close(
        torch.from_numpy(gradients).view(37, 16), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_adam_moves_as_torch_moves(decay: float) -> None:
    generator = torch.Generator().manual_seed(3)
    parameter = torch.nn.Parameter(torch.randn(29, 16, generator=generator))
    optimiser = torch.optim.AdamW([parameter], lr=0.02, weight_decay=decay)
    logits = parameter.detach().clone()
    means, squares = torch.zeros_like(logits), torch.zeros_like(logits)
    none = np.empty(0, dtype=np.int64)
    adam = Adam(0.9, 0.999, 1e-8, decay, np.full(29, 0.02), 0, none, none, none)
    for step in range(29):
        gradient = torch.randn(29, 16, generator=generator) * 10.0 ** ((step + 1) % 7 - 6)
        parameter.grad = gradient
        optimiser.step()
        flat = [t.numpy().reshape(-1) for t in (logits, means, squares, gradient)]
        move(*flat, adam, 29, step)
        state = optimiser.state[parameter]
        torch.testing.assert_close(means, state["exp_avg"], rtol=1e-5, atol=1e-10)
        torch.testing.assert_close(squares, state["exp_avg_sq"], rtol=1e-5, atol=1e-14)
        torch.testing.assert_close(logits, parameter.detach(), rtol=1e-5, atol=1e-6)
