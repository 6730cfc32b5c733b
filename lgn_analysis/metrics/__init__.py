"""Accuracy, loss, gap, gate usage and convergence, always over whole splits."""

from lgn_analysis.metrics.convergence import Convergence, convergence
from lgn_analysis.metrics.evaluation import (
    Evaluation,
    batches,
    check_labels,
    evaluate,
    split_tensors,
)
from lgn_analysis.metrics.usage import UNUSED_ENTROPY, gate_entropy, gate_usage

__all__ = [
    "UNUSED_ENTROPY",
    "Convergence",
    "Evaluation",
    "batches",
    "check_labels",
    "convergence",
    "evaluate",
    "gate_entropy",
    "gate_usage",
    "split_tensors",
]
