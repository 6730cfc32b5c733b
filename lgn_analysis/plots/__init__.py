"""Drawing: tidy frame or result in, Axes out. Nothing is computed here but means and intervals.

Every function takes ``ax=None`` and returns the Axes; :func:`style` gives the look of the figures.
"""

from __future__ import annotations

from lgn_analysis.plots.convergence import accuracy_curves
from lgn_analysis.plots.gap import gap_curves
from lgn_analysis.plots.hessian_trace import trace_curves
from lgn_analysis.plots.lemma_1 import lemma_ratio
from lgn_analysis.plots.spectral_density import density_curve
from lgn_analysis.plots.style import style
from lgn_analysis.plots.temperature import accuracy_by_tau
from lgn_analysis.plots.unused_gates import unused_by_layer

__all__ = [
    "accuracy_by_tau",
    "accuracy_curves",
    "density_curve",
    "gap_curves",
    "lemma_ratio",
    "style",
    "trace_curves",
    "unused_by_layer",
]
