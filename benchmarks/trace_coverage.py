"""Do the intervals of trace estimates hold what they say?

    python benchmarks/trace_coverage.py             # 5000 repeats of each case
    python benchmarks/trace_coverage.py --repeats 500

Every repeat is one seed of the estimator on an operator whose trace is known. Probes are a stream:
8 probes are the first 8 of 128, and a stopped run stops somewhere in it. So one pass over the stream
gives all rows of a case; the estimators themselves are run on the first seeds and must agree. The
table goes to ``benchmarks/results/trace-coverage.{json,md}``; its columns:

coverage      share of 95 % intervals that hold the trace, its standard error at 5000 repeats 0.3 %
bias          mean error in standard errors of that mean
rms error     root mean square error over ‖H‖_F
claimed       root mean square of the reported error over that of the true error
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from curvature_cases import CASES, SHAPES, bits, network
from torch import Tensor

import lgn_analysis as lgn
from lgn_analysis.gates.noise import Purpose, generator_for
from lgn_analysis.hessian import DenseOperator, frobenius_norm, hutchinson_trace
from lgn_analysis.hessian.estimators.hutchpp import hutchpp_trace
from lgn_analysis.hessian.estimators.quadratic_forms import FEW, draw
from lgn_analysis.hessian.estimators.trace import SMALLEST
from lgn_analysis.hessian.estimators.xtrace import xtrace_trace
from lgn_analysis.hessian.results.intervals import (
    ALPHA,
    STOPPED_ALPHA,
    form_critical_value,
    interim_analyses,
)

REPEATS: Final = 5000
FIXED: Final = (8, 32, 128)
MOST: Final = 250
"""Products of a stopped run."""
SKETCH: Final = 16
LOOKS: Final = interim_analyses(SMALLEST, MOST)
SIZES: Final = sorted({*FIXED, *LOOKS})
STOPS: Final = (0.3, 0.17)
"""Half-widths of stopped runs, in standard deviations of one probe: about 60 and 170 probes."""
CHECKED: Final = 5
CHUNK_NUMBERS: Final = 2**21
RESULTS: Final = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """What one estimator did on one operator."""

    case: str
    estimator: str
    setting: str
    repeats: int
    products: float
    coverage: float | None
    bias: float
    rms_error: float
    claimed: float | None

    @staticmethod
    def of(
        case: str,
        estimator: str,
        setting: str,
        truth: float,
        scale: float,
        estimates: Tensor,
        stderr: Tensor,
        products: Tensor,
        half_widths: Tensor | None,
    ) -> Row:
        """Return the row of repeats [n]; no half-widths where the estimator owns no interval."""
        error = estimates - truth
        rounding = 1e-12 * scale
        rms, spread = math.sqrt(float(error.square().mean())), float(error.std())
        covered = None
        if half_widths is not None:
            covered = float((error.abs() <= half_widths + rounding).double().mean())
        exact = rms <= rounding
        return Row(
            case,
            estimator,
            setting,
            len(error),
            float(products.double().mean()),
            covered,
            0.0 if exact else float(error.mean()) / spread * math.sqrt(len(error)),
            rms / scale,
            None if exact else math.sqrt(float(stderr.square().mean())) / rms,
        )


@dataclass(frozen=True)
class Stream:
    """Estimates at every size of ``SIZES``, of every repeat: each [repeats, sizes].

    The formulas of ``hessian.forms``, for many repeats at a time.
    """

    estimates: Tensor
    variances: Tensor
    frobenius: Tensor

    def half_widths(self, alpha: float) -> Tensor:
        reach = torch.tensor(
            [form_critical_value(size, alpha) for size in SIZES], dtype=torch.float64
        )
        return reach * self.variances.sqrt()


def stream(matrix: Tensor, repeats: int, probes: str, sketch: int) -> Stream:
    """Run Hutchinson, or Hutch++ with a sketch above zero, once for each seed."""
    n = len(matrix)
    at_once = max(1, min(repeats, CHUNK_NUMBERS // (n * MOST)))
    parts = []
    for start in range(0, repeats, at_once):
        seeds = range(start, min(start + at_once, repeats))
        if sketch:
            generators = [generator_for(seed, Purpose.PROBE, 0) for seed in seeds]
        else:
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        z = torch.stack([draw(MOST, n, g, probes) for g in generators])
        captured, images, frobenius = torch.zeros(len(seeds), 1), None, None
        if sketch:
            captured, images, frobenius = _deflated(matrix, z, seeds, probes, sketch)
        else:
            images = z @ matrix
        moments = _moments(z, images, probes)
        norms = moments[2] if frobenius is None else frobenius.expand_as(moments[2])
        parts.append(torch.stack([captured + moments[0], moments[1], norms]))
    return Stream(*torch.cat(parts, dim=1))


def _deflated(
    matrix: Tensor, z: Tensor, seeds: range, probes: str, sketch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tr(QᵀHQ), P H P z and ‖H‖_F of every repeat."""
    n = len(matrix)
    starts = [draw(sketch, n, generator_for(s, Purpose.PROBE, 1), probes) for s in seeds]
    images = torch.stack(starts) @ matrix
    # The singular vectors, not qr: of a sketch without full rank only some columns count.
    _, values, rows = torch.linalg.svd(images, full_matrices=False)
    rows = rows * (values > 1e-12 * values[:, :1]).unsqueeze(2)
    captured = (rows @ matrix * rows).sum((1, 2)).unsqueeze(1)

    def rest(v: Tensor) -> Tensor:
        return v - (v @ rows.mT) @ rows

    frobenius = (images.square().sum((1, 2)) / sketch).sqrt().unsqueeze(1)
    return captured, rest(rest(z) @ matrix), frobenius


def _moments(z: Tensor, images: Tensor, probes: str) -> Tensor:
    """Return mean, variance of the mean and ‖H‖_F at every size, [3, repeats, sizes]."""
    diagonal = z * images
    norms = images.square().sum(2).cumsum(1)
    means = diagonal.sum(2).cumsum(1)
    diagonal -= diagonal[:, :1].clone()
    squares = diagonal.square().sum(2).cumsum(1)
    columns, before, total = [], 0, torch.zeros_like(diagonal[:, 0])
    for size in SIZES:
        total += diagonal[:, before:size].sum(1)
        before = size
        variance = 2 * norms[:, size - 1] / size**2
        if probes == "rademacher" and size >= FEW:
            spread = squares[:, size - 1] - total.square().sum(1) / size
            variance = 2 * spread.clamp(min=0) / (size - 1) / size
        norm = (norms[:, size - 1] / size).sqrt()
        columns.append(torch.stack([means[:, size - 1] / size, variance, norm]))
    return torch.stack(columns, dim=2)


def stream_rows(case: str, matrix: Tensor, repeats: int, probes: str, sketch: int) -> Iterator[Row]:
    """Yield fixed and stopped runs of Hutchinson or Hutch++."""
    name = f"Hutch++, sketch {sketch}" if sketch else "Hutchinson"
    name += ", Gaussian" if probes == "gaussian" else ""
    truth, scale = float(matrix.trace()), float(matrix.norm())
    runs = stream(matrix, repeats, probes, sketch)
    _check(matrix, runs, probes, sketch)
    stderr = runs.variances.sqrt()
    fixed, stopped = runs.half_widths(ALPHA), runs.half_widths(STOPPED_ALPHA)
    sizes = torch.tensor(SIZES)
    for size in FIXED:
        at = SIZES.index(size)
        values = (runs.estimates[:, at], stderr[:, at], sizes[at] + 2 * sketch, fixed[:, at])
        yield Row.of(case, name, f"{size} probes", truth, scale, *values)
    deviation = float(stderr[:, -1].square().mean().sqrt()) * math.sqrt(SIZES[-1])
    if deviation < 1e-9 * scale:
        return
    at_looks = torch.tensor([SIZES.index(look) for look in LOOKS])
    halves = stopped[:, at_looks]
    for setting, allowed in _tolerances(runs, at_looks, truth, scale, deviation).items():
        enough = halves <= allowed
        enough[:, -1] = True
        chosen = at_looks[enough.double().argmax(1)].unsqueeze(1)
        picked = [part.gather(1, chosen)[:, 0] for part in (runs.estimates, stderr, stopped)]
        spent = sizes[chosen[:, 0]] + 2 * sketch
        yield Row.of(case, name, setting, truth, scale, *picked[:2], spent, picked[2])


def _tolerances(
    runs: Stream, at_looks: Tensor, truth: float, scale: float, deviation: float
) -> dict[str, Tensor]:
    """Return what each tolerance allows at every look, [repeats, looks]."""
    estimates, norms = runs.estimates[:, at_looks], runs.frobenius[:, at_looks]
    allowed = {"rtol 0.5": 0.5 * estimates.abs()}
    for stop in STOPS:
        half = stop * deviation
        allowed[f"atol {half / scale:.2g} ‖H‖_F"] = torch.full_like(estimates, half)
        allowed[f"ftol {half / scale:.2g}"] = half / scale * norms
        if 0.01 <= half / max(abs(truth), 1e-9 * scale) < 0.5:
            rtol = half / abs(truth)
            allowed[f"rtol {rtol:.2g}"] = rtol * estimates.abs()
    return allowed


def _check(matrix: Tensor, runs: Stream, probes: str, sketch: int) -> None:
    """Compare the first repeats with the estimator itself."""
    operator, at = DenseOperator(matrix), SIZES.index(FIXED[1])
    for seed in range(min(CHECKED, len(runs.estimates))):
        options: dict[str, Any] = {"n_probes": FIXED[1], "probes": probes, "seed": seed}
        if sketch:
            result = hutchpp_trace(operator, sketch=sketch, **options)
        else:
            result = hutchinson_trace(operator, **options)
        mine = torch.stack([runs.estimates[seed, at], runs.variances[seed, at].sqrt()])
        theirs = torch.tensor([result.estimate, result.stderr], dtype=torch.float64)
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10 * float(matrix.norm()))


def xtrace_rows(case: str, matrix: Tensor, repeats: int) -> Iterator[Row]:
    """Yield XTrace's errors against its error estimates."""
    operator = DenseOperator(matrix)
    truth, scale = float(matrix.trace()), float(matrix.norm())
    for count in (8, 32):
        results = [xtrace_trace(operator, n_probes=count, seed=seed) for seed in range(repeats)]
        columns = torch.tensor(
            [[r.estimate, r.stderr, r.n_matvecs] for r in results], dtype=torch.float64
        ).T
        yield Row.of(case, "XTrace", f"{count} test vectors", truth, scale, *columns, None)


def frobenius_rows(case: str, matrix: Tensor, repeats: int) -> Iterator[Row]:
    """Yield fixed and stopped runs of ‖H‖_F; the interval is not symmetric, so a hit is counted."""
    operator, truth = DenseOperator(matrix), float(matrix.norm())
    for setting, options in (
        ("8 probes", {"n_probes": 8}),
        ("32 probes", {"n_probes": 32}),
        ("rtol 0.2", {"rtol": 0.2}),
        ("rtol 0.1", {"rtol": 0.1}),
    ):
        results = [
            frobenius_norm(operator, max_matvecs=MOST, seed=seed, **options)  # type: ignore[arg-type]
            for seed in range(repeats)
        ]
        columns = torch.tensor(
            [[r.estimate, r.stderr, r.n_matvecs] for r in results], dtype=torch.float64
        ).T
        hits = torch.tensor([r.ci[0] - 1e-12 <= truth <= r.ci[1] + 1e-12 for r in results])
        reach = torch.where(hits, math.inf, 0.0)
        yield Row.of(case, "‖H‖_F", setting, truth, truth, *columns, reach)


def activation_rows(repeats: int) -> Iterator[Row]:
    """Yield the estimator in activation space, through the probe."""
    for shape in SHAPES:
        probe = lgn.HessianProbe(network(shape), bits())
        matrix = probe.dense()
        truth, scale = float(matrix.trace()), float(matrix.norm())
        settings: dict[str, dict[str, Any]] = {
            f"{count} probes": {"n_probes": count} for count in (2, 4, 8)
        }
        results = [probe.trace(method="activation", n_probes=8, seed=s) for s in range(20)]
        deviation = math.sqrt(8 * sum(r.stderr**2 for r in results) / len(results))
        settings["rtol 0.1"] = {"rtol": 0.1, "max_matvecs": MOST}
        for stop in (1.0, 0.4):
            half = stop * deviation
            settings[f"atol {half / scale:.2g} ‖H‖_F"] = {"rtol": None, "atol": half}
        for setting, options in settings.items():
            results = [
                probe.trace(method="activation", seed=seed, **options) for seed in range(repeats)
            ]
            columns = torch.tensor(
                [[r.estimate, r.stderr, r.n_matvecs, (r.ci[1] - r.ci[0]) / 2] for r in results],
                dtype=torch.float64,
            ).T
            yield Row.of(str(shape), "activation space", setting, truth, scale, *columns)


def case_rows(case: str, repeats: int) -> Iterator[Row]:
    """Yield all rows of one operator."""
    matrix = CASES[case]()
    yield from stream_rows(case, matrix, repeats, "rademacher", 0)
    yield from stream_rows(case, matrix, repeats, "gaussian", 0)
    if len(matrix) > SKETCH:
        yield from stream_rows(case, matrix, repeats, "rademacher", SKETCH)
        yield from xtrace_rows(case, matrix, max(100, repeats // 5))
    yield from frobenius_rows(case, matrix, max(100, repeats // 5))


def markdown(rows: list[Row]) -> str:
    """Return the table."""
    lines = [
        "| operator | estimator | setting | repeats | products | coverage, % | bias | rms error | claimed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        covered = "–" if row.coverage is None else f"{100 * row.coverage:.1f}"
        claimed = "exact" if row.claimed is None else f"{row.claimed:.2f}"
        lines.append(
            f"| {row.case} | {row.estimator} | {row.setting} | {row.repeats} | {row.products:.0f} | "
            f"{covered} | {row.bias:+.1f} | {row.rms_error:.2g} | {claimed} |"
        )
    return "\n".join(lines)


def summary(rows: list[Row]) -> str:
    """Return the worst and the middle operator of every kind of run that owns an interval."""
    kinds: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        kind = (
            row.setting if row.setting.endswith("probes") else f"stopped, {row.setting.split()[0]}"
        )
        if row.coverage is not None:
            kinds.setdefault((row.estimator, kind), []).append(row)
    lines = [
        "| estimator | run | runs | lowest coverage, % | of | median, % |",
        "|---|---|---|---|---|---|",
    ]
    for (estimator, kind), found in kinds.items():
        found.sort(key=lambda row: row.coverage or 0.0)
        low, middle = found[0], found[len(found) // 2]
        lines.append(
            f"| {estimator} | {kind} | {len(found)} × {low.repeats} | {100 * (low.coverage or 0):.1f} | "
            f"{low.case} | {100 * (middle.coverage or 0):.1f} |"
        )
    return "\n".join(lines)


def write(rows: list[Row], out: Path, repeats: int) -> None:
    """Write the table, also after every case: a run takes a quarter of an hour."""
    out.parent.mkdir(exist_ok=True)
    record = {"repeats": repeats, "torch": torch.__version__, "rows": [*map(asdict, rows)]}
    out.with_suffix(".json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    out.with_suffix(".md").write_text(f"{summary(rows)}\n\n{markdown(rows)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of the intervals of trace estimates.")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--cases", nargs="*", default=list(CASES), help="names of operators")
    parser.add_argument("--out", type=Path, default=RESULTS / "trace-coverage")
    options = parser.parse_args()
    rows: list[Row] = []
    found = [partial(case_rows, case, options.repeats) for case in options.cases]
    for make in (*found, partial(activation_rows, options.repeats)):
        added = list(make())
        print("\n".join(markdown(added).split("\n")[2 if rows else 0 :]), flush=True)
        rows += added
        write(rows, options.out, options.repeats)


if __name__ == "__main__":
    main()
