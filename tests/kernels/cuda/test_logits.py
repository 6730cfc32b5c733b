"""Noise, gates, coefficients, gradients and Adam on logits."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from lgn_analysis.gates import noise as specification
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import FUSED
from lgn_analysis.gates.table import gate_coefficients
from lgn_analysis.kernels import cuda
from lgn_analysis.kernels.cuda.logits import (
    Draw,
    coefficients_of,
    gates_of,
    gradient_of,
    noise,
)
from lgn_analysis.kernels.cuda.noise import gate_words, gumbel_from_words
from lgn_analysis.kernels.cuda.runtime.launch import launch
from lgn_analysis.kernels.cuda.training.steps import adam_step
from lgn_analysis.kernels.interface import AdamRule, Moments

KEYS = (
    NoiseKey(0, Purpose.TRAINING, 0),
    NoiseKey(2**64 - 3, Purpose.PROBE, 2**63 + 2**32 + 5),
)
ULPS = 4 * 2.0**-23  # the bound that gumbel_from_words states for float32


@triton.jit
def write_words(out: tl.tensor, state: tl.tensor, stream: tl.tensor, BLOCK: tl.constexpr) -> None:
    gates = tl.arange(0, BLOCK)
    quads = tl.arange(0, 4)
    w0, w1, w2, w3 = gate_words(state, stream, gates, quads)
    at = out + gates[:, None] * 16 + quads[None, :] * 4
    tl.store(at, w0.to(tl.int64))
    tl.store(at + 1, w1.to(tl.int64))
    tl.store(at + 2, w2.to(tl.int64))
    tl.store(at + 3, w3.to(tl.int64))


@triton.jit
def write_gumbel(out: tl.tensor, words: tl.tensor, n: tl.tensor, BLOCK: tl.constexpr) -> None:
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(words + place, mask=place < n, other=0).to(tl.uint32)
    tl.store(out + place, gumbel_from_words(values, out.dtype.element_ty), mask=place < n)


def logits(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("layer", [0, 2**24 - 1])
def test_words_are_those_of_every_backend(key: NoiseKey, layer: int, device: torch.device) -> None:
    draw = Draw.of(key, device)
    out = torch.zeros(32, 16, dtype=torch.int64, device=device)
    launch(write_words, (1,), out, draw.state, draw.stream(layer), BLOCK=32)
    torch.testing.assert_close(out.cpu(), specification.philox_words(key, layer, 32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gumbel_values_keep_the_stated_bound_in_both_tails(
    dtype: torch.dtype, device: torch.device
) -> None:
    powers = 2 ** torch.arange(33)
    edges = torch.cat([powers - 1, powers, 2**32 - powers, torch.tensor([2**31 + 1, 3 * 2**30])])
    random = torch.randint(2**32, (4000,), generator=torch.Generator().manual_seed(0))
    words = torch.cat([edges.clamp(0, 2**32 - 1), random])
    out = torch.empty(len(words), dtype=dtype, device=device)
    grid = (triton.cdiv(len(words), 1024),)
    launch(write_gumbel, grid, out, words.to(device), len(words), BLOCK=1024)
    exact = specification.gumbel_from_words(words, torch.float64)
    bound = ULPS if dtype == torch.float32 else 4 * 2.0**-52
    error = (out.cpu().double() - exact).abs() / exact.abs().clamp(min=1)
    assert float(error.max()) <= bound
    assert bool(out.isfinite().all())


@pytest.mark.parametrize("n", [1, 63, 65])
def test_noise_of_a_layer_is_the_specification(n: int, device: torch.device) -> None:
    values = noise(Draw.of(KEYS[1], device), 5, n, torch.float32).cpu()
    exact = specification.gumbel(KEYS[1], 5, n, dtype=torch.float64)
    assert float(((values - exact).abs() / exact.abs().clamp(min=1)).max()) <= ULPS


def test_noise_of_a_network_leads_with_the_layers(device: torch.device) -> None:
    values = cuda.gumbel(KEYS[0], torch.tensor([[0, 3]]), 5, device=device)
    assert values.shape == (1, 2, 5, 16)
    single = cuda.gumbel(KEYS[0], 3, 5, device=device)
    torch.testing.assert_close(values[0, 1], single, rtol=0, atol=0)


@pytest.mark.parametrize("n", [1, 63, 130])
@pytest.mark.parametrize("noisy", [False, True])
def test_gates_are_the_argmax(n: int, noisy: bool, device: torch.device) -> None:
    z = logits(n).to(device)
    draw = Draw.of(KEYS[0], device) if noisy else None
    perturbed = z if draw is None else z + noise(draw, 2, n, torch.float32)
    gates = gates_of(z, draw, 2)
    torch.testing.assert_close(gates.to(torch.int64), perturbed.argmax(-1))


def test_the_first_of_equal_logits_wins(device: torch.device) -> None:
    z = torch.zeros(17, 16)
    z[:16].fill_diagonal_(1.0)
    z[torch.arange(16), (torch.arange(16) + 5) % 16] = 1.0
    expected = z.argmax(-1)
    torch.testing.assert_close(gates_of(z.to(device)).cpu().to(torch.int64), expected)


@pytest.mark.filterwarnings("ignore:All-NaN slice")  # NumPy's, in the interpreter
def test_nan_logits_select_a_gate_that_exists(device: torch.device) -> None:
    z = torch.full((3, 16), float("nan"), device=device)
    assert int(gates_of(z).max()) < 16


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("tau", [0.25, 1.0])
def test_coefficients_and_gradients_are_those_of_the_relaxation(
    name: str, tau: float, device: torch.device
) -> None:
    n, layer, relaxation = 67, 3, FUSED[name](tau)
    z = logits(n).to(device).requires_grad_()
    sums = torch.randn(2, n, 4, generator=torch.Generator().manual_seed(1)).to(device)
    draw = Draw.of(KEYS[0], device) if relaxation.noisy else None
    g = None if draw is None else noise(draw, layer, n, torch.float32)
    expected = gate_coefficients(relaxation.training_weights(z, g, tau=tau))
    got = coefficients_of(z.detach(), draw, layer, tau=tau, hard=relaxation.hard)
    torch.testing.assert_close(got, expected.detach(), rtol=1e-5, atol=2e-6)
    (gradient,) = torch.autograd.grad(expected, z, sums.sum(0))
    got = gradient_of(z.detach(), sums, draw, layer, tau=tau)
    torch.testing.assert_close(got, gradient, rtol=1e-4, atol=1e-5)
    stored, added = torch.tensor([1 / tau], device=device), torch.ones_like(got)
    gradient_of(z.detach(), sums, draw, layer, tau=stored, added=added)
    torch.testing.assert_close(added, 1 + gradient, rtol=1e-4, atol=1e-5)


def test_extreme_logits_give_finite_weights(device: torch.device) -> None:
    z = (1e4 * logits(5)).to(device)
    sums = torch.ones(1, 5, 4, device=device)
    assert bool(coefficients_of(z, None, 0, tau=0.01, hard=False).isfinite().all())
    assert bool(gradient_of(z, sums, None, 0, tau=0.01).isfinite().all())


def test_adam_in_place_is_torch_adam(device: torch.device) -> None:
    n, rule = 67, AdamRule(lr=0.03, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.5)
    parameter = torch.nn.Parameter(logits(n).to(device))
    constants = {"betas": rule.betas, "eps": rule.eps, "weight_decay": rule.weight_decay}
    optimiser = torch.optim.AdamW([parameter], lr=rule.lr, **constants)  # type: ignore[arg-type]
    z = parameter.detach().clone()
    moments = Moments(torch.zeros_like(z), torch.zeros_like(z))
    for step in range(1, 4):
        sums = torch.randn(1, n, 4, generator=torch.Generator().manual_seed(step)).to(device)
        parameter.grad = gradient_of(parameter.detach(), sums, None, 0, tau=0.5)
        optimiser.step()
        corrections = [1 - beta**step for beta in rule.betas]
        kept = 1 - rule.lr * rule.weight_decay
        factors = [rule.lr / corrections[0], corrections[1] ** -0.5, kept]
        rates = torch.tensor(factors, device=device)
        adam_step(z, moments, sums, None, 0, tau=0.5, rule=rule, rates=rates)
    torch.testing.assert_close(z, parameter.detach(), rtol=1e-5, atol=1e-5)
    state = optimiser.state[parameter]
    torch.testing.assert_close(moments.mean, state["exp_avg"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(moments.square, state["exp_avg_sq"], rtol=1e-5, atol=1e-6)
