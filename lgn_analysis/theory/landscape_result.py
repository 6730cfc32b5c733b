"""A slice through the loss, and the measures of its smoothness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lgn_analysis.hessian.operators.smoothing import GumbelNoise


@dataclass(frozen=True)
class LandscapeResult:
    """The loss on a grid of one or two coordinates; the model itself is at the origin.

    Attributes:
        coordinates: one array a dimension, [n] or [n] and [m].
        loss: mean loss, [n] or [n, m].
        accuracy: share of right predictions, of the same shape; NaN where labels are no classes.
        directions: the name of each direction.
        lengths: distance in z of one unit of each coordinate; in gate weights p for ``"discrete"``.
        eigenvalues: eigenvalue of each direction, NaN where it is no eigenvector; the curvature along
            coordinate i at the origin is ``eigenvalues[i]·lengths[i]²``.
        tau: gate temperature.
        n: samples.
        seed: seed of the directions.
        noise: the noise whose frozen draws the loss is a mean over, or None.
    """

    coordinates: tuple[NDArray[np.float64], ...]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    directions: tuple[str, ...]
    lengths: tuple[float, ...]
    eigenvalues: tuple[float, ...]
    tau: float
    n: int
    seed: int
    noise: GumbelNoise | None

    @property
    def roughness(self) -> float:
        """Squared curvature relative to the slice's height: mean of (∂²L/∂s²)² / (max L − min L)².

        s is a coordinate over half its extent, so that a slice runs over a stretch of 2 whatever its
        span and grid. The second derivative is the second difference on the grid, and the mean is over
        the grid's interior and over both coordinates. Without unit, blind to the loss's scale; 0 for a
        line, 4 for a centred parabola, (πk)⁴/8 for k cosine waves; NaN for a constant.
        It measures shape alone: a flat basin between steep walls is rough, however low its
        ``curvature``; the two are to be read together.
        """
        height = float(self.loss.max() - self.loss.min())
        if height == 0.0:
            return math.nan
        halves = [(c[-1] - c[0]) / 2 for c in self.coordinates]
        return float(np.mean(self._second_derivatives(halves) ** 2)) / height**2

    @property
    def curvature(self) -> float:
        """Mean |d²L/dr²| over the slice, r the distance in z along a coordinate, in nats.

        From second differences, over the grid's interior and both coordinates. In u = z/tau it is
        tau² times as large. For ``"discrete"`` r is the distance in gate weights.
        """
        scales = [1 / length if length else math.nan for length in self.lengths]
        return float(np.abs(self._second_derivatives(scales)).mean())

    @property
    def concave_share(self) -> float:
        """The share of the curvature that is negative: Σ (∂²L/∂s²)⁻ / Σ |∂²L/∂s²|, 0 if convex.

        From the same second differences as ``roughness``; NaN where there is no curvature.
        """
        second = self._second_derivatives([(c[-1] - c[0]) / 2 for c in self.coordinates])
        total = float(np.abs(second).sum())
        return float(-second[second < 0].sum()) / total if total else math.nan

    def to_frame(self) -> pd.DataFrame:
        """Return a row a grid point: x, y where there are two coordinates, loss, accuracy."""
        grid = np.meshgrid(*self.coordinates, indexing="ij")
        columns = dict(zip("xy", (axis.ravel() for axis in grid), strict=False))
        values = {"loss": self.loss.ravel(), "accuracy": self.accuracy.ravel()}
        frame = pd.DataFrame({**columns, **values})
        for axis, direction in zip("xy", self.directions, strict=False):
            frame[f"{axis}_direction"] = direction
        return frame

    def __repr__(self) -> str:
        shape = " × ".join(str(len(c)) for c in self.coordinates)
        noise = f", {self.noise}" if self.noise else ""
        return (
            f"LandscapeResult({shape} points along {', '.join(self.directions)}; tau "
            f"{self.tau:g}{noise}, {self.n} samples: loss {self.loss.min():.4g} to "
            f"{self.loss.max():.4g}, roughness {self.roughness:.4g}, curvature "
            f"{self.curvature:.3g}, {self.concave_share:.1%} of it concave)"
        )

    def _repr_html_(self) -> str:
        return str(self.to_frame().describe().to_html())

    def _second_derivatives(self, scales: Sequence[float]) -> NDArray[np.float64]:
        """Return all second derivatives, of coordinate i times ``scales[i]**2``, as one vector."""
        found = []
        for axis, (coordinate, scale) in enumerate(zip(self.coordinates, scales, strict=True)):
            step = float(coordinate[1] - coordinate[0]) / scale
            found.append(np.diff(self.loss, n=2, axis=axis).ravel() / step**2)
        return np.concatenate(found)
