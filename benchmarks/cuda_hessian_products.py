"""How long does a product with the Hessian take on a GPU, and how long would memory alone take?

    python benchmarks/cuda_hessian_products.py             # 6 × 64k, 1024 samples
    python benchmarks/cuda_hessian_products.py --depth 12 --width 256000 --batch 128 --no-reference

The mean cross-entropy of random bits and labels, all layers probed, float32. A product is timed a
direction, with as many directions in one call as the row says; four are taken in one sweep, and
share the loads of activations and gradients. Beside it stands the time of a copy of as many bytes
as must move, each array counted once for each gate that reads it; caches may beat that. Plain
PyTorch differentiates the gradient's graph once more. Results go to ``results/``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from cuda_training_step import copy_bandwidth, time_call
from harness import write_results
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.kernels import reference

N_FEATURES, N_CLASSES = 1024, 10
DIRECTIONS = (1, 2, 3, 4, 8, 16)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--width", type=int, default=64_000)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-reference", action="store_true", help="leave plain PyTorch out")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("this benchmark needs a CUDA device, and none is available here")
        return 0
    bandwidth = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}: a copy moves {bandwidth / 1e9:.0f} GB/s")
    print(f"{options.depth} × {options.width} gates, {options.batch} samples")
    table = {}
    for name, row in measure(options, "cuda"):
        if "bytes" in row:
            row["copy_ms"] = 1e3 * row["bytes"] / bandwidth
        table[name] = row
        bound = f"   (a copy {row['copy_ms']:9.3f})" if "bytes" in row else ""
        print(f"  {name:48s} {row['ms']:9.3f} ms{bound}", flush=True)
    results = {
        "options": vars(options),
        "copy_bytes_per_s": bandwidth,
        "table": table,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
    }
    print(f"written: {write_results('cuda-hessian-products', results)}")
    return 0


def measure(options: Any, device: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield what was timed, with its milliseconds, and the bytes that it must move where known."""
    from lgn_analysis.kernels import cuda

    rounds = options.rounds
    make = maker(options, device)
    yield "preparing: forward, loss, backward", {"ms": time_call(lambda: make(cuda), rounds)}
    curvature = make(cuda)
    n_params = options.depth * options.width * 16
    for k in DIRECTIONS:
        rows = torch.randn(k, n_params, dtype=torch.float64, device=device)
        milliseconds = time_call(lambda v=rows: curvature.products(v), rounds) / k
        row = {"ms": milliseconds, "bytes": product_bytes(options, k) / k}
        yield f"a product of {k} at once, a direction", row
    for k in DIRECTIONS:
        call = probes(curvature, k)
        row = {"ms": time_call(call, rounds) / k, "bytes": probe_bytes(options, k) / k}
        yield f"an activation probe of {k} at once, a probe", row
    if options.no_reference:
        return
    plain = make(reference)
    rows = torch.randn(1, n_params, device=device)
    yield "a product, plain PyTorch", {"ms": time_call(lambda: plain.products(rows), rounds)}
    yield "an activation probe, plain PyTorch", {"ms": time_call(probes(plain, 1), rounds)}


def probes(curvature: Any, k: int) -> Callable[[], Any]:
    return lambda: curvature.activation_products(0, 0, k)


def maker(options: Any, device: str) -> Callable[[Any], Any]:
    """Return what makes the curvature of one network and its samples by a backend."""
    model = lgn.LogicNetwork(
        N_FEATURES, options.width, options.depth, N_CLASSES, options.width / 1000
    ).to(device)
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(options.batch, N_FEATURES, generator=generator) < 0.5).to(device)
    y = torch.randint(N_CLASSES, (options.batch,), generator=generator).to(device)
    network = model.as_spec("soft")
    logits = [layer.logits.detach() for layer in model.layers]

    def make(backend: Any) -> Any:
        return backend.Curvature(
            network,
            logits,
            x,
            lambda outputs: functional.cross_entropy(outputs, y),
            tau=1.0,
            layers=range(options.depth),
        )

    return make


def product_bytes(options: Any, k: int) -> float:
    """Return the bytes that k products must move.

    A sweep of v directions, in numbers a gate and sample: forward a, b, ȧ and ḃ are read and ẏ is
    written, 2 + 3v; backward each of two readers needs δ, δ̇, the other input and its tangent,
    4 + 4v, a feature its own value and tangent, 1 + v, and δ̇ is written, v. The first layer reads
    bits, writes ẏ and reads δ̇; the δ̇ and δ of the last are those of its group, and its ẏ is read
    once more. A gate's weights, directions, coefficients and sums come on top.
    """
    total = 0.0
    for v in sweeps(k):
        hidden = (2 + 3 * v) + (4 + 4 * v) + (1 + v) + v
        total += tangent_bytes(options, v, hidden)
        parts = -(-options.batch // (64 if v == 1 else 32))
        ends = (128 + 128 + 16) + (128 + 128 + 128 + 32) + 2 * 16 * parts
        total += options.depth * options.width * v * ends
    return total


def probe_bytes(options: Any, k: int) -> float:
    """Return the bytes that k activation probes must move; their sums read a, b and δ̇ instead."""
    return sum(
        tangent_bytes(options, v, (2 + 3 * v) + (4 + 4 * v) + v + (2 + v)) for v in sweeps(k)
    )


def tangent_bytes(options: Any, v: int, hidden: int) -> float:
    """Return the bytes of a sweep's tangents, ``hidden`` numbers a gate and sample of most layers."""
    rest = (options.depth - 1) * hidden + 2 * v - (2 + 2 * v) + v
    return 4.0 * options.width * options.batch * rest


def sweeps(k: int) -> list[int]:
    """Return how many directions each sweep takes."""
    return [4] * (k // 4) + [size for size in (2, 1) if k % 4 & size]


if __name__ == "__main__":
    sys.exit(main())
