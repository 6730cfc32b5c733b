"""Does our eigensolver earn its lines against SciPy's eigsh on our own products?

    python benchmarks/eigensolvers.py               # everything, some minutes
    python benchmarks/eigensolvers.py --rounds 1    # less certain seconds

Ten eigenpairs, half at each end (BE) or the largest (LA), to residuals of at most 1e-6 of the largest
|eigenvalue|, float64.

**networks**: trained networks of 2 × 2000, 4 × 1000 and 3 × 60 gates; the last has a dense Hessian to
compare with. Seconds are medians over rounds in which all contenders take turns.

**spectra**: prescribed eigenvalues, multiple ones among them, over seeds. A run is wrong where one of its
values is none of the ten that were asked for, which a missed copy of a multiple eigenvalue brings about.

ARPACK measures a residual against its own eigenvalue, we against the largest, so eigsh gets the loosest of
its tolerances that still meets ours, and its 88 vectors are as many as we take. It looks for no further copies;
the contender that does runs it again on the operator without the pairs found, until nothing new is beyond
them. All products count, those of the final residuals too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from curvature_cases import digits_network
from harness import quartiles, write_results
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

import lgn_analysis as lgn
from lgn_analysis.hessian import SymmetricOperator, top_eigenpairs

PAIRS: Final = 10
TOLERANCE: Final = 1e-6
ENDS: Final = ("BE", "LA")
SAMPLES: Final = 512
TRAINING_STEPS: Final = 2000
SHAPES: Final = ((2000, 2), (1000, 4))
VECTORS: Final = 4 * PAIRS + 48
SEEDS: Final = 20
LOOSE: Final = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""Tolerances that eigsh is given, the first that meets ours being taken."""
SEARCH: Final = 1e-2
"""Its tolerance where only the presence of another copy is asked."""


@dataclass(frozen=True)
class Found:
    """What a solver found, and the products that it spent.

    Attributes:
        values: [k], falling.
        vectors: [n, k].
        products: columns multiplied, all included.
    """

    values: NDArray[np.float64]
    vectors: NDArray[np.float64]
    products: int


Solve = Callable[[SymmetricOperator, str, int], Found]
"""From an operator, an end and a seed to the pairs there."""


class Diagonal:
    """A diagonal matrix [n, n] as an operator."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.values = torch.from_numpy(values)
        self.shape = (len(values), len(values))
        self.dtype, self.device = torch.float64, torch.device("cpu")
        self.slices = {"all": slice(0, len(values))}

    def matvec(self, v: Tensor) -> Tensor:
        return self.values * v

    def matmat(self, v: Tensor) -> Tensor:
        return self.values[:, None] * v


def ours(*, copies: bool) -> Solve:
    """Return our solver."""

    def solve(operator: SymmetricOperator, which: str, seed: int) -> Found:
        found = top_eigenpairs(
            operator,
            k=PAIRS,
            which=which,
            tol=TOLERANCE,
            copies=copies,
            method="lanczos",
            seed=seed,
            max_matvecs=20_000,
        )
        return Found(found.values, found.vectors.numpy(), found.n_matvecs)

    return solve


def arpack(tolerance: float, vectors: int | None, *, copies: bool) -> Solve:
    """Return eigsh on our products, and the residuals of what it found."""

    def solve(operator: SymmetricOperator, which: str, seed: int) -> Found:
        n = operator.shape[0]
        generator = np.random.default_rng(seed)
        known = np.empty((n, 0))
        spent = 0

        def multiply(v: NDArray[np.float64]) -> NDArray[np.float64]:
            nonlocal spent
            spent += 1
            rest = v.ravel() - known @ (known.T @ v.ravel())
            image = operator.matvec(torch.from_numpy(rest)).numpy()
            return image - known @ (known.T @ image)

        def pairs(k: int, end: str, tol: float) -> tuple[NDArray[Any], NDArray[Any]]:
            matrix = LinearOperator((n, n), matvec=multiply, dtype=np.float64)
            start = generator.normal(size=n)
            try:
                return eigsh(matrix, k=k, which=end, tol=tol, ncv=vectors, v0=start)
            except ArpackNoConvergence as partial:
                return partial.eigenvalues, partial.eigenvectors

        values, known = pairs(PAIRS, which, tolerance)
        while copies:
            held = known
            more, _ = pairs(2 if which == "BE" else 1, which, SEARCH)
            slack = TOLERANCE * np.abs(values).max()
            ordered = np.sort(values)[::-1]
            upper = PAIRS if which == "LA" else PAIRS - PAIRS // 2
            above = more > ordered[upper - 1] + slack
            below = (
                more < ordered[-(PAIRS // 2)] - slack
                if which == "BE"
                else np.zeros(len(more), bool)
            )
            if not (above | below).any():
                break
            more, added = pairs(len(more), which, tolerance)
            values, known = np.append(values, more), np.hstack([held, added])
        order = np.argsort(values)[::-1]
        keep = order[:PAIRS]
        if which == "BE":
            keep = np.append(order[: PAIRS - PAIRS // 2], order[-(PAIRS // 2) :])
        return Found(values[keep], known[:, keep], spent + len(keep))

    return solve


def residual(operator: SymmetricOperator, found: Found) -> float:
    """Return the largest ‖H v − λ v‖ relative to the largest |λ|."""
    images = operator.matmat(torch.from_numpy(found.vectors.copy())).numpy()
    gaps = np.linalg.norm(images - found.vectors * found.values, axis=0)
    return float(gaps.max() / np.abs(found.values).max())


def cosine(found: Found) -> float:
    """Return how far VᵀV is from the identity."""
    gram = found.vectors.T @ found.vectors
    return float(np.abs(gram - np.eye(len(gram))).max())


def loosest(
    operator: SymmetricOperator, which: str, vectors: int | None, *, copies: bool
) -> tuple[float, Solve]:
    """Return the loosest tolerance at which eigsh meets ours, and that solver."""
    for tolerance in LOOSE:
        solve = arpack(tolerance, vectors, copies=copies)
        if residual(operator, solve(operator, which, 0)) <= TOLERANCE:
            return tolerance, solve
    raise SystemExit("eigsh meets the tolerance nowhere: nothing is reported")


def networks() -> dict[str, lgn.HessianProbe]:
    """Return probes of trained networks by name."""
    data = lgn.load_dataset("digits")
    batch = (data.x_train[:SAMPLES], data.y_train[:SAMPLES])
    probes = {}
    for width, depth in SHAPES:
        model = lgn.LogicNetwork(
            data.n_features, width, depth, 10, 20.0, relaxation=lgn.Soft(1.0), seed=0
        )
        lgn.train(model, data, steps=TRAINING_STEPS, eval_every=TRAINING_STEPS, progress=False)
        probes[f"{depth} × {width}"] = lgn.HessianProbe(model.double(), batch)
    small, samples = digits_network(trained=True)
    probes["3 × 60"] = lgn.HessianProbe(small, samples)
    return probes


def compare_networks(rounds: int) -> list[dict[str, Any]]:
    """Return a row a network, end and solver."""
    rows = []
    for name, probe in networks().items():
        exact = None
        if probe.shape[0] < 3000:
            exact = np.linalg.eigvalsh(probe.dense().numpy())[::-1]
        for which in ENDS:
            solvers: dict[str, tuple[float, Solve]] = {
                "ours": (TOLERANCE, ours(copies=True)),
                "ours, one start": (TOLERANCE, ours(copies=False)),
                "eigsh": loosest(probe, which, None, copies=False),
                f"eigsh, {VECTORS} vectors": loosest(probe, which, VECTORS, copies=False),
                "eigsh, with a search": loosest(probe, which, None, copies=True),
                f"eigsh, {VECTORS} vectors, with a search": loosest(
                    probe, which, VECTORS, copies=True
                ),
            }
            seconds: dict[str, list[float]] = {solver: [] for solver in solvers}
            found: dict[str, Found] = {}
            for _ in range(rounds):
                for solver, (_, solve) in solvers.items():
                    start = time.perf_counter()
                    found[solver] = solve(probe, which, 0)
                    seconds[solver].append(time.perf_counter() - start)
            for solver, (tolerance, _) in solvers.items():
                pairs = found[solver]
                row: dict[str, Any] = {
                    "network": name,
                    "n": probe.shape[0],
                    "which": which,
                    "solver": solver,
                    "tolerance given": tolerance,
                    "seconds": float(f"{quartiles(seconds[solver])[1]:.3g}"),
                    "products": pairs.products,
                    "largest residual": float(f"{residual(probe, pairs):.2g}"),
                    "largest cosine": float(f"{cosine(pairs):.2g}"),
                }
                if exact is not None:
                    error = np.abs(pairs.values - wanted(exact, which)).max() / np.abs(exact).max()
                    row["error against dense"] = float(f"{error:.2g}")
                rows.append(row)
                print(row, flush=True)
    return rows


def wanted(values: NDArray[np.float64], which: str) -> NDArray[np.float64]:
    """Return the ten that are asked for, falling."""
    falling = np.sort(values)[::-1]
    if which == "LA":
        return falling[:PAIRS]
    return np.append(falling[: PAIRS - PAIRS // 2], falling[-(PAIRS // 2) :])


def spectra() -> dict[str, NDArray[np.float64]]:
    """Return eigenvalues by name: twelve outliers at each end of a spectrum that piles up at zero."""
    rest = 1e-2 * np.random.default_rng(0).normal(size=4000)
    line = np.linspace(-0.5, 0.5, 4000)
    falling = 0.85 ** np.arange(12)

    def ends(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([values, -0.6 * values, rest])

    tight = np.repeat(falling[:6], 2) * np.tile([1.0, 1 - 1e-5], 6)
    edge = np.full(12, 0.501)
    return {
        "distinct": ends(falling),
        "twins": ends(np.repeat(falling[:6], 2)),
        "triplets": ends(np.repeat(falling[:4], 3)),
        "six equal": ends(np.repeat(falling[:2], 6)),
        "pairs 1e-5 apart": ends(tight),
        "two at the edge of a bulk": np.concatenate([falling[:9], edge[:2], -falling[:5], line]),
    }


def compare_spectra() -> list[dict[str, Any]]:
    """Return a row a spectrum, end and solver, over seeds."""
    solvers = {
        "ours": ours(copies=True),
        "ours, one start": ours(copies=False),
        "eigsh": arpack(TOLERANCE, None, copies=False),
        f"eigsh, {VECTORS} vectors": arpack(TOLERANCE, VECTORS, copies=False),
        "eigsh, with a search": arpack(TOLERANCE, None, copies=True),
        f"eigsh, {VECTORS} vectors, with a search": arpack(TOLERANCE, VECTORS, copies=True),
    }
    rows = []
    for name, values in spectra().items():
        operator = Diagonal(values)
        for which in ENDS:
            exact = wanted(values, which)
            for solver, solve in solvers.items():
                runs = [solve(operator, which, seed) for seed in range(SEEDS)]
                errors = [
                    float(np.abs(run.values - exact).max()) if len(run.values) == PAIRS else np.inf
                    for run in runs
                ]
                rows.append(
                    {
                        "spectrum": name,
                        "which": which,
                        "solver": solver,
                        "wrong": sum(error > 10 * TOLERANCE for error in errors),
                        "runs": SEEDS,
                        "products": float(np.median([run.products for run in runs])),
                        "largest residual": float(
                            f"{max(residual(operator, r) for r in runs):.2g}"
                        ),
                        "largest cosine": float(f"{max(map(cosine, runs)):.2g}"),
                    }
                )
                print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--parts", nargs="+", default=["networks", "spectra"], choices=["networks", "spectra"]
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    if "networks" in options.parts:
        results["networks"] = compare_networks(options.rounds)
    if "spectra" in options.parts:
        results["spectra"] = compare_spectra()
    print(f"written to {write_results('eigensolvers', results)}")


if __name__ == "__main__":
    main()
