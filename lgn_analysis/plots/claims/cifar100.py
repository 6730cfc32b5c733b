"""Figure of C10: accuracy on CIFAR-100 over iterations and over seconds."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lgn_analysis.plots.claims import convergence


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure of C1 for CIFAR-100."""
    return convergence.figure(frame)
