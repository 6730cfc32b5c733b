"""Hessian-vector products of the soft loss, and products with its Hessian in activations."""

from lgn_analysis.kernels.cpu.curvature.operator import Curvature

__all__ = ["Curvature"]
