"""How long does a training step take on a GPU, and how long would memory alone take?

    python benchmarks/cuda_training_step.py                # the paper's size: 12 × 256k, batch 128
    python benchmarks/cuda_training_step.py --depth 4 --width 128000 --thresholds 3

Inputs are CIFAR-10's shapes (3072 pixels, each under some thresholds, packed); their values are
random, which costs the same. Every step holds batch, forward, loss, backward and Adam. Two bounds
stand beside the times: the bytes that the step must move over a measured copy bandwidth, and the
44 bytes a gate and sample in float32 that published kernels move. Results go to ``results/``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from harness import write_results
from torch import Tensor
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.gates.noise import NoiseKey, Purpose

N_PIXELS, N_CLASSES, N_SAMPLES = 3072, 10, 4096
PUBLISHED_BYTES = 44


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--width", type=int, default=256_000)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--thresholds", type=int, default=31)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--no-reference", action="store_true", help="leave plain PyTorch out")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("this benchmark needs a CUDA device, and none is available here")
        return 0
    bandwidth = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}: a copy moves {bandwidth / 1e9:.0f} GB/s")
    steps = {name: time_step(make(options), options.rounds) for name, make in variants(options)}
    bounds = {
        "packed, float32 gradients": 1e3 * packed_bytes(options, 4) / bandwidth,
        "packed, bfloat16 gradients": 1e3 * packed_bytes(options, 2) / bandwidth,
        "published float kernels, 44 bytes a gate and sample": 1e3
        * (PUBLISHED_BYTES * options.batch + OPTIMISER_BYTES)
        * (options.width * options.depth)
        / bandwidth,
    }
    print(f"\n{options.depth} × {options.width} gates, batch {options.batch}: milliseconds a step")
    for name, row in steps.items():
        print(f"  {name:46s} {row['median']:8.3f}  ({row['low']:.3f} to {row['high']:.3f})")
    print("bounds by memory traffic")
    for name, milliseconds in bounds.items():
        print(f"  {name:46s} {milliseconds:8.3f}")
    kernels = dict(kernel_table(options, bandwidth))
    print("kernels of one layer: ms, GB/s, share of the copy bandwidth")
    for name, row in kernels.items():
        print(f"  {name:46s} {row['ms']:8.4f} {row['GB/s']:7.0f} {row['of copy']:6.0%}")
    results = {
        "options": vars(options),
        "copy_bytes_per_s": bandwidth,
        "step_ms": steps,
        "bound_ms": bounds,
        "kernels": kernels,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
    }
    print(f"written: {write_results('cuda-training-step', results)}")
    return 0


OPTIMISER_BYTES = 4 * 16 * 7
"""Bytes a gate for logits and Adam: z read twice and written once, both moments read and written."""


def packed_bytes(options: Any, itemsize: int) -> float:
    """Return the bytes that a packed step must move: each array once for each pass that needs it.

    A gate's δ is read as a reader of A and of B and written once (the last layer's δ is that of its
    group), its bits are read twice and written once forward and read three times backward.
    """
    gates, bits = options.width * options.depth, options.batch / 8
    delta = (3 * (options.depth - 1)) * options.width * options.batch * itemsize
    indices = 8 + 8 * 2 + 4 + 2
    sums = 2 * 16
    return gates * (OPTIMISER_BYTES + 6 * bits + indices + sums) + delta


def copy_bandwidth() -> float:
    """Return the bytes a second, read and written, of a device copy far larger than the cache."""
    source = torch.empty(2**28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    milliseconds = time_call(lambda: target.copy_(source), 20)
    return 2 * source.numel() * 4 / (1e-3 * milliseconds)


def time_call(call: Callable[[], Any], repeats: int) -> float:
    """Return the median milliseconds of a call on the GPU's own clock."""
    call()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def time_step(run: Callable[[int], None], rounds: int, steps: int = 10) -> dict[str, float]:
    """Return quartiles of the milliseconds a step, over rounds of a few steps each."""
    run(steps)
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        times.append(time_call_once(run, steps) / steps)
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def time_call_once(run: Callable[[int], None], steps: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run(steps)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


# --- what is compared ---------------------------------------------------------------------------

Maker = Callable[[Any], Callable[[int], None]]


def variants(options: Any) -> Iterator[tuple[str, Maker]]:
    """Yield a name and what makes a function that takes n steps."""
    hard, soft = lgn.GumbelST(), lgn.Soft()
    wide, narrow = torch.float32, torch.bfloat16
    yield "packed, float32 gradients, CUDA graph", lambda o: our_run(o, hard, wide, True)
    yield "packed, bfloat16 gradients, CUDA graph", lambda o: our_run(o, hard, narrow, True)
    yield "packed, float32 gradients, launched", lambda o: our_run(o, hard, wide, False)
    yield "packed, float32 gradients, PyTorch loop", lambda o: plain_loop(o, hard, "cuda")
    yield "soft, float32 gradients, CUDA graph", lambda o: our_run(o, soft, wide, True)
    yield "soft, bfloat16 gradients, CUDA graph", lambda o: our_run(o, soft, narrow, True)
    if not options.no_reference:
        yield "plain PyTorch, four coefficients", lambda o: plain_loop(o, hard, "reference")


def our_run(
    options: Any, relaxation: lgn.Relaxation, dtype: torch.dtype, capture: bool
) -> Callable[[int], None]:
    """Return steps as ``TrainingRun`` takes them, from packed bits."""
    from lgn_analysis.kernels.cuda import PackedSamples, TrainingRun, pack_bits
    from lgn_analysis.kernels.interface import AdamRule, Moments

    model = make_model(options, relaxation, "cuda", dtype)
    parameters = [layer.logits.detach() for layer in model.layers]
    moments = [Moments(torch.zeros_like(z), torch.zeros_like(z)) for z in parameters]
    bits, labels = make_data(options)
    run = TrainingRun(
        model.as_spec(),
        parameters,
        moments,
        PackedSamples(pack_bits(bits), bits.shape[1]),
        labels,
        AdamRule(0.01),
        capture=capture,
    )
    taken = 0
    key = NoiseKey(0, Purpose.TRAINING)

    def steps(n: int) -> None:
        nonlocal taken
        order = torch.randint(N_SAMPLES, (n, options.batch), device="cuda")
        run.run(order, replace(key, draw=taken), steps_done=taken)
        taken += n

    return steps


def plain_loop(options: Any, relaxation: lgn.Relaxation, backend: str) -> Callable[[int], None]:
    """Return steps as a PyTorch user writes them, from bits that are encoded before."""
    model = make_model(options, relaxation, backend, torch.float32).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    bits, labels = make_data(options)
    x, y = bits[: options.batch], labels[: options.batch]

    def steps(n: int) -> None:
        for _ in range(n):
            loss = functional.cross_entropy(model(x), y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    return steps


def make_model(
    options: Any, relaxation: lgn.Relaxation, backend: str, dtype: torch.dtype
) -> lgn.LogicNetwork:
    torch.cuda.empty_cache()
    return lgn.LogicNetwork(
        N_PIXELS * options.thresholds,
        options.width,
        options.depth,
        N_CLASSES,
        100.0,
        relaxation=relaxation,
        backend=backend,
        gradient_dtype=dtype,
    ).to("cuda")


def make_data(options: Any) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device="cuda").manual_seed(0)
    shape = (N_SAMPLES, N_PIXELS * options.thresholds)
    bits = torch.rand(shape, device="cuda", generator=generator) < 0.5
    return bits, torch.randint(N_CLASSES, (N_SAMPLES,), device="cuda", generator=generator)


# --- kernel by kernel ---------------------------------------------------------------------------


def kernel_table(options: Any, bandwidth: float) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each kernel's time on one hidden layer, with the bytes that it must move."""
    from lgn_analysis.kernels.cuda import backward
    from lgn_analysis.kernels.cuda.forward import (
        gates_forward_float,
        gates_forward_packed,
        group_sums,
    )
    from lgn_analysis.kernels.cuda.logits import Draw, coefficients_of, gates_of
    from lgn_analysis.kernels.cuda.runtime.layout import Consumers
    from lgn_analysis.kernels.cuda.training.steps import adam_step
    from lgn_analysis.kernels.interface import AdamRule, Moments

    n, batch, device = options.width, options.batch, torch.device("cuda")
    generator = torch.Generator().manual_seed(0)
    wiring = torch.stack([torch.randperm(n, generator=generator) for _ in range(2)]).to(device)
    consumers = Consumers.of(wiring, n)
    z = torch.randn(n, 16, device=device)
    draw = Draw.of(NoiseKey(0, Purpose.TRAINING), device)
    gates = gates_of(z, draw)
    words = torch.randint(2**62, (n, -(-batch // 64)), device=device)
    values = torch.rand(n, batch, device=device)
    coefficients = coefficients_of(z, draw, 0, tau=1.0, hard=False)
    moments = Moments(torch.zeros_like(z), torch.zeros_like(z))
    rates = torch.tensor([0.01, 1.0, 1.0], device=device)
    sums = torch.randn(1, n, 4, device=device)
    row, packed_row, index = 4 * batch, 8 * words.shape[1], 8

    def adam() -> None:
        adam_step(z, moments, sums, draw, 0, tau=1.0, rule=AdamRule(0.01), rates=rates)

    def entry(
        name: str, call: Callable[[], Any], bytes_a_gate: float
    ) -> tuple[str, dict[str, float]]:
        milliseconds = time_call(call, options.rounds)
        rate = bytes_a_gate * n / (1e-3 * milliseconds)
        return name, {"ms": milliseconds, "GB/s": rate / 1e9, "of copy": rate / bandwidth}

    yield entry("noise and argmax", lambda: gates_of(z, draw), 64 + 1)
    yield entry(
        "noise, softmax and 16 → 4",
        lambda: coefficients_of(z, draw, 0, tau=1.0, hard=False),
        64 + 16,
    )
    yield entry("softmax backward and Adam", adam, 6 * 64 + 16)
    yield entry(
        "packed forward",
        lambda: gates_forward_packed(words, consumers.wiring, gates),
        3 * packed_row + index + 1,
    )
    yield entry(
        "float forward",
        lambda: gates_forward_float(values, consumers.wiring, coefficients, batch),
        3 * row + index + 16,
    )
    yield entry("group sums of bits", lambda: group_sums(words, 10, 1.0, batch), packed_row)
    with tile_sizes(backend_module=backward):
        for elements in (1024, 2048, 4096):
            backward.ELEMENTS = elements  # type: ignore[misc]
            for dtype in (torch.float32, torch.bfloat16):
                delta = backward.Delta(torch.randn(n, batch, device=device).to(dtype))
                item = dtype.itemsize / 4
                for name, inputs, table, read in (
                    ("packed", words, gates, packed_row + 2 * packed_row + 2),
                    ("float", values, coefficients, 3 * row + 32),
                ):
                    yield entry(
                        f"{name} backward, {str(dtype)[6:]}, tiles of {elements}",
                        lambda d=delta, x=inputs, t=table: backward.backward_inputs(
                            d, x, t, consumers, batch, out_dtype=d.rows.dtype
                        ),
                        3 * row * item + read + 3 * index + 16,
                    )


@contextmanager
def tile_sizes(backend_module: Any) -> Iterator[None]:
    """Put the tile size of the backward kernels back afterwards."""
    before = backend_module.ELEMENTS
    try:
        yield
    finally:
        backend_module.ELEMENTS = before


if __name__ == "__main__":
    sys.exit(main())
