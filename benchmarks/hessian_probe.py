"""How long do a trace and eigenvalues take, at equal error, and how does the cost grow?

    python benchmarks/hessian_probe.py                       # everything, some twenty minutes
    python benchmarks/hessian_probe.py --parts trace eigs    # some of it

**trace**: wall time to a standard error of 1 % on 4 × 1000 gates and 512 digits, at three stages of training. How many products a
method needs is a property of the method and the Hessian, so the contenders' own estimators run on our
products for that, over several seeds; what a product costs them is then measured on their own. Their
linear algebra between products is not charged.

**eigs**: ten eigenvalues at each end, residuals at most 1e-6 of the largest, float64, against curvlinops'
products in SciPy's eigsh.

**size**: traces and top eigenvalues from small networks to 12 × 64 000 gates, with peak memory.

Needs ``pip install 'lgn_analysis[bench]'``. Results go to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from curvlinops import HessianLinearOperator, hutchinson_trace, hutchpp_trace, xtrace
from curvlinops._torch_base import PyTorchLinearOperator
from harness import RESULTS, peak_memory_bytes, quartiles, write_results
from hessian_contenders import FourCoefficients, Problem
from hessian_eigenthings import HessianOperator, LambdaOperator, hutch_plus_plus, supervised_loss
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

import lgn_analysis as lgn
from lgn_analysis.plots.style import panels

TARGET: Final = 0.01
SAMPLES: Final = 512
REPEATS: Final = 8
OURS_COUNTS: Final = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
COUNTS: Final = (48, 96, 192, 384, 768)
STAGES: Final = (
    (500, lgn.Soft(1.0)),
    (20_000, lgn.Soft(1.0)),
    (20_000, lgn.GumbelST(1.0)),
)
TOLERANCE: Final = 1e-6
PAIRS: Final = 20
SIZES: Final = ((1000, 4), (2000, 6), (4000, 6), (8000, 6), (16_000, 8), (32_000, 12), (64_000, 12))
SIZE_SAMPLES: Final = 256


def trained(
    width: int, depth: int, steps: int = 500, relaxation: lgn.Relaxation | None = None
) -> Problem:
    """Return a network after some training, without noise unless it is said, and training samples."""
    data = lgn.load_dataset("digits")
    relaxation = relaxation or lgn.Soft(1.0)
    model = lgn.LogicNetwork(
        data.n_features, width, depth, 10, max(20.0, width / 200), relaxation=relaxation
    )
    lgn.train(model, data, steps=steps, eval_every=steps, progress=False)
    logits = [layer.logits.detach() for layer in model.layers]
    return Problem(model, logits, data.x_train[:SAMPLES], data.y_train[:SAMPLES])


def seconds(run: Callable[[], Any], rounds: int) -> list[float]:
    """Return the seconds of every round, after one that does not count."""
    run()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


class AsCurvlinops(PyTorchLinearOperator):
    """Our products under curvlinops' estimators."""

    def __init__(self, probe: lgn.HessianProbe) -> None:
        shape = [(probe.shape[0],)]
        super().__init__(shape, shape)
        self.probe = probe

    def _matmat(self, M: list[Tensor]) -> list[Tensor]:
        return [self.probe @ M[0]]

    def _adjoint(self) -> AsCurvlinops:
        return self

    @property
    def device(self) -> torch.device:
        return self.probe.device

    @property
    def dtype(self) -> torch.dtype:
        return self.probe.dtype


def compare_traces(rounds: int, steps: int, relaxation: lgn.Relaxation) -> dict[str, Any]:
    """Return products and seconds to a standard error of 1 %, ours and theirs, at one stage."""
    problem = trained(1000, 4, steps, relaxation)
    data = (problem.x, problem.y)
    probe = lgn.HessianProbe(problem.model, data)
    exact = probe.trace(rtol=0.0005, seed=10**6)
    truth = exact.estimate
    print(f"\n{relaxation}, {steps} steps: {exact}")

    def error_of(estimate: Callable[[int], float], repeats: int) -> float:
        values = [(estimate(seed) - truth) / truth for seed in range(repeats)]
        return math.sqrt(sum(value**2 for value in values) / repeats)

    n_ours, ours_error = 0, math.inf
    for count in OURS_COUNTS:
        if ours_error <= TARGET:
            break
        n_ours = count
        ours_error = error_of(lambda seed: probe.trace(n_probes=count, seed=seed).estimate, 40)  # noqa: B023
    warm = seconds(lambda: probe.trace(n_probes=n_ours), rounds)
    cold = seconds(lambda: lgn.HessianProbe(problem.model, data).trace(n_probes=n_ours), rounds)
    rows: list[dict[str, Any]] = []
    for name, times in (("ours, probe and trace", cold), ("ours, trace", warm)):
        rows.append(_row(name, n_ours, ours_error, times))

    their_times = _their_products(problem, rounds)
    wrapped = AsCurvlinops(probe)
    estimators = {
        "curvlinops, Hutchinson": lambda count: float(hutchinson_trace(wrapped, count)),
        "curvlinops, Hutch++": lambda count: float(hutchpp_trace(wrapped, count)),
        "curvlinops, XTrace": lambda count: float(xtrace(wrapped, count)),
        "hessian-eigenthings, Hutch++": lambda count: float(
            hutch_plus_plus(
                LambdaOperator(
                    probe.matvec, probe.shape[0], device=probe.device, dtype=probe.dtype
                ),
                num_matvecs=count,
            ).estimate
        ),
    }
    for name, estimate in estimators.items():
        counts, errors = [], []
        for count in COUNTS:
            torch.manual_seed(count)
            counts.append(count)
            errors.append(error_of(lambda _: estimate(count), REPEATS))  # noqa: B023
            print(f"  {name}: {count} products, error {errors[-1]:.2%}", flush=True)
            if errors[-1] < TARGET:
                break
        needed = _count_at(counts, errors)
        product = their_times[name.split(",")[0]]
        rows.append(_row(name, needed, TARGET, [needed * t for t in product]))
    base = rows[0]["seconds"]  # our own preparation is charged
    for row in rows:
        row["times_ours"] = float(f"{row['seconds'] / base:.4g}")
        print(
            f"{row['method']:32s} {row['products']:9.0f} products {row['seconds']:10.4f} s "
            f"{row['times_ours']:9.1f} times ours"
        )
    return {
        "size": "4 x 1000 gates, 512 digits, float32",
        "training": f"{relaxation}, {steps} steps",
        "trace": truth,
        "rows": rows,
    }


def _row(name: str, products: float, error: float, times: list[float]) -> dict[str, Any]:
    low, middle, high = quartiles(times)
    return {
        "method": name,
        "products": round(products),
        "error": float(f"{error:.3g}"),
        "seconds": float(f"{middle:.4g}"),
        "low": float(f"{low:.4g}"),
        "high": float(f"{high:.4g}"),
    }


def _count_at(counts: Sequence[int], errors: Sequence[float]) -> float:
    """Return how many products bring the target, by the last two counts or by one over the root."""
    if errors[-1] > TARGET or len(counts) == 1:
        return counts[-1] * (errors[-1] / TARGET) ** 2
    slope = math.log(errors[-1] / errors[-2]) / math.log(counts[-1] / counts[-2])
    return counts[-1] * (TARGET / errors[-1]) ** (1 / min(slope, -0.5))


def _their_products(problem: Problem, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of one product by each tool, in the fastest way that it offers."""
    model, batch = FourCoefficients(problem), (problem.x.to(problem.dtype), problem.y)
    curv = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), [batch], check_deterministic=False
    )
    things = HessianOperator(model, [batch], supervised_loss(nn.CrossEntropyLoss()))
    v = torch.randn(problem.n_params, dtype=problem.dtype)
    block = torch.randn(problem.n_params, 16, dtype=problem.dtype)
    alone = seconds(lambda: curv @ v, rounds)
    together = [value / 16 for value in seconds(lambda: curv @ block, max(2, rounds // 4))]
    return {
        "curvlinops": min(alone, together, key=lambda times: quartiles(times)[1]),
        "hessian-eigenthings": seconds(lambda: things.matvec(v), rounds),
    }


def compare_eigenvalues(width: int, depth: int) -> dict[str, Any]:
    """Return seconds, products and residuals of twenty eigenpairs, ours and theirs."""
    problem = trained(width, depth).to(torch.float64)
    model = problem.model.double()
    ours, start = None, time.perf_counter()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        ours = lgn.HessianProbe(model, (problem.x, problem.y)).eigs(
            k=PAIRS, which="BE", tol=TOLERANCE
        )
        times.append(time.perf_counter() - start)
    assert ours is not None
    plain = FourCoefficients(problem)
    curv = HessianLinearOperator(
        plain,
        nn.CrossEntropyLoss(),
        list(plain.parameters()),
        [(problem.x.double(), problem.y)],
        check_deterministic=False,
    )
    spent = 0

    def multiply(v: Any) -> Any:
        nonlocal spent
        spent += 1
        return (curv @ torch.from_numpy(np.ascontiguousarray(v.reshape(-1)))).numpy()

    n = problem.n_params
    start = time.perf_counter()
    values, vectors = eigsh(
        LinearOperator((n, n), matvec=multiply, dtype=np.float64),
        k=PAIRS,
        which="BE",
        tol=TOLERANCE,
    )
    theirs = time.perf_counter() - start
    largest = np.abs(values).max()
    probe = lgn.HessianProbe(model, (problem.x, problem.y))
    rest = (probe @ torch.from_numpy(vectors)).numpy() - vectors * values
    row = {
        "size": f"{depth} x {width} gates, 512 digits, float64, n = {n}",
        "ours_seconds": float(f"{quartiles(times)[1]:.4g}"),
        "ours_products": ours.n_matvecs,
        "ours_residual": float(f"{ours.residuals.max():.2g}"),
        "ours_converged": ours.converged,
        "eigsh_seconds": float(f"{theirs:.4g}"),
        "eigsh_products": spent,
        "eigsh_residual": float(f"{np.linalg.norm(rest, axis=0).max() / largest:.2g}"),
        "largest_difference": float(
            f"{np.abs(np.sort(values) - np.sort(ours.values)).max() / largest:.2g}"
        ),
        "times_ours": float(f"{theirs / quartiles(times)[1]:.3g}"),
    }
    print(json.dumps(row, indent=1), flush=True)
    return row


def measure_size(width: int, depth: int) -> None:
    """Print what a trace and the top eigenvalues cost in this process, as JSON."""
    data = lgn.load_dataset("digits")
    model = lgn.LogicNetwork(
        data.n_features, width, depth, 10, max(10.0, width / 200), relaxation=lgn.Soft(1.0)
    )
    lgn.train(model, data, steps=200, eval_every=200, progress=False)
    batch = (data.x_train[:SIZE_SAMPLES], data.y_train[:SIZE_SAMPLES])
    before = peak_memory_bytes()
    start = time.perf_counter()
    probe = lgn.HessianProbe(model, batch)
    trace = probe.trace(rtol=0.01, max_matvecs=200)
    middle = time.perf_counter()
    eigen = probe.eigs(k=5, which="LA", tol=1e-3, max_bytes=2**31)
    end = time.perf_counter()
    row = {
        "width": width,
        "depth": depth,
        "parameters": 16 * width * depth,
        "trace": trace.estimate,
        "ci": trace.ci,
        "trace_products": trace.n_matvecs,
        "trace_converged": trace.converged,
        "trace_seconds": round(middle - start, 4),
        "largest": eigen.values.tolist(),
        "eigs_products": eigen.n_matvecs,
        "eigs_converged": eigen.converged,
        "eigs_residual": float(eigen.residuals.max()),
        "eigs_seconds": round(end - middle, 3),
        "seconds_per_product": round((end - middle) / eigen.n_matvecs, 5),
        "peak_gib": round(peak_memory_bytes() / 2**30, 2),
        "peak_before_gib": round(before / 2**30, 2),
    }
    print(json.dumps(row))


def sizes() -> list[dict[str, Any]]:
    """Return the cost over sizes, each in a process of its own."""
    rows = []
    for width, depth in SIZES:
        command = [sys.executable, __file__, "--measure-size", str(width), str(depth)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print({key: value for key, value in rows[-1].items() if key != "largest"}, flush=True)
    return rows


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the cost against the number of parameters, and a line of slope one."""
    with lgn.plots.style():
        figure, (ax,) = panels(1, width=4.0)
        n = [row["parameters"] for row in rows]
        seconds = [row["seconds_per_product"] for row in rows]
        ax.loglog(n, seconds, "o-", label="an eigenvalue's product, all included")
        ax.loglog(n, [seconds[-1] * m / n[-1] for m in n], "--", color="#555555", label="slope 1")
        ax.set_xlabel("parameters")
        ax.set_ylabel("seconds")
        ax.legend()
        figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--parts", nargs="+", default=["trace", "eigs", "size"], choices=["trace", "eigs", "size"]
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--measure-size", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_size:
        measure_size(*options.measure_size)
        return
    packages = ("curvlinops-for-pytorch", "hessian-eigenthings", "scipy")
    results: dict[str, Any] = {"packages": {name: version(name) for name in packages}}
    for part in options.parts:
        if part == "trace":
            results[part] = [compare_traces(options.rounds, *stage) for stage in STAGES]
        elif part == "eigs":
            results[part] = [compare_eigenvalues(1000, 4), compare_eigenvalues(2000, 6)]
        else:
            results[part] = sizes()
            draw(results[part], RESULTS / "hessian-size.png")
        print(
            f"written to {write_results(f'hessian-{part}', {part: results[part], 'packages': results['packages']})}"
        )


if __name__ == "__main__":
    main()
