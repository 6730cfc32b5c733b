"""Curvature of any module's loss: operators, estimators, the probe, and what is built on it."""

from lgn_analysis.hessian.anatomy import gap_anatomy
from lgn_analysis.hessian.anatomy_result import AnatomyResult
from lgn_analysis.hessian.check import CheckReport
from lgn_analysis.hessian.comparison import compare
from lgn_analysis.hessian.comparison_result import CompareResult
from lgn_analysis.hessian.density import spectral_density
from lgn_analysis.hessian.eigen import top_eigenpairs
from lgn_analysis.hessian.hutchpp import hutchpp_trace
from lgn_analysis.hessian.lanczos import lanczos
from lgn_analysis.hessian.landscape_result import LandscapeResult
from lgn_analysis.hessian.landscapes import landscape
from lgn_analysis.hessian.lemma import lemma1
from lgn_analysis.hessian.module_hessian import ModuleHessian
from lgn_analysis.hessian.network_hessian import NetworkHessian
from lgn_analysis.hessian.operators import DenseOperator, SymmetricOperator
from lgn_analysis.hessian.probe import HessianProbe
from lgn_analysis.hessian.results import FrobeniusResult, TraceResult
from lgn_analysis.hessian.smoothing import GumbelNoise
from lgn_analysis.hessian.spectrum_results import DensityResult, EigenResult
from lgn_analysis.hessian.trace import frobenius_norm, hutchinson_trace
from lgn_analysis.hessian.tracking import ProbeTracker, TrackedCurvature
from lgn_analysis.hessian.xtrace import xtrace_trace

__all__ = [
    "AnatomyResult",
    "CheckReport",
    "CompareResult",
    "DenseOperator",
    "DensityResult",
    "EigenResult",
    "FrobeniusResult",
    "GumbelNoise",
    "HessianProbe",
    "LandscapeResult",
    "ModuleHessian",
    "NetworkHessian",
    "ProbeTracker",
    "SymmetricOperator",
    "TraceResult",
    "TrackedCurvature",
    "compare",
    "frobenius_norm",
    "gap_anatomy",
    "hutchinson_trace",
    "hutchpp_trace",
    "lanczos",
    "landscape",
    "lemma1",
    "spectral_density",
    "top_eigenpairs",
    "xtrace_trace",
]
