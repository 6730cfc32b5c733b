"""How long does a Hessian-vector product take, in every way that one can take it?

    python benchmarks/hessian_products.py               # everything, some fifteen minutes
    python benchmarks/hessian_products.py --quick       # fewer rounds, and no scaling

The mean cross-entropy of 512 digits under 6 × 2000 soft gates after some hundred steps of training. All
contenders multiply the same directions, agree before anything is timed, and run in turns in one process.
Needs curvlinops: ``pip install 'lgn_analysis[bench]'``. Results go to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from typing import Any, Final

import torch
from harness import (
    Variant,
    as_json,
    peak_memory_bytes,
    ratio,
    repeated,
    summary,
    time_in_turns,
    write_results,
)
from hessian_contenders import OURS, SIXTEEN, Multiply, Problem, contenders

import lgn_analysis as lgn

WIDTH, DEPTH, SAMPLES, STEPS = 2000, 6, 512, 500
BLOCK: Final = 16
"""Directions of one call."""
DTYPES: Final = (torch.float32, torch.float64)
SIZES: Final = (
    *((width, 6, 256) for width in (1000, 2000, 4000, 8000, 16_000, 32_000, 64_000)),
    *((2000, depth, 256) for depth in (2, 4, 12)),
    *((2000, 6, batch) for batch in (64, 512, 1024)),
    (64_000, 12, 256),
)
BASE: Final = (2000, 6, 256)
WIDE: Final = (64_000, 12, 256)
SCALING_BLOCK: Final = 4


def trained(width: int = WIDTH, depth: int = DEPTH) -> Problem:
    """Return a network after a short training, and training samples, in float32."""
    data = lgn.load_dataset("digits")
    model = lgn.LogicNetwork(
        data.n_features, width, depth, data.n_classes, 10.0, relaxation=lgn.Soft(1.0), seed=0
    )
    lgn.train(model, data, steps=STEPS, batch_size=128, lr=0.01, seed=0, progress=False)
    logits = [layer.logits.detach().float() for layer in model.layers]
    return Problem(model, logits, data.x_train[:SAMPLES], data.y_train[:SAMPLES])


def untrained(width: int, depth: int, batch: int) -> Problem:
    """Return a network of another size and random bits."""
    generator = torch.Generator().manual_seed(0)
    model = lgn.LogicNetwork(1024, width, depth, 10, width / 200, relaxation=lgn.Soft(1.0))
    x = torch.rand(batch, 1024, generator=generator) < 0.5
    y = torch.randint(10, (batch,), generator=generator)
    return Problem(model, [layer.logits.detach().float() for layer in model.layers], x, y)


def timed(multiply: Multiply, rows: torch.Tensor) -> Variant:
    """Return a variant that counts each direction as a call."""
    call = repeated(lambda: multiply(rows))
    return Variant(call.run, call.calls * len(rows))


def compare(problem: Problem, rounds: int) -> dict[str, Any]:
    """Time all contenders in one dtype, alone and sixteen directions at once, and print the table."""
    found = contenders(problem)
    results: dict[str, Any] = {}
    for k in (1, BLOCK):
        rows = problem.directions(k)
        # Sixteen gates at sixteen directions would take minutes, and sixteen times what one takes.
        chosen = {name: m for name, m in found.items() if k == 1 or name != SIXTEEN}
        variants = {name: timed(multiply, rows) for name, multiply in chosen.items()}
        times = time_in_turns(variants, rounds=rounds, warm_up=0)
        title = "one product" if k == 1 else f"a product of {k} at once"
        print(f"\n{title}, {problem.dtype}: milliseconds, and times as long as {OURS}")
        table = as_json(times)
        for name, values in times.items():
            low, middle, high = ratio(values, times[OURS])
            table[name]["times_ours"] = [round(r, 2) for r in (low, middle, high)]
            print(f"  {name:36s} {summary(values)!s:52s} {middle:7.1f} ({low:.1f} to {high:.1f})")
        results[title] = table
    return results


def prepare_and_probe(problem: Problem, rounds: int) -> dict[str, Any]:
    """Time what precedes products, and probes in activations, of which a pair is a call."""
    curvature = problem.curvature()
    sixteen = repeated(lambda: curvature.activation_products(0, 0, BLOCK))
    variants = {
        "preparing: forward, loss, backward": repeated(problem.curvature),
        "a pair of activation probes": repeated(lambda: curvature.activation_products(0, 0, 2)),
        f"a pair of {BLOCK} activation probes": Variant(sixteen.run, sixteen.calls * BLOCK // 2),
    }
    times = time_in_turns(variants, rounds=rounds)
    for name, values in times.items():
        print(f"  {name:36s} {summary(values)}")
    return as_json(times)


def scale(rounds: int) -> list[dict[str, Any]]:
    """Time products over widths, depths and batches, each in turns with the same base size."""
    base = untrained(*BASE)
    base_curvature = base.curvature()
    rows = []
    print("\nscaling, float32: nanoseconds a gate and sample, and that over that of 6 x 2000 x 256")
    for size in SIZES:
        problem = untrained(*size)
        curvature = problem.curvature()
        row: dict[str, Any] = dict(zip(("width", "depth", "batch"), size, strict=True))
        for name, k in (("one", 1), ("block", SCALING_BLOCK)):
            variants = {
                "this": timed(curvature.products, problem.directions(k)),
                "base": timed(base_curvature.products, base.directions(k)),
            }
            times = time_in_turns(variants, rounds=rounds, warm_up=1)
            work = problem.n_gate_samples
            relative = ratio(times["this"], times["base"])
            row[f"{name}_ms"] = float(f"{summary(times['this']).median:.4g}")
            row[f"{name}_ns"] = float(f"{1e6 * row[f'{name}_ms'] / work:.3g}")
            row[f"{name}_times_base"] = [round(r * base.n_gate_samples / work, 2) for r in relative]
        rows.append(row)
        print(
            f"  {size[1]:3d} x {size[0]:6d} x {size[2]:5d}   one {row['one_ms']:8.2f} ms "
            f"{row['one_ns']:6.3f} ns {row['one_times_base'][1]:5.2f}   of {SCALING_BLOCK} "
            f"{row['block_ms']:8.2f} ms {row['block_ns']:6.3f} ns {row['block_times_base'][1]:5.2f}",
            flush=True,
        )
    return rows


def peak_memory() -> dict[str, Any]:
    """Return the peak memory of a process that multiplies and probes with the widest network."""

    def measure(what: str) -> float:
        command = [sys.executable, __file__, "--measure-memory", what]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout.splitlines()[-1])["peak_gib"])

    row = {
        "size": dict(zip(("width", "depth", "batch"), WIDE, strict=True)),
        "peak_gib": measure("products"),
        "idle_gib": measure("nothing"),
    }
    print(f"\npeak memory, 12 x 64000 x 256: {row['peak_gib']} GiB ({row['idle_gib']} GiB before)")
    return row


def measure_memory(what: str) -> None:
    """Multiply and probe with the widest network and print this process's peak memory."""
    problem = untrained(*WIDE)
    if what == "products":
        curvature = problem.curvature()
        curvature.products(problem.directions(2))
        curvature.activation_products(0, 0, 2)
    print(json.dumps({"peak_gib": round(peak_memory_bytes() / 2**30, 2)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and no scaling")
    parser.add_argument("--measure-memory", metavar="WHAT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_memory:
        measure_memory(options.measure_memory)
        return
    rounds = 3 if options.quick else 9
    problem = trained()
    size = f"{DEPTH} x {WIDTH} gates, {SAMPLES} digits, {STEPS} steps of training"
    results: dict[str, Any] = {"size": size, "curvlinops": version("curvlinops-for-pytorch")}
    print(size)
    for dtype in DTYPES:
        results[str(dtype)] = compare(problem.to(dtype), rounds)
    results["probes"] = {}
    for width, depth in ((WIDTH, DEPTH), (1000, 4)):
        print(f"\n{depth} x {width} gates, {SAMPLES} digits, float32: milliseconds")
        results["probes"][f"{depth} x {width}"] = prepare_and_probe(trained(width, depth), rounds)
    if not options.quick:
        results["scaling"] = scale(rounds)
        results["memory"] = peak_memory()
    print(f"\nwritten to {write_results('hessian-products', results)}")


if __name__ == "__main__":
    main()
