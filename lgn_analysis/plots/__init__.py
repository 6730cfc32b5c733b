"""Drawing: tidy frame or result in, Axes out. Nothing is computed here but means and intervals.

Every function takes ``ax=None`` and returns the Axes; :func:`style` gives the look of the figures.
"""

from __future__ import annotations

from lgn_analysis.plots.claims.adam_epsilon import outcome_by_depth
from lgn_analysis.plots.claims.convergence import accuracy_curves
from lgn_analysis.plots.claims.curvature_gap import change_against
from lgn_analysis.plots.claims.gap import gap_curves
from lgn_analysis.plots.claims.gap_anatomy import (
    anatomy_curves,
    anatomy_expansion,
    bit_flips,
    layer_changes,
)
from lgn_analysis.plots.claims.hard_lemma import gains_over_steps
from lgn_analysis.plots.claims.hessian_trace import trace_curves
from lgn_analysis.plots.claims.landscape import curvature_along, landscape_slice, loss_along
from lgn_analysis.plots.claims.lemma_1 import lemma_orders, lemma_ratio
from lgn_analysis.plots.claims.overhead import extra_seconds
from lgn_analysis.plots.claims.parts import parts_over_tau
from lgn_analysis.plots.claims.spectral_density import density_curve
from lgn_analysis.plots.claims.temperature import accuracy_by_tau
from lgn_analysis.plots.claims.unused_gates import entropy_histograms, unused_by_layer
from lgn_analysis.plots.claims.where_it_pays import winner_map
from lgn_analysis.plots.curvature_tracking import curvature_curves
from lgn_analysis.plots.signal_propagation import signal_propagation
from lgn_analysis.plots.sizes import gap_by_size
from lgn_analysis.plots.style import style

__all__ = [
    "accuracy_by_tau",
    "accuracy_curves",
    "anatomy_curves",
    "anatomy_expansion",
    "bit_flips",
    "change_against",
    "curvature_along",
    "curvature_curves",
    "density_curve",
    "entropy_histograms",
    "extra_seconds",
    "gains_over_steps",
    "gap_by_size",
    "gap_curves",
    "landscape_slice",
    "layer_changes",
    "lemma_orders",
    "lemma_ratio",
    "loss_along",
    "outcome_by_depth",
    "parts_over_tau",
    "signal_propagation",
    "style",
    "trace_curves",
    "unused_by_layer",
    "winner_map",
]
