"""tr(H) by Hutchinson's estimator, stopped on an interval."""

from __future__ import annotations

import math

import pandas as pd
import torch
from scipy import stats
from torch import Tensor
from tqdm.auto import tqdm

from lgn_analysis.errors import InvalidInputError
from lgn_analysis.hessian.operators import SymmetricOperator
from lgn_analysis.hessian.results import TraceResult

PILOT = 16
BLOCK_ELEMENTS = 2**24


def hutchinson_trace(
    operator: SymmetricOperator,
    *,
    rtol: float | None = 0.01,
    atol: float | None = None,
    ftol: float | None = None,
    n_probes: int | None = None,
    max_matvecs: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> TraceResult:
    """Return tr(H) = E[zᵀ H z], z Rademacher, with its 95 % t interval.

    Stopped by Stein's two-stage rule: the spread of the first 16 probes alone fixes how many are
    needed and scales the interval at the end, which keeps its coverage where stopping on a running
    standard error loses some. ``ftol`` uses ‖H‖_F² ≈ mean ‖H z‖² of the pilot.

    Args:
        operator: the operator.
        rtol: half-width at most ``rtol·|estimate|``.
        atol: half-width at most this.
        ftol: half-width at most ``ftol·‖H‖_F``. Any one tolerance suffices: the trace is a
            difference of large parts and may be near zero.
        n_probes: exactly so many probes, at least 2, whatever the tolerances; the interval is then
            the usual t interval.
        max_matvecs: the most products to spend.
        seed: seed of the probes.
        progress: show a progress bar.

    Source: Hutchinson, Commun. Stat. 19 (1990); Stein, Ann. Math. Stat. 16 (1945).
    """
    pilot = min(PILOT, max_matvecs) if n_probes is None else n_probes
    if pilot < 2:
        raise InvalidInputError(f"an interval needs at least 2 probes, got {pilot}")
    if n_probes is None and rtol is None and atol is None and ftol is None:
        raise InvalidInputError("give a tolerance (rtol, atol or ftol), or n_probes")
    generator = torch.Generator().manual_seed(seed)
    block = max(1, min(PILOT, BLOCK_ELEMENTS // operator.shape[0]))
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
    spread = float(torch.stack(parts).sum(1).std())
    quantile = float(stats.t.ppf(0.975, pilot - 1))
    frobenius = math.sqrt(squares / len(parts))

    def tolerance() -> tuple[float, str]:
        estimate = abs(float(torch.stack(parts).sum(1).mean()))
        options = [(rtol, estimate, "rtol"), (atol, 1.0, "atol"), (ftol, frobenius, "ftol")]
        return max((factor * size, name) for factor, size, name in options if factor is not None)

    converged, reason = True, f"{pilot} probes as asked"
    if n_probes is None:
        while True:
            allowed, name = tolerance()
            if quantile * spread <= allowed * math.sqrt(len(parts)):
                reason = f"converged ({name})"
                break
            if len(parts) >= max_matvecs:
                converged, reason = False, f"stopped at max_matvecs={max_matvecs}"
                # A number of probes that no result chose: the usual t interval.
                spread = float(torch.stack(parts).sum(1).std())
                quantile = float(stats.t.ppf(0.975, len(parts) - 1))
                break
            needed = max_matvecs
            if allowed > 0:
                needed = min(max_matvecs, math.ceil((quantile * spread / allowed) ** 2))
            probe(max(1, needed - len(parts)))
    bar.close()
    values = torch.stack(parts)
    estimate = float(values.sum(1).mean())
    stderr = spread / math.sqrt(len(values))
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
        ci=(estimate - quantile * stderr, estimate + quantile * stderr),
        per_layer=per_layer,
        n_matvecs=len(values),
        converged=converged,
        reason=reason,
        seed=seed,
    )
