"""Two networks side by side, as a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lgn_analysis.hessian.results.spectrum import DensityResult, EigenResult
from lgn_analysis.hessian.results.table import Tabular
from lgn_analysis.metrics import Evaluation


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
