"""What estimators return: frozen, with their uncertainty, ready for a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class TraceResult:
    """An estimate of tr(H) with its 95 % interval.

    Attributes:
        estimate: the mean over probes.
        stderr: its standard error.
        ci: the 95 % interval.
        per_layer: a row a slice of the operator: layer, estimate, stderr.
        n_matvecs: products spent.
        converged: whether the interval became as narrow as was asked for.
        reason: which tolerance was met, or why the estimator stopped.
        seed: seed of the probe vectors.
    """

    estimate: float
    stderr: float
    ci: tuple[float, float]
    per_layer: pd.DataFrame
    n_matvecs: int
    converged: bool
    reason: str
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Return one row."""
        return pd.DataFrame(
            [
                {
                    "estimate": self.estimate,
                    "stderr": self.stderr,
                    "ci_low": self.ci[0],
                    "ci_high": self.ci[1],
                    "n_matvecs": self.n_matvecs,
                    "converged": self.converged,
                    "reason": self.reason,
                    "seed": self.seed,
                }
            ]
        )

    def __repr__(self) -> str:
        return (
            f"TraceResult({self.estimate:.6g} ± {self.stderr:.2g} (standard error), 95 % "
            f"[{self.ci[0]:.6g}, {self.ci[1]:.6g}], {self.n_matvecs} products, {self.reason})"
        )

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False))


@dataclass(frozen=True)
class FrobeniusResult:
    """An estimate of ‖H‖_F with its 95 % interval; attributes as in :class:`TraceResult`."""

    estimate: float
    stderr: float
    ci: tuple[float, float]
    n_matvecs: int
    converged: bool
    reason: str
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Return one row."""
        row = {**asdict(self), "ci_low": self.ci[0], "ci_high": self.ci[1]}
        del row["ci"]
        return pd.DataFrame([row])

    def __repr__(self) -> str:
        return (
            f"FrobeniusResult({self.estimate:.6g} ± {self.stderr:.2g} (standard error), 95 % "
            f"[{self.ci[0]:.6g}, {self.ci[1]:.6g}], {self.n_matvecs} products, {self.reason})"
        )

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False))


@dataclass(frozen=True)
class EigenResult:
    """Eigenpairs at the ends of the spectrum, in falling order.

    Attributes:
        values: [k].
        vectors: float64 [n, k].
        residuals: ‖H v − λ v‖ relative to the largest |eigenvalue|, [k].
        n_matvecs: products spent.
        converged: whether every residual met the tolerance.
        reason: why the solver stopped.
        which: which end, as asked for.
        seed: seed of the start vectors.
    """

    values: NDArray[np.float64]
    vectors: Tensor
    residuals: NDArray[np.float64]
    n_matvecs: int
    converged: bool
    reason: str
    which: str
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Return a row a pair: value, residual."""
        return pd.DataFrame({"value": self.values, "residual": self.residuals})

    def __repr__(self) -> str:
        ends = ", ".join(f"{value:.4g}" for value in self.values)
        worst = self.residuals.max() if len(self.residuals) else float("nan")
        return (
            f"EigenResult([{ends}], largest residual {worst:.1e}, {self.n_matvecs} products, "
            f"{self.reason})"
        )

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False))


@dataclass(frozen=True)
class DensityResult:
    """A spectral density as quadrature nodes and weights; smoothed only when it is evaluated.

    Attributes:
        nodes: [n_probes, steps], Ritz values; NaN where a probe broke down early.
        weights: the same shape; all of them add to one.
        n: dimension of the operator.
        n_matvecs: products spent.
        seed: seed of the probes.
    """

    nodes: NDArray[np.float64]
    weights: NDArray[np.float64]
    n: int
    n_matvecs: int
    seed: int

    def cdf(self, x: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Return the share of eigenvalues at or below x."""
        below = self.nodes[..., None] <= np.atleast_1d(x)
        return np.asarray((self.weights[..., None] * below).sum((0, 1)))

    def density(self, grid: NDArray[np.float64], sigma: float | None = None) -> NDArray[np.float64]:
        """Return the density on ``grid``, smoothed by a Gaussian of standard deviation ``sigma``.

        ``sigma`` None is a hundredth of the largest |node|.
        """
        width = sigma if sigma is not None else 0.01 * float(np.nanmax(np.abs(self.nodes)))
        distance = (grid[:, None] - self._flat_nodes) / width
        kernel = np.exp(-0.5 * distance**2) / (width * np.sqrt(2 * np.pi))
        return np.asarray(kernel @ self._flat_weights)

    def moment(self, order: int) -> tuple[float, float]:
        """Return the mean of λ**order and its standard error over probes (NaN for one probe)."""
        per_probe = np.nansum(self.nodes**order * self.weights, axis=1) * len(self.nodes)
        count = len(per_probe)
        stderr = per_probe.std(ddof=1) / np.sqrt(count) if count > 1 else float("nan")
        return float(per_probe.mean()), float(stderr)

    @property
    def negative_mass(self) -> float:
        """The share of |λ| that is negative: Σ |λ⁻| / Σ |λ|."""
        mass = np.abs(self._flat_nodes) * self._flat_weights
        total = float(mass.sum())
        return float(mass[self._flat_nodes < 0].sum()) / total if total else 0.0

    @property
    def _flat_nodes(self) -> NDArray[np.float64]:
        return self.nodes[~np.isnan(self.nodes)]

    @property
    def _flat_weights(self) -> NDArray[np.float64]:
        return self.weights[~np.isnan(self.nodes)]

    def to_frame(self) -> pd.DataFrame:
        """Return a row a node: probe, node, weight."""
        probe, _ = np.nonzero(~np.isnan(self.nodes))
        return pd.DataFrame(
            {"probe": probe, "node": self._flat_nodes, "weight": self._flat_weights}
        )

    def __repr__(self) -> str:
        mean, stderr = self.moment(1)
        return (
            f"DensityResult(n={self.n}, {len(self.nodes)} probes, nodes in "
            f"[{np.nanmin(self.nodes):.4g}, {np.nanmax(self.nodes):.4g}], mean eigenvalue "
            f"{mean:.4g} ± {stderr:.2g}, negative mass {self.negative_mass:.1%}, "
            f"{self.n_matvecs} products)"
        )

    def _repr_html_(self) -> str:
        return str(self.to_frame().describe().to_html())
