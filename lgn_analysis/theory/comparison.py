"""Two networks side by side on one data set: accuracy, gap, gates, and curvature by paired probes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import real, seed_number, shown, whole
from lgn_analysis.data import Dataset
from lgn_analysis.gates.noise import Purpose, derive_seed
from lgn_analysis.hessian.estimators.stopping import grow
from lgn_analysis.hessian.operators.linear import LossFn
from lgn_analysis.hessian.probe import HessianProbe
from lgn_analysis.hessian.results.intervals import (
    ALPHA,
    STOPPED_ALPHA,
    interim_analyses,
    mean_interval,
)
from lgn_analysis.hessian.results.spectrum import DensityResult, EigenResult
from lgn_analysis.hessian.results.table import Tabular
from lgn_analysis.metrics import Evaluation, evaluate, gate_usage
from lgn_analysis.network import LogicNetwork, require_network
from lgn_analysis.theory.samples import draw_samples

_PAIR: Final = 2
"""Products of one trace: the fewest that the estimator takes."""
_FIRST_ANALYSIS: Final = 8
_PAIRED, _APART = 1, 2  # the samples have 0
_EIGEN_TOLERANCE: Final = 1e-3

Interval = tuple[float, float, float]
"""Estimate, low, high; the ends are NaN where a number has no interval."""


@dataclass(frozen=True)
class CompareResult(Tabular):
    """Two networks side by side.

    Attributes:
        labels: names of the two.
        table: a row a quantity; for each network a column by its label with ``… low`` and ``… high``,
            then ``difference`` (second − first), ``difference low`` and ``difference high``. Ends are
            95 % intervals, NaN where the number is exact or has none.
        evaluations: of each network.
        traces: paired estimates of tr(H) in z, [n_pairs, 2]: in a row, equal seeds and samples.
        eigs: the ends of each spectrum; None if not asked for.
        densities: each spectral density; None if not asked for.
        n_samples: samples that curvature was taken on.
        n_matvecs: products spent, of both networks together.
        converged: whether the interval of the traces' difference became as narrow as was asked for.
        reason: why the paired traces stopped.
        seed: seed of samples and probes.
    """

    labels: tuple[str, str]
    table: pd.DataFrame
    evaluations: tuple[Evaluation, Evaluation]
    traces: NDArray[np.float64]
    eigs: tuple[EigenResult, EigenResult] | None
    densities: tuple[DensityResult, DensityResult] | None
    n_samples: int
    n_matvecs: int
    converged: bool
    reason: str
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Return ``table``."""
        return self.table

    def __repr__(self) -> str:
        rows = self.table.set_index("quantity")
        first, second = self.labels

        def row(name: str) -> str:
            r = rows.loc[name]
            return (
                f"{name} {r[first]:.4g} | {r[second]:.4g}, difference {r['difference']:+.3g} "
                f"[{r['difference low']:.3g}, {r['difference high']:.3g}]"
            )

        found = rows.loc["discrete_accuracy"]
        gap = rows.loc["gap"]
        return (
            f"CompareResult({first} | {second}: discrete accuracy {found[first]:.2%} | "
            f"{found[second]:.2%}, gap {100 * gap[first]:+.2f} | {100 * gap[second]:+.2f} pp; "
            f"{row('trace_z')}; {row('trace_u')}; {self.n_samples} samples, "
            f"{self.n_matvecs} products, {self.reason})"
        )


def compare(
    noise_free: LogicNetwork,
    noisy: LogicNetwork,
    data: Dataset | tuple[Tensor, Tensor],
    *,
    labels: tuple[str, str] = ("noise-free", "noisy"),
    split: str = "test",
    probe_split: str = "train",
    n_samples: int = 512,
    loss_fn: LossFn = functional.cross_entropy,
    rtol: float = 0.05,
    n_probes: int | None = None,
    max_matvecs: int = 400,
    eigs: bool = True,
    frobenius: bool = True,
    density: bool = True,
    noise_draws: int = 8,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> CompareResult:
    """Return accuracy, gap, gate usage and curvature of two networks side by side.

    Each network is taken in soft mode at its own tau. Quantities: soft_accuracy, noisy_accuracy,
    discrete_accuracy, gap, gap_loss, flips (:func:`lgn_analysis.evaluate`); unused and entropy, means
    over gates (:func:`lgn_analysis.gate_usage`); trace_z; trace_u = tau²·trace_z, in u = z/tau;
    lambda_max, lambda_min; frobenius, ‖H‖_F; negative_mass, Σ|λ⁻|/Σ|λ|.

    The traces are estimated in pairs. A pair is two products with each network on the same samples
    with the same seed; the interval of the difference is that of the pairs' differences, so it holds
    however the two estimates are correlated. Where the networks are wired alike the random signs fall
    on the same gates, and what they share cancels; with other wirings or shapes only samples and
    seeds are common. Eigenvalues carry the bound that their residual gives, ±‖H v − λ v‖. Norm and
    mass are estimated with independent seeds, and their difference has the interval that follows
    from two independent ones (MOVER).

    Args:
        noise_free: the first network; left as it is.
        noisy: the second.
        data: a data set, or a pair (x, y), which then serves both purposes.
        labels: names of the two.
        split: which split accuracy, gap and flips are of.
        probe_split: which split curvature is of; that of the training loss by default.
        n_samples: curvature takes so many samples at most, drawn by ``seed`` without replacement.
        loss_fn: ``loss_fn(output, y)``, the mean over the batch.
        rtol: stop when the half-width of the difference of traces is at most so much of the larger
            |trace|.
        n_probes: exactly so many products a network instead, an even number of at least 4.
        max_matvecs: the most products a network to spend on its trace.
        eigs: find the largest and the smallest eigenvalue.
        frobenius: estimate ‖H‖_F.
        density: estimate the spectral density and from it the negative mass.
        noise_draws: draws behind the noisy accuracy.
        batch_size: split the probes' data, to bound memory.
        seed: seed of samples and probes.
        progress: show a progress bar.

    Raises:
        InvalidInputError: networks, data or numbers do not fit.

    Source: Zou, Donner, Biometrics 64 (2008), for MOVER.
    """
    named = isinstance(labels, Sequence) and all(isinstance(name, str) for name in labels)
    if not named or len(set(labels)) != 2 or {"quantity", "difference"} & set(labels):
        raise InvalidInputError(f"labels must be two different names, got {shown(labels)}")
    seed = seed_number(seed)
    for model in (noise_free, noisy):
        require_network(model, "a comparison")
    models = (noise_free, noisy)
    evaluations = (
        evaluate(noise_free, data, split=split, noise_draws=noise_draws),
        evaluate(noisy, data, split=split, noise_draws=noise_draws),
    )
    sample = draw_samples(data, probe_split, n_samples, seed)
    probes = [HessianProbe(m, sample, loss_fn=loss_fn, batch_size=batch_size) for m in models]
    rows = _plain_rows(models, evaluations)
    traces, alpha, converged, reason = _paired_traces(
        probes, rtol, n_probes, max_matvecs, seed, progress
    )
    rows += _trace_rows(traces, [m.relaxation.tau for m in models], alpha)
    # Seeds of their own: their difference is taken as that of independent estimates.
    apart = derive_seed(seed, Purpose.PROBE, _APART)
    seeds = [derive_seed(apart, Purpose.PROBE, index) for index in range(2)]
    pairs: tuple[EigenResult, EigenResult] | None = None
    densities: tuple[DensityResult, DensityResult] | None = None
    if eigs:
        found = [p.eigs(k=2, tol=_EIGEN_TOLERANCE, seed=seed, progress=progress) for p in probes]
        pairs = (found[0], found[1])
        rows += [
            ("lambda_max", [_bounded(e, 0) for e in found], None),
            ("lambda_min", [_bounded(e, -1) for e in found], None),
        ]
    if frobenius:
        norms = [p.frobenius(seed=s, progress=progress) for p, s in zip(probes, seeds, strict=True)]
        rows.append(("frobenius", [(f.estimate, *f.ci) for f in norms], None))
    if density:
        spectra = [p.density(seed=s, progress=progress) for p, s in zip(probes, seeds, strict=True)]
        densities = (spectra[0], spectra[1])
        rows.append(("negative_mass", [_negative_mass(d) for d in spectra], None))
    return CompareResult(
        labels=labels,
        table=_table(rows, labels),
        evaluations=evaluations,
        traces=traces,
        eigs=pairs,
        densities=densities,
        n_samples=len(sample[1]),
        n_matvecs=sum(p.n_matvecs for p in probes),
        converged=converged,
        reason=reason,
        seed=seed,
    )


Row = tuple[str, Sequence[Interval], Interval | None]
"""A quantity, its two intervals, and that of the difference; None where it follows from the two."""


def difference_interval(first: Interval, second: Interval) -> Interval:
    """Return second − first with its interval, from those of two independent estimates (MOVER).

    >>> difference_interval((1.0, 0.7, 1.3), (3.0, 2.6, 3.4))
    (2.0, 1.5, 2.5)
    """
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    low, high = math.hypot(b - b_low, a_high - a), math.hypot(b_high - b, a - a_low)
    return b - a, b - a - low, b - a + high


def _plain_rows(models: Sequence[LogicNetwork], evaluations: Sequence[Evaluation]) -> list[Row]:
    """Return the rows of numbers without an interval."""
    names = ("soft_accuracy", "noisy_accuracy", "discrete_accuracy", "gap", "gap_loss", "flips")
    values = {name: [float(getattr(e, name)) for e in evaluations] for name in names}
    for name in ("unused", "entropy"):
        values[name] = [
            float(np.average(usage[name], weights=usage["n_gates"]))
            for usage in map(gate_usage, models)
        ]
    return [
        (name, [(value, math.nan, math.nan) for value in pair], None)
        for name, pair in values.items()
    ]


def _paired_traces(
    probes: Sequence[HessianProbe],
    rtol: float,
    n_probes: int | None,
    max_matvecs: int,
    seed: int,
    progress: bool,
) -> tuple[NDArray[np.float64], float, bool, str]:
    """Return estimates [n_pairs, 2], the error rate for their intervals, converged and reason."""
    max_matvecs = whole("max_matvecs", max_matvecs)
    n_probes = None if n_probes is None else whole("n_probes", n_probes)
    most = (max_matvecs if n_probes is None else n_probes) // _PAIR
    if most < 2 or (n_probes is not None and n_probes % _PAIR):
        raise InvalidInputError(
            "the interval of a difference needs an even number of products, at least "
            f"{2 * _PAIR}, got {max_matvecs if n_probes is None else n_probes}"
        )
    if n_probes is None and not real("rtol", rtol) > 0:
        raise InvalidInputError(f"rtol must be above zero, got {rtol}")
    paired = derive_seed(seed, Purpose.PROBE, _PAIRED)
    estimates: list[list[float]] = []
    bar = tqdm(desc="paired traces", unit="pair", disable=not progress)

    def add(total: int) -> None:
        while len(estimates) < total:
            shared = derive_seed(paired, Purpose.PROBE, len(estimates))
            estimates.append([p.trace(n_probes=_PAIR, seed=shared).estimate for p in probes])
            bar.update()

    def half_width() -> float:
        values = torch.tensor(estimates, dtype=torch.float64)
        low, high = mean_interval(values[:, 1] - values[:, 0], alpha=STOPPED_ALPHA)
        return (high - low) / 2

    def allowed() -> tuple[float, str]:
        return rtol * float(np.abs(np.mean(estimates, axis=0)).max()), "rtol"

    with bar:
        if n_probes is not None:
            add(most)
            return np.array(estimates), ALPHA, True, f"{_PAIR * most} products as asked"
        sizes = interim_analyses(min(_FIRST_ANALYSIS, most), most)
        converged, reason = grow(sizes, add, half_width, allowed)
    if not converged:
        reason = f"stopped at max_matvecs={max_matvecs}: difference {reason}"
    return np.array(estimates), STOPPED_ALPHA, converged, reason


def _trace_rows(traces: NDArray[np.float64], taus: Sequence[float], alpha: float) -> list[Row]:
    def interval(values: NDArray[np.float64]) -> Interval:
        return (float(values.mean()), *mean_interval(torch.from_numpy(values), alpha=alpha))

    rows: list[Row] = []
    for name, scales in (("trace_z", (1.0, 1.0)), ("trace_u", [tau**2 for tau in taus])):
        first, second = traces[:, 0] * scales[0], traces[:, 1] * scales[1]
        rows.append((name, [interval(first), interval(second)], interval(second - first)))
    return rows


def _bounded(result: EigenResult, index: int) -> Interval:
    """Return an eigenvalue and the bound of its residual: H has an eigenvalue in between."""
    value = float(result.values[index])
    half_width = float(result.residuals[index] * np.abs(result.values).max())
    return value, value - half_width, value + half_width


def _negative_mass(density: DensityResult) -> Interval:
    """Return Σ|λ⁻| / Σ|λ| with its t interval over probes."""
    value = density.negative_mass
    if density.exact:
        return value, value, value
    probes = len(density.nodes)
    half_width = float(stdtrit(probes - 1, 1 - ALPHA / 2)) * density.negative_mass_stderr
    return value, max(0.0, value - half_width), min(1.0, value + half_width)


def _table(rows: Sequence[Row], labels: tuple[str, str]) -> pd.DataFrame:
    table = []
    for name, (first, second), given in rows:
        difference = difference_interval(first, second) if given is None else given
        record: dict[str, str | float] = {"quantity": name}
        for label, (value, low, high) in zip(
            (*labels, "difference"), (first, second, difference), strict=True
        ):
            record |= {label: value, f"{label} low": low, f"{label} high": high}
        table.append(record)
    return pd.DataFrame(table)
