"""``HessianProbe``: the Hessian of a module's mean loss as an operator, with its estimators."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lgn_analysis.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.hessian.batches import Batch, as_batches
from lgn_analysis.hessian.density import spectral_density
from lgn_analysis.hessian.lanczos import top_eigenpairs
from lgn_analysis.hessian.operators import BatchLoss, LossFn, ModuleHessian, Params
from lgn_analysis.hessian.results import DensityResult, EigenResult, TraceResult
from lgn_analysis.hessian.smoothing import GumbelNoise, perturbed_logits
from lgn_analysis.hessian.trace import hutchinson_trace
from lgn_analysis.network import LogicNetwork

DENSE_LIMIT: Final = 4 * 2**30
"""Bytes of the largest dense Hessian that is made without being asked."""

_DIFFERENCE_RTOL: Final = 1e-4


class HessianProbe:
    """H = ∇²L of the mean loss L over data, in parameters of a module.

    A :class:`~lgn_analysis.LogicNetwork` is always differentiated in soft mode at its tau, in the
    logits z, whatever ``train()``/``eval()`` says; with ``noise`` the loss is the mean over frozen
    draws, ``E_g L(softmax((z + g)/tau))``. Its ``grad_factor`` is no part of the loss and ignored.
    Any other module is probed as it is called, and refused where its gradient cannot be
    differentiated: a finite difference of gradients is compared with a product, since a wrong
    Hessian can be symmetric too. The module is left as it is.

    Args:
        model: any ``nn.Module``.
        data: ``(x, y)``, or batches that can be read again and are the same each time.
        loss_fn: ``loss_fn(output, y)``, the mean over the batch.
        params: names or glob patterns of the parameters; None takes all that require gradients.
        noise: Gumbel noise for a LogicNetwork.
        batch_size: split the data into pieces of so many samples, to bound memory.

    Raises:
        InvalidInputError: data, parameters or loss do not fit.
        NotDifferentiableError: the module has no Hessian that can be trusted.

    Source: Pearlmutter, Neural Comput. 6 (1994) for exact products.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        *,
        loss_fn: LossFn = functional.cross_entropy,
        params: str | Sequence[str] | None = None,
        noise: GumbelNoise | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.model = model
        self.loss_fn = loss_fn
        self.noise = noise
        self._batches = as_batches(data, batch_size)
        self._is_network = isinstance(model, LogicNetwork)
        if noise is not None and not self._is_network:
            raise InvalidInputError("noise perturbs gate logits and needs a LogicNetwork")
        chosen = select_parameters(model, params)
        self._refuse_bad_loss(chosen)
        self.operator = self._operator(model, chosen, self._batches)
        self.n_matvecs = 0
        if not self._is_network:
            self._check_by_differences()

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
        self.n_matvecs += 1
        return self.operator.matvec(v)

    def matmat(self, v: Tensor) -> Tensor:
        """Return H V for the mean loss over the data, V and result [n_params, k]."""
        self.n_matvecs += v.shape[1]
        return self.operator.matmat(v)

    def __matmul__(self, v: Tensor) -> Tensor:
        """Return H v for v [n_params] or [n_params, k]."""
        return self.matvec(v) if v.ndim == 1 else self.matmat(v)

    def loss(self) -> float:
        """Return the mean loss."""
        return self.operator.loss()

    def grad(self) -> Tensor:
        """Return ∇L [n_params], float64."""
        return self.operator.gradient()

    def dense(self, *, limit: int = DENSE_LIMIT) -> Tensor:
        """Return H [n_params, n_params], made symmetric; refused above ``limit`` bytes."""
        n = self.shape[0]
        size = n * n * torch.finfo(self.dtype).bits // 8
        if size > limit:
            raise InvalidInputError(
                f"a dense Hessian of {n} parameters takes {size / 2**30:.1f} GiB, more than the "
                f"limit of {limit / 2**30:.1f} GiB; use products (probe @ v), or raise limit"
            )
        matrix = self.matmat(torch.eye(n, dtype=self.dtype, device=self.device))
        return (matrix + matrix.T) / 2

    def to_scipy(self) -> LinearOperator:
        """Return the operator for SciPy's solvers."""

        def product(v: Any) -> Any:
            tensor = torch.as_tensor(v, dtype=self.dtype, device=self.device)
            return (self @ tensor.reshape(self.shape[0], -1)).cpu().numpy().reshape(v.shape)

        numpy_dtype = {torch.float32: "float32", torch.float64: "float64"}[self.dtype]
        return LinearOperator(
            self.shape, matvec=product, matmat=product, rmatvec=product, dtype=numpy_dtype
        )

    def trace(self, **options: Any) -> TraceResult:
        """Return tr(H); see :func:`lgn_analysis.hessian.hutchinson_trace` for the options."""
        return hutchinson_trace(self, **options)

    def eigs(self, k: int = 10, which: str = "BE", **options: Any) -> EigenResult:
        """Return k eigenpairs; see :func:`lgn_analysis.hessian.top_eigenpairs`."""
        return top_eigenpairs(self, k=k, which=which, **options)

    def density(self, **options: Any) -> DensityResult:
        """Return the spectral density; see :func:`lgn_analysis.hessian.spectral_density`."""
        return spectral_density(self, **options)

    def __repr__(self) -> str:
        kind = type(self.model).__name__
        n = sum(len(y) for _, y in self._batches)
        what = f"soft mode at tau {self._tau():g}" if self._is_network else "as called"
        noise = f", {self.noise}" if self.noise else ""
        return (
            f"HessianProbe({kind}, {what}{noise}, {self.shape[0]} parameters, {n} samples, "
            f"{self.dtype}, {self.operator.method})"
        )

    def _tau(self) -> float:
        assert isinstance(self.model, LogicNetwork)
        return self.model.relaxation.tau

    def _operator(
        self, model: nn.Module, chosen: Params, batches: Sequence[Batch]
    ) -> ModuleHessian:
        return ModuleHessian(self._losses(model, chosen), chosen, batches)

    def _losses(self, model: nn.Module, chosen: Params) -> list[BatchLoss]:
        frozen = {name: value.detach() for name, value in model.named_parameters()}
        mode = {"mode": "soft"} if self._is_network else {}

        def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
            return self.loss_fn(functional_call(model, {**frozen, **params}, (x,), mode), y)

        if self.noise is None:
            return [loss]
        assert isinstance(model, LogicNetwork)
        return [_noisy(loss, model, self.noise, draw) for draw in range(self.noise.draws)]

    def _refuse_bad_loss(self, chosen: Params) -> None:
        x, y = self._batches[0]
        (loss, *_) = self._losses(self.model, chosen)
        params = {name: value.detach().requires_grad_() for name, value in chosen.items()}
        try:
            value = loss(params, x, y)
        except IndexError as error:
            raise InvalidInputError(f"loss_fn refused the labels: {error}") from error
        if value.ndim != 0:
            raise InvalidInputError(
                f"loss_fn must return the mean over the batch, a number; it returned shape "
                f"{tuple(value.shape)}"
            )
        if not value.requires_grad:
            raise NotDifferentiableError(
                "the module's output carries no gradient in these parameters (an argmax in "
                "eval() mode, or torch.no_grad()); probe a differentiable forward"
            )
        if not bool(torch.isfinite(value)):
            raise InvalidInputError(f"the loss is {float(value)}; there is nothing to probe")
        with torch.no_grad():
            if not torch.equal(loss(chosen, x, y), loss(chosen, x, y)):
                raise InvalidInputError(
                    "two evaluations of the loss differ: the module draws random numbers (Gumbel "
                    "noise or dropout in train() mode?), so it has no one Hessian; probe a "
                    "deterministic forward, or a LogicNetwork with noise=GumbelNoise(...)"
                )
            twice = loss(chosen, torch.cat([x, x]), torch.cat([y, y]))
        if not torch.allclose(value.detach(), twice, rtol=1e-3):
            raise InvalidInputError(
                "loss_fn must be the mean over samples, and its value changes when every sample "
                "is repeated (reduction='sum', or batch statistics in train() mode?)"
            )

    def _check_by_differences(self) -> None:
        """Compare H v with a finite difference of gradients, in float64, along a random v."""
        model = copy.deepcopy(self.model).double()
        names = list(self.operator.params)
        everything = dict(model.named_parameters())
        x, y = self._batches[0]
        batch = (
            x.double() if x.is_floating_point() else x,
            y.double() if y.is_floating_point() else y,
        )
        operator = self._operator(
            model, {name: everything[name].detach() for name in names}, [batch]
        )
        generator = torch.Generator().manual_seed(0)
        v = torch.randn(self.shape[0], generator=generator, dtype=torch.float64)
        v = (v / v.norm()).to(self.device)
        product = operator.matvec(v)
        step = 1e-5 * max(1.0, float(operator.flatten(operator.params).norm()))
        ends = []
        for sign in (1, -1):
            moved = {
                name: value + sign * step * operator.unflatten(v)[name]
                for name, value in operator.params.items()
            }
            ends.append(operator.gradient(moved))
        difference = (ends[0] - ends[1]) / (2 * step)
        size = float(torch.maximum(difference.norm(), product.norm()))
        error = float((difference - product).norm())
        noise = 1e-12 * float(ends[0].norm()) / step
        if error > _DIFFERENCE_RTOL * size + noise:
            raise NotDifferentiableError(
                f"the Hessian of {type(self.model).__name__} is wrong by {error / size:.0%} "
                "against finite differences of its gradient: some layer's backward is not "
                "differentiable (a custom autograd.Function that calls raw kernels?), or the "
                "module is random or not smooth"
            )


def select_parameters(model: nn.Module, patterns: str | Sequence[str] | None) -> Params:
    """Return the parameters by name; patterns are globs, None takes those that need gradients."""
    everything = dict(model.named_parameters())
    if patterns is None:
        chosen = {name: value for name, value in everything.items() if value.requires_grad}
    else:
        wanted = [patterns] if isinstance(patterns, str) else list(patterns)
        for pattern in wanted:
            if not any(fnmatchcase(name, pattern) for name in everything):
                raise InvalidInputError(
                    f"no parameter matches {pattern!r}; there are {', '.join(everything)}"
                )
        chosen = {
            name: value
            for name, value in everything.items()
            if any(fnmatchcase(name, pattern) for pattern in wanted)
        }
    if not chosen:
        raise InvalidInputError(f"{type(model).__name__} has no parameters that require gradients")
    dtypes = {value.dtype for value in chosen.values()}
    if len(dtypes) > 1:
        raise InvalidInputError(f"the parameters mix dtypes {sorted(map(str, dtypes))}")
    return {name: value.detach() for name, value in chosen.items()}


def _noisy(loss: BatchLoss, model: LogicNetwork, noise: GumbelNoise, draw: int) -> BatchLoss:
    return lambda params, x, y: loss(perturbed_logits(params, model, noise, draw), x, y)
