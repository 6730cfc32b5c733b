"""How much error is left in a trace after so many products?

    python benchmarks/trace_products.py

Root mean square errors over ‖H‖_F of Hutchinson, Hutch++ (a third each for sketch, sketch again and
rest), XTrace, and the three of curvlinops, on dense Hessians of logic gate networks, and for
comparison on a spectrum that decays. The table goes to ``benchmarks/results/trace-products.{json,md}``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import torch
from curvature_cases import CASES, SHAPES, digits_hessian
from curvlinops import hutchinson_trace as curvlinops_hutchinson
from curvlinops import hutchpp_trace as curvlinops_hutchpp
from curvlinops import xtrace as curvlinops_xtrace
from torch import Tensor

from lgn_analysis.hessian import DenseOperator, hutchinson_trace
from lgn_analysis.hessian.estimators.hutchpp import hutchpp_trace
from lgn_analysis.hessian.estimators.xtrace import xtrace_trace

PRODUCTS: Final = (24, 48, 96, 192)
REPEATS: Final = 200
RESULTS: Final = Path(__file__).parent / "results"

Estimate = Callable[[Tensor, int, int], float]


def _curvlinops(function: Callable[[Tensor, int], Tensor]) -> Estimate:
    def estimate(matrix: Tensor, products: int, seed: int) -> float:
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # curvlinops draws from the global generator
            return float(function(matrix, products))

    return estimate


ESTIMATORS: Final[dict[str, Estimate]] = {
    "Hutchinson": lambda a, m, seed: (
        hutchinson_trace(DenseOperator(a), n_probes=m, seed=seed).estimate
    ),
    "Hutchinson, curvlinops": _curvlinops(curvlinops_hutchinson),
    "Hutch++": lambda a, m, seed: (
        hutchpp_trace(DenseOperator(a), n_probes=m // 3, seed=seed).estimate
    ),
    "Hutch++, curvlinops": _curvlinops(curvlinops_hutchpp),
    "XTrace": lambda a, m, seed: (
        xtrace_trace(DenseOperator(a), n_probes=m // 2, seed=seed).estimate
    ),
    "XTrace, curvlinops": _curvlinops(curvlinops_xtrace),
}


def operators() -> Iterator[tuple[str, Tensor]]:
    """Yield names and matrices."""
    for shape in SHAPES:
        yield str(shape), CASES[str(shape)]()
    for trained in (False, True):
        name = f"LGN 3 × 60 on digits, {'trained' if trained else 'untrained'}"
        yield name, digits_hessian(trained=trained)
    eigenvalues = torch.tensor([(-1) ** i / (1 + i) for i in range(400)], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(400, 400, generator=generator, dtype=torch.float64))
    yield "spectrum ±1/i of 400", basis * eigenvalues @ basis.T


def main() -> None:
    parser = argparse.ArgumentParser(description="Errors of trace estimates against products.")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--out", type=Path, default=RESULTS / "trace-products")
    options = parser.parse_args()
    lines = [
        "| operator | tr H / ‖H‖_F | estimator | " + " | ".join(map(str, PRODUCTS)) + " |",
        "|---|---|---|" + "---|" * len(PRODUCTS),
    ]
    print("\n".join(lines))
    rows = []
    for name, matrix in operators():
        truth, scale = float(matrix.trace()), float(matrix.norm())
        for label, estimate in ESTIMATORS.items():
            errors = {}
            for products in PRODUCTS:
                found = [estimate(matrix, products, seed) for seed in range(options.repeats)]
                off = torch.tensor(found, dtype=torch.float64) - truth
                errors[products] = float(off.square().mean().sqrt()) / scale
            numbers = " | ".join(f"{error:.2g}" for error in errors.values())
            lines.append(f"| {name} | {truth / scale:.2g} | {label} | {numbers} |")
            print(lines[-1], flush=True)
            rows.append({"case": name, "n": len(matrix), "estimator": label, "rms": errors})
    record = {"repeats": options.repeats, "torch": torch.__version__, "rows": rows}
    options.out.parent.mkdir(exist_ok=True)
    options.out.with_suffix(".json").write_text(
        json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    )
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
