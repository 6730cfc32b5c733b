"""``HessianProbe``: the Hessian of a module's mean loss as an operator, with its estimators."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lgn_analysis.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.hessian.activation import activation_trace
from lgn_analysis.hessian.batches import Batch, as_batches
from lgn_analysis.hessian.density import spectral_density
from lgn_analysis.hessian.lanczos import top_eigenpairs
from lgn_analysis.hessian.operators import (
    BatchLoss,
    LossFn,
    ModuleHessian,
    ParamLoss,
    Params,
    isolated,
)
from lgn_analysis.hessian.results import DensityResult, EigenResult, FrobeniusResult, TraceResult
from lgn_analysis.hessian.smoothing import GumbelNoise, perturbed_logits
from lgn_analysis.hessian.trace import frobenius_norm, hutchinson_trace
from lgn_analysis.hessian.verification import (
    check_additive,
    check_labels,
    check_lowered,
    check_products,
)
from lgn_analysis.network import LogicNetwork

DENSE_LIMIT: Final = 4 * 2**30
"""Bytes of the largest dense Hessian that is made without being asked."""

TRACE_METHODS: Final = ("auto", "activation", "hutchinson")

_SAMPLE: Final = 16
"""Samples that derivatives are checked on."""


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
        tau: gate temperature of a LogicNetwork's loss; None is the noise's, or else the model's.
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
        tau: float | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.model = model
        self.loss_fn = loss_fn
        self.noise = noise
        self._batches = as_batches(data, batch_size)
        self._is_network = isinstance(model, LogicNetwork)
        if noise is not None and not self._is_network:
            raise InvalidInputError("noise perturbs gate logits and needs a LogicNetwork")
        self._temperature = self._choose_tau(tau)
        chosen = select_parameters(model, params)
        with isolated(next(iter(chosen.values())).device):
            self._refuse_bad_loss(chosen)
            self.operator = self._operator(model, chosen, self._batches)
            self.n_matvecs = 0
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

    def trace(self, *, method: str = "auto", **options: Any) -> TraceResult:
        """Return tr(H) with its 95 % interval.

        ``"activation"`` knows a LogicNetwork: an exact softmax part and probes in activation space,
        with a variance hundreds of times smaller a product. ``"hutchinson"`` probes any module in
        parameter space. ``"auto"`` takes the first where it can; the result's reason says which.

        Args:
            method: ``"auto"``, ``"activation"`` or ``"hutchinson"``.
            options: rtol, atol, ftol, n_probes, max_matvecs, seed, progress; see
                :func:`lgn_analysis.hessian.hutchinson_trace`.
        """
        if method not in TRACE_METHODS:
            raise InvalidInputError(
                f"unknown method {method!r}; use one of {', '.join(TRACE_METHODS)}"
            )
        if method == "hutchinson" or (method == "auto" and not self._is_network):
            return hutchinson_trace(self, **options)
        if not isinstance(self.model, LogicNetwork):
            raise InvalidInputError("method='activation' needs a LogicNetwork")
        options.pop("min_probes", None)
        if (ftol := options.pop("ftol", None)) is not None:
            norm = self.frobenius(rtol=0.2, seed=options.get("seed", 0)).estimate
            options["atol"] = max(ftol * norm, options.get("atol") or 0.0)
        probed = [int(name.split(".")[1]) for name in self.slices]
        result = activation_trace(
            self.model,
            self._batches,
            loss_fn=self.loss_fn,
            layers=probed,
            noise=self.noise,
            tau=self._temperature or self.model.relaxation.tau,
            **options,
        )
        self.n_matvecs += result.n_matvecs
        return result

    def frobenius(self, **options: Any) -> FrobeniusResult:
        """Return ‖H‖_F; see :func:`lgn_analysis.hessian.frobenius_norm` for the options."""
        return frobenius_norm(self, **options)

    def eigs(self, k: int = 10, which: str = "BE", **options: Any) -> EigenResult:
        """Return k eigenpairs; see :func:`lgn_analysis.hessian.top_eigenpairs`."""
        return top_eigenpairs(self, k=k, which=which, **options)

    def density(self, **options: Any) -> DensityResult:
        """Return the spectral density; see :func:`lgn_analysis.hessian.spectral_density`."""
        return spectral_density(self, **options)

    def __repr__(self) -> str:
        kind = type(self.model).__name__
        n = sum(len(y) for _, y in self._batches)
        what = "as called"
        if self._is_network:
            what = f"soft mode in z at tau {self._temperature:g}, grad_factor ignored"
        noise = f", {self.noise}" if self.noise else ""
        return (
            f"HessianProbe({kind}, {what}{noise}, {self.shape[0]} parameters, {n} samples, "
            f"{self.dtype}, {self.operator.method})"
        )

    def _choose_tau(self, tau: float | None) -> float | None:
        if not isinstance(self.model, LogicNetwork):
            if tau is not None:
                raise InvalidInputError("tau is a gate temperature and needs a LogicNetwork")
            return None
        given = {t for t in (tau, self.noise.tau if self.noise else None) if t is not None}
        if len(given) > 1:
            raise InvalidInputError(f"tau is {tau} and noise.tau {self.noise.tau}; give one")  # type: ignore[union-attr]
        chosen = given.pop() if given else self.model.relaxation.tau
        if not (math.isfinite(chosen) and chosen > 0):
            raise InvalidInputError(f"tau must be finite and above zero, got {chosen}")
        return float(chosen)

    def _operator(
        self, model: nn.Module, chosen: Params, batches: Sequence[Batch]
    ) -> ModuleHessian:
        return ModuleHessian(self._losses(model, chosen), chosen, batches)

    def _losses(
        self, model: nn.Module, chosen: Params, loss_fn: LossFn | None = None
    ) -> list[BatchLoss]:
        frozen = {name: value.detach() for name, value in model.named_parameters()}
        mode = {"mode": "soft"} if self._is_network else {}
        loss_fn = loss_fn or self.loss_fn

        def loss_at(params: Params, x: Tensor, y: Tensor) -> Tensor:
            buffers = {}
            if not self._is_network and any(part.training for part in model.modules()):
                # Batch normalisation writes its running statistics in place.
                buffers = {name: value.clone() for name, value in model.named_buffers()}
            device = next(iter(params.values())).device
            output = functional_call(model, {**params, **buffers}, (x.to(device),), mode)
            return loss_fn(output, y.to(device))

        if not isinstance(model, LogicNetwork):
            return [lambda params, x, y: loss_at({**frozen, **params}, x, y)]
        network, noise, tau = model, self.noise, self._temperature

        def under(draw: int | None) -> BatchLoss:
            # All logits are perturbed, whichever of them are probed.
            return lambda params, x, y: loss_at(
                perturbed_logits({**frozen, **params}, network, noise, draw, tau=tau), x, y
            )

        return [under(draw) for draw in (range(noise.draws) if noise else (None,))]

    def _refuse_bad_loss(self, chosen: Params) -> None:
        x, y = self._batches[0]
        (loss, *_) = self._losses(self.model, chosen)
        self._refuse_bad_labels(x)
        params = {name: value.detach().requires_grad_() for name, value in chosen.items()}
        try:
            value = loss(params, x, y)
        except IndexError as error:
            raise InvalidInputError(f"loss_fn refused the labels: {error}") from error
        if not isinstance(value, Tensor):
            raise InvalidInputError(
                f"loss_fn must return the mean over the batch, a number in a tensor; it returned "
                f"{type(value).__name__}"
            )
        if value.ndim != 0:
            raise InvalidInputError(
                f"loss_fn must return the mean over the batch, a number; it returned shape "
                f"{tuple(value.shape)}"
            )
        gradients: Sequence[Tensor | None] = ()
        if value.requires_grad:
            gradients = torch.autograd.grad(value, list(params.values()), allow_unused=True)
        if all(gradient is None for gradient in gradients):
            raise NotDifferentiableError(
                "the module's output carries no gradient in these parameters (an argmax in "
                "eval() mode, or torch.no_grad()): call model.train(), or give the LogicNetwork "
                "itself, which is probed in soft mode"
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
                "is repeated; use reduction='mean'"
            )
        if len(self._batches) > 1:
            with torch.no_grad():
                check_additive(lambda x, y: float(loss(chosen, x, y)), x, y)

    def _refuse_bad_labels(self, x: Tensor) -> None:
        # On a GPU a label out of range is an assertion that ends the process: look before.
        if isinstance(self.model, LogicNetwork):
            check_labels(self.loss_fn, self._batches, self.model.n_classes)
            return
        outputs: list[Any] = []

        def keep(output: Any, y: Tensor) -> Tensor:
            outputs.append(output)
            return y

        with torch.no_grad():
            (forward,) = self._losses(self.model, {}, keep)
            forward(dict(self.model.named_parameters()), x[:_SAMPLE], x[:_SAMPLE])
        if isinstance(outputs[0], Tensor) and outputs[0].ndim > 1:
            check_labels(self.loss_fn, self._batches, outputs[0].shape[1])

    def _check_by_differences(self) -> None:
        """Compare H v with finite differences, in float64 where module and loss run in it."""
        x, y = (part[:_SAMPLE] for part in self._batches[0])
        kind = type(self.model).__name__
        native, params = self._first_loss(self.model, x, y), self.operator.params
        products = self.operator.products
        if self.dtype == torch.float64:
            check_products(native, params, products, kind=kind, lowered=False)
            return
        try:
            model = copy.deepcopy(self.model).double()
            loss_fn = _in_double(self.loss_fn)
            wide = [part.double() if part.is_floating_point() else part for part in (x, y)]
            exact = self._first_loss(model, wide[0], wide[1], loss_fn)
            everything = dict(model.named_parameters())
            at = {name: everything[name].detach() for name in params}
            in_double = exact(at).dtype == torch.float64
        except (RuntimeError, TypeError, NotImplementedError):
            in_double = False
        if not in_double:
            check_products(native, params, products, kind=kind, lowered=True)
            return
        blocks = check_products(exact, at, products, kind=kind, lowered=False)
        check_lowered(native, params, products, blocks, kind=kind)

    def _first_loss(
        self, model: nn.Module, x: Tensor, y: Tensor, loss_fn: LossFn | None = None
    ) -> ParamLoss:
        loss = self._losses(model, {}, loss_fn)[0]
        return lambda params: loss(params, x, y)


def _in_double(loss_fn: Any) -> Any:
    """Return the loss with its class weights, if any, in float64."""
    if isinstance(loss_fn, nn.Module):
        return copy.deepcopy(loss_fn).double()
    if isinstance(loss_fn, functools.partial):
        keywords = {
            name: value.double()
            if isinstance(value, Tensor) and value.is_floating_point()
            else value
            for name, value in loss_fn.keywords.items()
        }
        return functools.partial(loss_fn.func, *loss_fn.args, **keywords)
    return loss_fn


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
