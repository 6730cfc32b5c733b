"""Theory and analysis of logic gate networks: training, discretization gap, curvature, claims.

>>> import lgn_analysis as lgn
>>> data = lgn.load_dataset("digits")
>>> model = lgn.LogicNetwork(data.n_features, width=1000, depth=2, n_classes=10, group_tau=10.0)
>>> result = lgn.train(model, data, steps=2, batch_size=16, progress=False)
>>> lgn.evaluate(model, data).n
360
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

__version__: Final = "0.1.0"

if TYPE_CHECKING:
    from lgn_analysis import plots
    from lgn_analysis.checkpoints import load, save
    from lgn_analysis.data import DATASETS, Dataset, load_dataset, thermometer
    from lgn_analysis.gates.noise import NoiseKey, Purpose
    from lgn_analysis.gates.relaxations import CAGE, GumbelSoft, GumbelST, HardST, Relaxation, Soft
    from lgn_analysis.hessian import (
        DensityResult,
        EigenResult,
        GumbelNoise,
        HessianProbe,
        TraceResult,
    )
    from lgn_analysis.interop import (
        Architecture,
        SeededWiring,
        convert,
        load_foreign,
        read_foreign_history,
        to_torchlogix,
    )
    from lgn_analysis.metrics import Convergence, Evaluation, convergence, evaluate, gate_usage
    from lgn_analysis.network import GroupSum, LogicLayer, LogicNetwork
    from lgn_analysis.training import TrainResult, read_history, resume, train

# Names are imported when first used: pandas, SciPy and scikit-learn cost more than torch itself.
_HOME: Final = {
    "checkpoints": ("load", "save"),
    "data": ("DATASETS", "Dataset", "load_dataset", "thermometer"),
    "hessian": ("DensityResult", "EigenResult", "GumbelNoise", "HessianProbe", "TraceResult"),
    "interop": (
        "Architecture",
        "SeededWiring",
        "convert",
        "load_foreign",
        "read_foreign_history",
        "to_torchlogix",
    ),
    "metrics": ("Convergence", "Evaluation", "convergence", "evaluate", "gate_usage"),
    "network": ("GroupSum", "LogicLayer", "LogicNetwork"),
    "gates.noise": ("NoiseKey", "Purpose"),
    "gates.relaxations": ("CAGE", "GumbelST", "GumbelSoft", "HardST", "Relaxation", "Soft"),
    "theory": (
        "AnatomyResult",
        "CompareResult",
        "Diagnosis",
        "LandscapeResult",
        "MeanField",
        "ProbeTracker",
        "SignalResult",
        "TrackedCurvature",
        "compare",
        "diagnose",
        "gap_anatomy",
        "hard_lemma",
        "landscape",
        "lemma1",
        "mean_field",
        "signal_propagation",
    ),
    "training": ("TrainResult", "read_history", "resume", "train"),
}
_MODULE_OF: Final = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "CAGE",
    "DATASETS",
    "AnatomyResult",
    "Architecture",
    "CompareResult",
    "Convergence",
    "Dataset",
    "DensityResult",
    "Diagnosis",
    "EigenResult",
    "Evaluation",
    "GroupSum",
    "GumbelNoise",
    "GumbelST",
    "GumbelSoft",
    "HardST",
    "HessianProbe",
    "LandscapeResult",
    "LogicLayer",
    "LogicNetwork",
    "MeanField",
    "NoiseKey",
    "ProbeTracker",
    "Purpose",
    "Relaxation",
    "SeededWiring",
    "SignalResult",
    "Soft",
    "TraceResult",
    "TrackedCurvature",
    "TrainResult",
    "compare",
    "convergence",
    "convert",
    "diagnose",
    "evaluate",
    "gap_anatomy",
    "gate_usage",
    "hard_lemma",
    "landscape",
    "lemma1",
    "load",
    "load_dataset",
    "load_foreign",
    "mean_field",
    "plots",
    "read_foreign_history",
    "read_history",
    "resume",
    "save",
    "signal_propagation",
    "thermometer",
    "to_torchlogix",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "plots":
        return importlib.import_module("lgn_analysis.plots")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'lgn_analysis' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"lgn_analysis.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
