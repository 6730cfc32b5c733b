"""What only a GPU can show: CUDA graphs, no waiting for the host, memory and its 64-bit addresses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import FUSED
from lgn_analysis.kernels import cuda, reference
from lgn_analysis.kernels.cuda import PackedSamples, TrainingRun
from lgn_analysis.kernels.cuda.backward import Delta, backward_inputs
from lgn_analysis.kernels.cuda.bits import pack_bits
from lgn_analysis.kernels.cuda.runtime.layout import Consumers
from lgn_analysis.kernels.interface import AdamRule, Curvature, Moments, NetworkSpec
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training.stepper import Steps

KEY = NoiseKey(7, Purpose.TRAINING)


def make_run(
    device: torch.device, *, capture: bool, dtype: torch.dtype = torch.float32
) -> tuple[TrainingRun, list[torch.Tensor], torch.Tensor]:
    model = LogicNetwork(
        n_features=300, width=1000, depth=4, n_classes=10, group_tau=20.0, backend="reference"
    ).to(device)
    logits = [layer.logits.detach().clone() for layer in model.layers]
    moments = [Moments(torch.zeros_like(z), torch.zeros_like(z)) for z in logits]
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(500, 300, generator=generator) < 0.5).to(device)
    y = torch.randint(10, (500,), generator=generator).to(device)
    order = torch.randint(500, (20, 128), generator=generator).to(device)
    network = NetworkSpec(
        tuple(layer.wiring for layer in model.layers), 300, model.relaxation, 10, 20.0
    )
    samples = PackedSamples(pack_bits(x), 300)
    run = TrainingRun(
        replace(network, gradient_dtype=dtype),
        logits,
        moments,
        samples,
        y,
        AdamRule(0.01),
        capture=capture,
    )
    return run, logits, order


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_captured_step_is_the_launched_step_bit_for_bit(
    dtype: torch.dtype, gpu: torch.device
) -> None:
    results = []
    for capture in (False, True):
        run, logits, order = make_run(gpu, capture=capture, dtype=dtype)
        first = run.run(order[:12], KEY, steps_done=0)
        last = run.run(order[12:], replace(KEY, draw=12), steps_done=12)
        results.append([first, last, *logits])
    for launched, captured in zip(*results, strict=True):
        torch.testing.assert_close(captured, launched, rtol=0, atol=0)


@pytest.mark.parametrize("capture", [False, True])
def test_no_step_waits_for_the_gpu(capture: bool, gpu: torch.device) -> None:
    run, _, order = make_run(gpu, capture=capture)
    run.run(order[:3], KEY, steps_done=0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.run(order[:3], replace(KEY, draw=3), steps_done=3)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_plain_loop_does_not_wait_for_the_gpu(gpu: torch.device) -> None:
    model = LogicNetwork(n_features=300, width=1000, depth=4, n_classes=10, group_tau=20.0).to(gpu)
    x = torch.rand(128, 300, device=gpu) < 0.5
    y = torch.randint(10, (128,), device=gpu)
    functional.cross_entropy(model(x), y).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        functional.cross_entropy(model(x), y).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", FUSED)
def test_training_on_a_gpu_is_the_reference_on_it(name: str, gpu: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(500, 300, generator=generator) < 0.5
    y = torch.randint(10, (500,), generator=generator)
    losses = []
    for backend in (None, "reference"):
        model = LogicNetwork(
            n_features=300,
            width=1000,
            depth=4,
            n_classes=10,
            group_tau=20.0,
            relaxation=FUSED[name](),
            backend=backend,
        ).to(gpu)
        steps = Steps(model, x, y, batch_size=100, lr=0.01, seed=3)
        losses.append([steps.advance(first, first + 5, lambda n: None) for first in (0, 5)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_layer_of_the_papers_width_is_the_reference(gpu: torch.device) -> None:
    n, batch = 256_000, 128
    generator = torch.Generator().manual_seed(0)
    wiring = torch.randint(n, (2, n), generator=generator).to(gpu)
    bits = (torch.rand(n, batch, generator=generator) < 0.5).to(gpu)
    gates = torch.randint(16, (n,), generator=generator).to(gpu)
    words = pack_bits(bits)
    expected = reference.gate_layer_packed(words, wiring, gates)
    torch.testing.assert_close(cuda.gate_layer_packed(words, wiring, gates), expected)
    delta = torch.randn(n, batch, generator=generator).to(gpu)
    coefficients = reference.COEFFICIENTS.to(gpu)[gates].float().requires_grad_()
    x = bits.float().requires_grad_()
    outputs = reference.gate_layer(x, wiring, coefficients)
    grad_x, grad_coefficients = torch.autograd.grad(outputs, (x, coefficients), delta)
    got, sums = backward_inputs(
        Delta(delta),
        words,
        gates.to(torch.uint8),
        Consumers.of(wiring, n),
        batch,
        out_dtype=torch.float32,
    )
    torch.testing.assert_close(got, grad_x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sums.sum(0), grad_coefficients, rtol=1e-3, atol=1e-3)


def make_curvature(
    backend: str, device: torch.device | str, dtype: torch.dtype, *, batch: int, width: int = 1000
) -> Curvature:
    """Return the curvature of layers 0, 1 and 3 of four, of the same samples on any device."""
    model = LogicNetwork(300, width, 4, 10, 20.0, backend="reference").to(torch.float32)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, 300, generator=generator) < 0.5
    y = torch.randint(10, (batch,), generator=generator).to(device)
    wirings = tuple(layer.wiring.to(device) for layer in model.layers)
    kind = {"cuda": cuda, "reference": reference}[backend].Curvature
    return kind(
        NetworkSpec(wirings, 300, model.relaxation, 10, 20.0),
        [layer.logits.detach().to(device, dtype) for layer in model.layers],
        x.to(device),
        lambda outputs: functional.cross_entropy(outputs, y),
        tau=0.8,
        layers=(0, 1, 3),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_curvature_on_a_gpu_is_the_reference_and_the_same_bits_again(
    dtype: torch.dtype, gpu: torch.device
) -> None:
    slow = make_curvature("reference", "cpu", torch.float64, batch=301)
    fast = make_curvature("cuda", gpu, dtype, batch=301)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(7, 3 * 16000, generator=generator, dtype=torch.float64)
    got = [fast.slopes, fast.products(rows.to(gpu)), *fast.activation_products(5, 2, 7)]
    expected = [slow.slopes, slow.products(rows), *slow.activation_products(5, 2, 7)]
    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    assert fast.loss == pytest.approx(slow.loss, rel=rtol)
    for mine, theirs in zip(got, expected, strict=True):
        assert float((mine.cpu() - theirs).norm()) <= rtol * float(theirs.norm())
    again = make_curvature("cuda", gpu, dtype, batch=301)
    repeated = [again.slopes, again.products(rows.to(gpu)), *again.activation_products(5, 2, 7)]
    for once, twice in zip(got, repeated, strict=True):
        assert torch.equal(once, twice)


def test_curvature_takes_the_memory_that_it_states(gpu: torch.device) -> None:
    width, batch = 2000, 2000
    array = 4 * width * batch * 4
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    curvature = make_curvature("cuda", gpu, torch.float32, batch=batch, width=width)
    held = torch.cuda.memory_allocated()
    assert held - before <= curvature.ARRAYS * array
    rows = torch.randn(16, 3 * width * 16, device=gpu)
    with_rows = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = curvature.products(rows)
    assert torch.cuda.max_memory_allocated() - with_rows - result.nbytes <= 5 * array
    torch.cuda.reset_peak_memory_stats()
    curvature.activation_products(0, 0, 16)
    assert torch.cuda.max_memory_allocated() - with_rows - result.nbytes <= 5 * array


def test_no_product_waits_for_the_gpu(gpu: torch.device) -> None:
    curvature = make_curvature("cuda", gpu, torch.float32, batch=64)
    rows = torch.randn(3, 3 * 16000, device=gpu)

    def multiply() -> None:
        curvature.products(rows)
        curvature.activation_products(0, 0, 3)

    multiply()
    torch.cuda.set_sync_debug_mode("error")
    try:
        multiply()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow
def test_offsets_beyond_32_bits_are_addressed(gpu: torch.device) -> None:
    if torch.cuda.get_device_properties(gpu).total_memory < 30e9:
        pytest.skip("needs 30 GB of GPU memory")
    n_in, n, batch = 3, 2_200_000, 1000  # 2.2e9 outputs
    wiring = torch.stack([torch.arange(n) % n_in, (torch.arange(n) + 1) % n_in]).to(gpu)
    x = torch.rand(n_in, batch, device=gpu)
    coefficients = torch.randn(n, 4, device=gpu)
    outputs = cuda.gate_layer(x, wiring, coefficients)
    last = slice(n - 1000, n)
    expected = reference.gate_layer(x, wiring[:, last], coefficients[last])
    torch.testing.assert_close(outputs[last], expected)
