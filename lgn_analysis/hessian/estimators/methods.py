"""The operator of a probe, with the estimators as its methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import shown
from lgn_analysis.hessian.estimators.activation import FEWEST, Activations
from lgn_analysis.hessian.estimators.density import spectral_density
from lgn_analysis.hessian.estimators.eigen import top_eigenpairs
from lgn_analysis.hessian.estimators.hutchpp import hutchpp_trace
from lgn_analysis.hessian.estimators.stopping import MAX_MATVECS, run
from lgn_analysis.hessian.estimators.trace import frobenius_norm, hutchinson_trace
from lgn_analysis.hessian.estimators.xtrace import xtrace_trace
from lgn_analysis.hessian.operators.linear import ParameterOperator
from lgn_analysis.hessian.operators.network import NetworkHessian
from lgn_analysis.hessian.results.intervals import Tolerances
from lgn_analysis.hessian.results.trace import TraceResult

_ESTIMATORS: Final[dict[str, Callable[..., TraceResult]]] = {
    "hutchinson": hutchinson_trace,
    "hutch++": hutchpp_trace,
    "xtrace": xtrace_trace,
}
TRACE_METHODS: Final = ("auto", "activation", *_ESTIMATORS)
_EVERY: Final = [
    "rtol",
    "atol",
    "n_probes",
    "min_probes",
    "max_matvecs",
    "seed",
    "progress",
    "ftol",
]
_MORE: Final = {
    "activation": [],
    "hutchinson": ["probes", "max_bytes"],
    "hutch++": ["sketch", "probes", "max_bytes"],
    "xtrace": ["max_bytes"],
}
"""Options that a method of the trace has beside those that every one has."""


class EstimatorMethods:
    """Products with an operator, counted, and what is estimated from them.

    Attributes:
        operator: H.
        n_matvecs: products spent so far.
    """

    operator: ParameterOperator
    n_matvecs: int

    # A probe is the operator that these take first.
    frobenius = frobenius_norm
    eigs = top_eigenpairs
    density = spectral_density

    @property
    def shape(self) -> tuple[int, int]:
        """(n_params, n_params)."""
        return self.operator.shape

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the parameters."""
        return self.operator.dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.operator.device

    @property
    def slices(self) -> Mapping[str, slice]:
        """Where each parameter lies in a flat vector."""
        return self.operator.slices

    def matvec(self, v: Tensor) -> Tensor:
        """Return H v for the mean loss over the data, v and result [n_params]."""
        product = self.operator.matvec(v)
        self.n_matvecs += 1
        return product

    def matmat(self, v: Tensor) -> Tensor:
        """Return H V for the mean loss over the data, V and result [n_params, k]."""
        product = self.operator.matmat(v)
        self.n_matvecs += v.shape[1]
        return product

    def row_products(self, rows: Tensor) -> Tensor:
        """Return H v for each row v of ``rows`` [k, n_params], float64 as the sums over samples are."""
        self.n_matvecs += len(rows)
        return self.operator.row_products(rows)

    def __matmul__(self, v: Tensor) -> Tensor:
        """Return H v for v [n_params] or [n_params, k]."""
        return self.matvec(v) if getattr(v, "ndim", 1) == 1 else self.matmat(v)

    def trace(
        self,
        *,
        method: str = "auto",
        rtol: float | None = 0.01,
        atol: float | None = None,
        ftol: float | None = None,
        n_probes: int | None = None,
        min_probes: int | None = None,
        max_matvecs: int = MAX_MATVECS,
        sketch: int | None = None,
        probes: str | None = None,
        max_bytes: int | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> TraceResult:
        """Return tr(H) with its error; ``result.extend()`` adds probes.

        ``"activation"`` knows a LogicNetwork: an exact softmax part and probes in activation space, with
        a variance tens to thousands of times smaller a product. ``"hutchinson"``, ``"hutch++"`` and
        ``"xtrace"`` probe any module in parameter space; the last has an error estimate, no interval.
        ``"auto"`` takes activation space where it can and Hutchinson elsewhere, and the result's reason
        says which. See ``docs/estimators.md``, and the functions of the last three methods in
        :mod:`lgn_analysis.hessian`.

        Without ``n_probes`` it stops at the first of several interim analyses at which one of the
        tolerances is met.

        Args:
            method: one of these.
            rtol: half-width of the 95 % interval at most ``rtol·|tr(H)|``, at most 0.5.
            atol: or at most this.
            ftol: or at most ``ftol·‖H‖_F``.
            n_probes: exactly so many probes, at least 2, whatever the tolerances.
            min_probes: the first interim analysis; None is 2 in activation space, 16 test vectors for
                XTrace, 32 elsewhere.
            max_matvecs: the most products to spend.
            sketch: of ``"hutch++"``: columns of its sketch, two products each; None is ``n_probes``, or
                ``min_probes`` where a tolerance decides.
            probes: of ``"hutchinson"`` and ``"hutch++"``: ``"rademacher"``, which None is, or
                ``"gaussian"``.
            max_bytes: the most memory for vectors, of all methods but ``"activation"``; None is 4 GiB.
            seed: seed of the probes.
            progress: show a progress bar.

        Raises:
            InvalidInputError: an option that the method has not, no tolerance, too few probes, or no room
                for vectors.
        """
        if method not in TRACE_METHODS:
            raise InvalidInputError(
                f"unknown method {shown(method)}; use one of {', '.join(TRACE_METHODS)}"
            )
        operator = self.operator
        network = operator if isinstance(operator, NetworkHessian) else None
        if network is None or network.couples:
            if method == "activation":
                raise InvalidInputError(
                    "method='activation' needs a LogicNetwork, not changed by hand, and a loss to which "
                    "each sample contributes by itself"
                )
            method, network = "hutchinson" if method == "auto" else method, None
        elif method == "auto":
            method = "activation"
        particular = {"sketch": sketch, "probes": probes, "max_bytes": max_bytes}
        some: dict[str, Any] = {n: value for n, value in particular.items() if value is not None}
        for name in some:
            if name not in _MORE[method]:
                options = ", ".join(_EVERY + _MORE[method])
                raise InvalidInputError(
                    f"method={method!r} has no option {name!r}; it has {options}"
                )
        if min_probes is not None:
            some["min_probes"] = min_probes
        if network is None or method != "activation":
            return _ESTIMATORS[method](
                self,
                rtol=rtol,
                atol=atol,
                ftol=ftol,
                n_probes=n_probes,
                max_matvecs=max_matvecs,
                seed=seed,
                progress=progress,
                **some,
            )
        if ftol is not None:
            atol = max(ftol * self.frobenius(rtol=0.2, seed=seed).estimate, atol or 0.0)
        result = run(
            Activations(network, seed),
            n_probes=n_probes,
            tolerances=Tolerances(rtol, atol),
            smallest=FEWEST if min_probes is None else min_probes,
            max_matvecs=max_matvecs,
            progress=progress,
        )
        self.n_matvecs += result.n_matvecs
        return result
