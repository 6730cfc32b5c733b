"""What the estimators of the spectrum return: eigenpairs, and a density."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit
from scipy.stats import wasserstein_distance
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian.results.intervals import ALPHA
from lgn_analysis.hessian.results.table import Tabular

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EigenResult(Tabular):
    """Eigenpairs at the ends of the spectrum, in falling order.

    Attributes:
        values: [k].
        vectors: float64 [n, k], orthonormal.
        residuals: ‖H v − λ v‖ relative to the largest |eigenvalue|, [k], of products made at the end.
        n_matvecs: products spent.
        converged: whether every residual met the tolerance.
        reason: why the solver stopped.
        which: which end, as asked for.
        seed: seed of the start vectors.
        tol: the tolerance.
        method: ``"lanczos"`` or ``"dense"``.
        slices: the operator's slices, by name.
    """

    values: Floats
    vectors: Tensor
    residuals: Floats
    n_matvecs: int
    converged: bool
    reason: str
    which: str
    seed: int
    tol: float
    method: str
    slices: Mapping[str, slice]

    @property
    def pair_converged(self) -> NDArray[np.bool_]:
        """Whether each residual met the tolerance, [k]."""
        return self.residuals <= self.tol

    @property
    def mass(self) -> pd.DataFrame:
        """The share of ‖v‖² in each slice of the operator: a row a pair, a column a slice."""
        squares = self.vectors.square()
        shares = {name: squares[where].sum(0).cpu().numpy() for name, where in self.slices.items()}
        return pd.DataFrame(shares, index=pd.RangeIndex(len(self.values), name="pair"))

    @property
    def per_layer(self) -> pd.DataFrame:
        """``mass`` with a row a pair and slice: pair, value, layer, mass."""
        mass = self.mass.assign(value=self.values).reset_index()
        return mass.melt(["pair", "value"], var_name="layer", value_name="mass")

    @property
    def participation(self) -> Floats:
        """1 / (n Σ v⁴) of each unit vector: 1/n for one coordinate, 1 for all alike; [k]."""
        fourth = self.vectors.square().square().sum(0).cpu().numpy()
        return np.asarray(1 / (self.vectors.shape[0] * fourth))

    def to_frame(self) -> pd.DataFrame:
        """Return a row a pair: value, residual, converged, participation, mass in each slice."""
        frame = pd.DataFrame(
            {
                "value": self.values,
                "residual": self.residuals,
                "converged": self.pair_converged,
                "participation": self.participation,
            }
        )
        mass = self.mass.add_prefix("mass ")
        return pd.concat([frame, mass.reset_index(drop=True)], axis=1)

    def __repr__(self) -> str:
        ends = ", ".join(f"{value:.4g}" for value in self.values)
        worst = self.residuals.max() if len(self.residuals) else float("nan")
        return (
            f"EigenResult([{ends}], largest residual {worst:.1e}, {self.n_matvecs} products, "
            f"{self.reason})"
        )


@dataclass(frozen=True)
class DensityResult:
    """A spectral density as quadrature nodes and weights; smoothed only when it is evaluated.

    Each row is the quadrature of one probe, or of all exact eigenvalues. After s steps from a start
    vector z it has the moments ``zᵀ Hʲ z / n`` exactly for j < 2s; the errors given are those over
    Rademacher vectors z, and NaN where there is one only. With few probes use Student's t.

    Attributes:
        nodes: [n_probes, m]: deflated eigenvalues, quadrature; NaN where a probe ended early.
        weights: the same shape; all of them add to one.
        n: dimension of the operator.
        n_matvecs: products spent on it.
        converged: whether ``error`` is within the tolerance.
        reason: the method, and by how much the tolerance was met or missed.
        seed: seed of the probes.
        exact: whether the nodes are all eigenvalues, with no error.
    """

    nodes: Floats
    weights: Floats
    n: int
    n_matvecs: int
    converged: bool
    reason: str
    seed: int
    exact: bool = False

    def cdf(self, x: Floats | float) -> Floats:
        """Return the share of eigenvalues at or below x, for x [m] or a number."""
        return self._cdfs(np.atleast_1d(x)).mean(0)

    def cdf_interval(self, x: Floats | float) -> tuple[Floats, Floats]:
        """Return the ends of the pointwise 95 % interval of ``cdf(x)``, by Student's t."""
        shares = self._cdfs(np.atleast_1d(x))
        half = _standard_error(shares, self.exact)
        if not self.exact and len(shares) > 1:
            half = half * stdtrit(len(shares) - 1, 1 - ALPHA / 2)
        mean = shares.mean(0)
        return np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1)

    def quantile(self, q: Floats | float) -> Floats:
        """Return the smallest node with a share of at least q at or below it, for 0 ≤ q ≤ 1."""
        share = np.atleast_1d(np.asarray(q, dtype=np.float64))
        if not ((share >= 0) & (share <= 1)).all():
            raise InvalidInputError(f"a quantile is asked for a share in 0..1, got {q}")
        nodes, weights = self._sorted()
        total = np.cumsum(weights)
        # The weights add to one up to rounding, and so may miss the last share by as much.
        places = np.searchsorted(total, share * total[-1] - 1e-12)
        return nodes[np.minimum(places, len(nodes) - 1)]

    def density(self, grid: Floats, sigma: float | None = None) -> Floats:
        """Return the density on a rising ``grid``, smoothed by Gaussians.

        ``sigma`` is their standard deviation. None resolves what the quadrature does: each node is
        as wide as half the distance to its neighbours in the same probe, at most a hundredth of the
        largest |node|, and never narrower than the grid's step, so that no spike falls between two
        points.
        """
        grid = np.asarray(grid, dtype=np.float64)
        nodes, weights = self._flat_nodes, self._flat_weights
        if sigma is not None and not sigma > 0:
            raise InvalidInputError(f"sigma must be above zero, got {sigma}")
        widths = np.full(len(nodes), sigma) if sigma is not None else self._widths(grid)
        distance = (grid[:, None] - nodes) / widths
        kernel = np.exp(-0.5 * distance**2) / (widths * np.sqrt(2 * np.pi))
        return np.asarray(kernel @ weights)

    def moment(self, order: int) -> tuple[float, float]:
        """Return the mean of λ**order and its standard error over probes.

        The quadrature of m steps adds no error below order 2m.
        """
        values = (self._filled**order * self._shares).sum(1)
        return float(values.mean()), float(_standard_error(values, self.exact))

    def moments(self, highest: int = 4) -> pd.DataFrame:
        """Return a row for each order from 1: order, estimate, stderr."""
        rows = [(order, *self.moment(order)) for order in range(1, highest + 1)]
        return pd.DataFrame(rows, columns=["order", "estimate", "stderr"])

    @property
    def negative_mass(self) -> float:
        """The share of |λ| that is negative: Σ |λ⁻| / Σ |λ|; 0 for the zero operator."""
        below, size = self._sizes()
        return float(below.mean() / size.mean()) if size.any() else 0.0

    @property
    def negative_mass_stderr(self) -> float:
        """The standard error of ``negative_mass`` over probes, to first order in their spread."""
        below, size = self._sizes()
        if not size.any():
            return 0.0
        rest = (below - self.negative_mass * size) / size.mean()
        return float(_standard_error(rest, self.exact))

    @property
    def error(self) -> float:
        """The expected 1-Wasserstein distance to the spectrum; NaN for one probe.

        ``sqrt(2/π) ∫ s(x) dx`` with s(x) the standard error of ``cdf(x)`` over probes. Their nodes
        differ where the steps do not resolve the spectrum, and so that is in it too.
        """
        grid = np.unique(self._flat_nodes)
        if self.exact or len(grid) < 2:
            return 0.0
        stderr = _standard_error(self._cdfs(grid), self.exact)[:-1]
        return float(np.sqrt(2 / np.pi) * (stderr * np.diff(grid)).sum())

    def wasserstein(self, other: DensityResult | Floats | float) -> float:
        """Return the 1-Wasserstein distance to another density, to eigenvalues or to a point.

        ``wasserstein(0.0)`` is the mean of |λ|.
        """
        if isinstance(other, DensityResult):
            values, weights = other._flat_nodes, other._flat_weights
        else:
            values, weights = np.atleast_1d(np.asarray(other, dtype=np.float64)).ravel(), None
        return float(wasserstein_distance(self._flat_nodes, values, self._flat_weights, weights))

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
            f"{self.n_matvecs} products, {self.reason})"
        )

    def _repr_html_(self) -> str:
        return str(self.moments().to_html(index=False))

    @property
    def _flat_nodes(self) -> Floats:
        return self.nodes[~np.isnan(self.nodes)]

    @property
    def _flat_weights(self) -> Floats:
        return self.weights[~np.isnan(self.nodes)]

    @property
    def _filled(self) -> Floats:
        return np.nan_to_num(self.nodes)

    @property
    def _shares(self) -> Floats:
        """Weights that add to one in each probe."""
        return self.weights * len(self.weights)

    def _sizes(self) -> tuple[Floats, Floats]:
        """Return the mean of |λ⁻| and of |λ| of each probe."""
        sizes = np.abs(self._filled) * self._shares
        return np.where(self._filled < 0, sizes, 0).sum(1), sizes.sum(1)

    def _sorted(self) -> tuple[Floats, Floats]:
        order = np.argsort(self._flat_nodes)
        return self._flat_nodes[order], self._flat_weights[order]

    def _cdfs(self, x: Floats) -> Floats:
        """Return the distribution function of each probe at x [m], as [n_probes, m]."""
        out = np.empty((len(self.nodes), len(x)))
        for row, (nodes, shares) in enumerate(zip(self.nodes, self._shares, strict=True)):
            order = np.argsort(nodes)  # NaN last
            total = np.concatenate([[0.0], np.cumsum(shares[order])])
            out[row] = total[np.searchsorted(nodes[order], x, side="right")]
        return out

    def _widths(self, grid: Floats) -> Floats:
        """Return a standard deviation for each node."""
        reach = 0.01 * float(np.abs(self._flat_nodes).max())
        step = float(np.diff(grid).max()) if len(grid) > 1 else 0.0
        widths = np.full(self.nodes.shape, np.nan)
        for row, nodes in enumerate(self.nodes):
            present = np.flatnonzero(~np.isnan(nodes))
            places = present[np.argsort(nodes[present])]
            gaps = np.diff(nodes[places])
            if len(gaps):
                near = np.minimum(np.append(gaps, gaps[-1]), np.insert(gaps, 0, gaps[0]))
                widths[row, places] = near / 2
            else:
                widths[row, places] = reach
        floor = max(step, 1e-3 * reach, np.finfo(np.float64).tiny)
        return np.clip(widths[~np.isnan(self.nodes)], floor, max(reach, floor))


def _standard_error(values: Floats, exact: bool) -> Floats:
    """Return the standard error over the first axis: NaN for one sample, 0 for an exact one."""
    count = len(values)
    if exact:
        return np.zeros(values.shape[1:])
    if count < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.std(0, ddof=1) / np.sqrt(count))
