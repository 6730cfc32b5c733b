"""tr(H) by Hutchinson's estimator, stopped on an interval."""

from __future__ import annotations

import math

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lgn_analysis.errors import InvalidInputError
from lgn_analysis.hessian.intervals import (
    ALPHA,
    STOPPED_ALPHA,
    looks,
    mean_interval,
    standard_error,
)
from lgn_analysis.hessian.operators import SymmetricOperator
from lgn_analysis.hessian.results import FrobeniusResult, TraceResult

MAX_BLOCK = 16
BLOCK_ELEMENTS = 2**24


def hutchinson_trace(
    operator: SymmetricOperator,
    *,
    rtol: float | None = 0.01,
    atol: float | None = None,
    ftol: float | None = None,
    n_probes: int | None = None,
    min_probes: int = 32,
    max_matvecs: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> TraceResult:
    """Return tr(H) = E[zᵀ H z], z Rademacher, with its 95 % interval.

    Looks at 32, 48, 72, … probes and stops at the first interval that is narrow enough. The
    interval is corrected for skewness, and is taken a little wide because it also decided when to
    stop; see :mod:`lgn_analysis.hessian.intervals` for the coverage that this leaves.
    ``ftol`` uses ‖H‖_F² ≈ mean ‖H z‖² of the same probes.

    Args:
        operator: the operator.
        rtol: half-width at most ``rtol·|estimate|``.
        atol: half-width at most this.
        ftol: half-width at most ``ftol·‖H‖_F``. Any one tolerance suffices: the trace is a
            difference of large parts and may be near zero.
        n_probes: exactly so many probes, at least 2, whatever the tolerances.
        min_probes: the first look; fewer than 16 cost coverage.
        max_matvecs: the most products to spend.
        seed: seed of the probes.
        progress: show a progress bar.

    Source: Hutchinson, Commun. Stat. 19 (1990).
    """
    pilot = min(min_probes, max_matvecs) if n_probes is None else n_probes
    if pilot < 2:
        raise InvalidInputError(f"an interval needs at least 2 probes, got {pilot}")
    if n_probes is None and rtol is None and atol is None and ftol is None:
        raise InvalidInputError("give a tolerance (rtol, atol or ftol), or n_probes")
    generator = torch.Generator().manual_seed(seed)
    block = max(1, min(MAX_BLOCK, BLOCK_ELEMENTS // operator.shape[0]))
    parts: list[Tensor] = []
    squares = 0.0
    bar = tqdm(desc="trace", unit="product", disable=not progress)

    def probe(count: int) -> None:
        nonlocal squares
        for size in [block] * (count // block) + [count % block] * (count % block > 0):
            signs = torch.randint(
                0, 2, (size, operator.shape[0]), generator=generator, dtype=torch.int8
            )
            z = (2 * signs - 1).to(device=operator.device, dtype=operator.dtype).T
            product = operator.matmat(z).double()
            squares += float((product * product).sum())
            terms = z.double() * product
            layers = [terms[where].sum(0) for where in operator.slices.values()]
            parts.extend(torch.stack(layers, dim=1))
            bar.update(size)

    probe(pilot)
    converged, reason, alpha = True, f"{pilot} probes as asked", ALPHA
    if n_probes is None:
        alpha = STOPPED_ALPHA
        for look in looks(pilot, max_matvecs):
            probe(look - len(parts))
            values = torch.stack(parts).sum(1)
            low, high = mean_interval(values, alpha=alpha)
            frobenius = math.sqrt(squares / len(parts))
            options = [(rtol, abs(float(values.mean())), "rtol"), (atol, 1.0, "atol")]
            options.append((ftol, frobenius, "ftol"))
            allowed, name = max((f * size, name) for f, size, name in options if f is not None)
            half = (high - low) / 2
            converged = half <= allowed
            if converged:
                reason = f"converged ({name})"
                break
            reason = (
                f"stopped at max_matvecs={max_matvecs}: ± {half:.2g}, {name} asks {allowed:.2g}"
            )
    bar.close()
    values = torch.stack(parts)
    estimate = float(values.sum(1).mean())
    stderr = standard_error(values.sum(1))
    per_layer = pd.DataFrame(
        {
            "layer": list(operator.slices),
            "estimate": values.mean(0).tolist(),
            "stderr": (values.std(0) / math.sqrt(len(values))).tolist(),
        }
    )
    return TraceResult(
        estimate=estimate,
        stderr=stderr,
        ci=mean_interval(values.sum(1), alpha=alpha),
        per_layer=per_layer,
        n_matvecs=len(values),
        converged=converged,
        reason=reason,
        seed=seed,
    )


def frobenius_norm(
    operator: SymmetricOperator,
    *,
    rtol: float = 0.05,
    min_probes: int = 32,
    max_matvecs: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> FrobeniusResult:
    """Return ‖H‖_F = sqrt(E‖H z‖²), z Rademacher, with its 95 % interval.

    Args:
        operator: the operator.
        rtol: half-width at most ``rtol·estimate``.
        min_probes: the first look, as in :func:`hutchinson_trace`.
        max_matvecs: the most products to spend.
        seed: seed of the probes.
        progress: show a progress bar.
    """
    if min(min_probes, max_matvecs) < 2:
        raise InvalidInputError("an interval needs at least 2 probes")
    generator = torch.Generator().manual_seed(seed)
    squares: list[float] = []
    estimate, ci, converged = 0.0, (0.0, 0.0), False
    bar = tqdm(desc="frobenius", unit="product", disable=not progress)
    for look in looks(min(min_probes, max_matvecs), max_matvecs):
        while len(squares) < look:
            size = min(MAX_BLOCK, look - len(squares))
            signs = torch.randint(
                0, 2, (size, operator.shape[0]), generator=generator, dtype=torch.int8
            )
            z = (2 * signs - 1).to(device=operator.device, dtype=operator.dtype).T
            squares += operator.matmat(z).double().square().sum(0).tolist()
            bar.update(size)
        sample = torch.tensor(squares, dtype=torch.float64)
        low, high = mean_interval(sample, alpha=STOPPED_ALPHA)
        estimate = math.sqrt(float(sample.mean()))
        ci = (math.sqrt(max(low, 0.0)), math.sqrt(max(high, 0.0)))
        converged = (ci[1] - ci[0]) / 2 <= rtol * estimate
        if converged:
            break
    bar.close()
    stderr = standard_error(sample) / (2 * estimate) if estimate else 0.0  # of a square root
    return FrobeniusResult(
        estimate=estimate,
        stderr=stderr,
        ci=ci,
        n_matvecs=len(squares),
        converged=converged,
        reason="converged (rtol)" if converged else f"stopped at max_matvecs={max_matvecs}",
        seed=seed,
    )
