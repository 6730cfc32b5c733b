"""Curvature of any module's loss: operators, estimators, results, and the probe."""

from lgn_analysis.hessian.checks.report import CheckReport
from lgn_analysis.hessian.estimators.density import spectral_density
from lgn_analysis.hessian.estimators.eigen import top_eigenpairs
from lgn_analysis.hessian.estimators.hutchpp import hutchpp_trace
from lgn_analysis.hessian.estimators.lanczos import lanczos
from lgn_analysis.hessian.estimators.trace import frobenius_norm, hutchinson_trace
from lgn_analysis.hessian.estimators.xtrace import xtrace_trace
from lgn_analysis.hessian.operators.linear import DenseOperator, SymmetricOperator
from lgn_analysis.hessian.operators.module import ModuleHessian
from lgn_analysis.hessian.operators.network import NetworkHessian
from lgn_analysis.hessian.operators.smoothing import GumbelNoise
from lgn_analysis.hessian.probe import HessianProbe
from lgn_analysis.hessian.results.spectrum import DensityResult, EigenResult
from lgn_analysis.hessian.results.trace import FrobeniusResult, TraceResult

__all__ = [
    "CheckReport",
    "DenseOperator",
    "DensityResult",
    "EigenResult",
    "FrobeniusResult",
    "GumbelNoise",
    "HessianProbe",
    "ModuleHessian",
    "NetworkHessian",
    "SymmetricOperator",
    "TraceResult",
    "frobenius_norm",
    "hutchinson_trace",
    "hutchpp_trace",
    "lanczos",
    "spectral_density",
    "top_eigenpairs",
    "xtrace_trace",
]
