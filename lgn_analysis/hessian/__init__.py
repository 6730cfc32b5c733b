"""Curvature of any module's loss: operators, estimators, the probe, and Lemma 1."""

from lgn_analysis.hessian.density import spectral_density
from lgn_analysis.hessian.lanczos import lanczos, top_eigenpairs
from lgn_analysis.hessian.operators import DenseOperator, ModuleHessian, SymmetricOperator
from lgn_analysis.hessian.probe import HessianProbe
from lgn_analysis.hessian.results import DensityResult, EigenResult, FrobeniusResult, TraceResult
from lgn_analysis.hessian.smoothing import GumbelNoise, lemma1
from lgn_analysis.hessian.trace import frobenius_norm, hutchinson_trace

__all__ = [
    "DenseOperator",
    "DensityResult",
    "EigenResult",
    "FrobeniusResult",
    "GumbelNoise",
    "HessianProbe",
    "ModuleHessian",
    "SymmetricOperator",
    "TraceResult",
    "frobenius_norm",
    "hutchinson_trace",
    "lanczos",
    "lemma1",
    "spectral_density",
    "top_eigenpairs",
]
