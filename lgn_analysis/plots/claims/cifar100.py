"""Figure of C10: accuracy on CIFAR-100 over iterations and over seconds."""

from lgn_analysis.plots.claims.convergence import figure

__all__ = ["figure"]
