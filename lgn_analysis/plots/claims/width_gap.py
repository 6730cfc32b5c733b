"""Figure of C5: the gap at the end of training against width."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lgn_analysis.plots.claims.gap_by_size import figure_by_size


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: accuracy, and the gap in accuracy, loss and predictions."""
    return figure_by_size(frame, "width")
