"""``HessianProbe``: the Hessian of a module's mean loss as an operator, with its estimators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.memory import format_bytes, require_memory
from lgn_analysis.base.validation import real, shown, whole
from lgn_analysis.hessian.checks.report import CheckReport, check_differences, check_whole
from lgn_analysis.hessian.checks.trial import examine_network_loss, first_that_count, plan_for
from lgn_analysis.hessian.estimators.methods import EstimatorMethods
from lgn_analysis.hessian.operators.batches import Batch, as_batches
from lgn_analysis.hessian.operators.dense import rows_of
from lgn_analysis.hessian.operators.known_losses import (
    check_labels,
    check_network_data,
    check_targets,
    is_known,
)
from lgn_analysis.hessian.operators.linear import (
    MAX_BYTES,
    LossFn,
    ParameterOperator,
    isolated,
)
from lgn_analysis.hessian.operators.losses import ModuleLoss, batch_losses, check_loss
from lgn_analysis.hessian.operators.module import ModuleHessian
from lgn_analysis.hessian.operators.network import NetworkHessian, is_plain
from lgn_analysis.hessian.operators.plain_call import TURN
from lgn_analysis.hessian.operators.selection import select_parameters
from lgn_analysis.hessian.operators.smoothing import GumbelNoise, check_noise, given_tau
from lgn_analysis.network import LogicNetwork, require_plain


class HessianProbe(EstimatorMethods):
    """H = ∇²L of the mean loss L over data, in parameters of a module.

    A :class:`~lgn_analysis.LogicNetwork` is always differentiated in soft mode at its tau, in the
    logits z, whatever ``train()``/``eval()`` says; with ``noise`` the loss is the mean over frozen
    draws, ``E_g L(softmax((z + g)/tau))``. Its ``grad_factor`` is no part of the loss and ignored.
    Any other module is probed as it is called, and refused where its gradient cannot be
    differentiated. A plain call ``loss_fn(model(x), y)`` says what the loss is: terms of it that reach
    parameters by another way than the output, as a penalty does, are part of H. The module is left as
    it is, and its parameters, buffers and training flags are copied: a probe goes on to show the point
    at which it was made.

    The mean of a loss of torch is that over all data as torch defines it, class weights and ignored
    labels included, however they are split. Any other loss must be a mean over samples where there are
    several batches; one batch is one loss, whatever it does with its samples.

    Ranks of a process group share the samples of every batch; each must make the same calls.

    Threads may use probes at once, one of their own or the same. But any module other than a
    LogicNetwork holds the probe's parameters while it computes: no other thread may call it then.

    A seed gives the same bits each time. Products, loss, gradient and activation-space traces on the
    CPU kernels have the same bits for any number of threads too; what BLAS adds up over parameters,
    in the other traces, eigenpairs and densities, then agrees to rounding.

    Args:
        model: any ``nn.Module``.
        data: ``(x, y)``, batches that can be read again and are the same each time, or a
            ``torch.utils.data.Dataset``, whose samples are one batch.
        loss_fn: ``loss_fn(output, y)``, the mean over the batch.
        params: names or glob patterns of parameters, or of modules that they lie in; None takes all that
            require gradients.
        noise: Gumbel noise for a LogicNetwork.
        tau: gate temperature of a LogicNetwork's loss; None is the noise's, or else the model's.
        batch_size: split the data into pieces of so many samples, to bound memory. A LogicNetwork's
            are split by themselves.
        check: whether to compare products with finite differences first, as :meth:`check` does, since
            a wrong Hessian can be symmetric too. None does so for everything but an unchanged
            LogicNetwork under a loss of torch's.
        max_bytes: memory for what products have in common.

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
        check: bool | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InvalidInputError(f"a probe needs a torch.nn.Module, got {shown(model)}")
        check_loss(loss_fn)
        check_noise(noise)
        max_bytes = whole("max_bytes", max_bytes, least=1)
        self.model = model
        self.loss_fn = loss_fn
        self.noise = noise
        self.n_matvecs = 0
        self._batches = as_batches(data, batch_size)
        if noise is not None and not isinstance(model, LogicNetwork):
            raise InvalidInputError("noise perturbs gate logits and needs a LogicNetwork")
        self._loss: ModuleLoss | None = None
        self._few: Batch | None = None
        if isinstance(model, LogicNetwork):
            check_network_data(loss_fn, self._batches, model.n_features)
        check_targets(loss_fn, self._batches)
        self._tau = self._choose_tau(tau)
        with TURN:
            chosen = select_parameters(model, params)
            known = is_plain(model) and is_known(loss_fn)
        self._draws = not known
        with isolated(next(iter(chosen.values())).device, draws=self._draws):
            self.operator = self._make_operator(list(chosen), max_bytes)
        if check or (check is None and not known):
            self._check_differences()

    def check(self) -> CheckReport:
        """Measure whether products are those of a Hessian, and raise where they are not.

        Determinism and symmetry on all data; on a few samples finite differences of the loss against
        the gradient and of the gradient against H v, in float64 where the module runs in it, the
        module's own dtype against that, and a LogicNetwork's kernels against automatic
        differentiation. Symmetry alone would prove nothing.

        Raises:
            NotDifferentiableError: naming the parameters and what probably did it.
        """
        whole = check_whole(self.operator, type(self.model).__name__)
        return CheckReport(pd.DataFrame([*whole, *self._check_differences()]))

    def loss(self) -> float:
        """Return the mean loss."""
        return self.operator.loss()

    def grad(self) -> Tensor:
        """Return ∇L [n_params], float64."""
        return self.operator.gradient()

    def dense(self, *, limit: int = MAX_BYTES) -> Tensor:
        """Return H [n_params, n_params], float64 and symmetric; refused above ``limit`` bytes.

        The columns have the accuracy of products in the probe's dtype.
        """
        n = self.shape[0]
        size = 8 * n * n
        if math.isnan(real("limit", limit)):
            raise InvalidInputError(f"limit must be a number of bytes, got {limit}")
        if size > limit:
            raise InvalidInputError(
                f"a dense Hessian of {n} parameters takes {format_bytes(size)}, more than the limit "
                f"of {format_bytes(limit)}; use products (probe @ v), or raise limit"
            )
        require_memory(
            2 * size,  # it is made symmetric
            f"the {n} rows of a dense Hessian, and their transpose,",
            "use products (probe @ v)",
            device=self.device,
        )
        matrix = rows_of(self)
        symmetric = matrix + matrix.T
        return symmetric.div_(2)

    def to_scipy(self) -> LinearOperator:
        """Return the operator for SciPy's solvers."""

        def product(v: Any) -> Any:
            tensor = torch.as_tensor(v, dtype=self.dtype, device=self.device)
            product = self @ tensor.reshape(self.shape[0], -1)
            return product.to(dtype).cpu().numpy().reshape(v.shape)

        dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        numpy_dtype = str(dtype).removeprefix("torch.")
        return LinearOperator(
            self.shape, matvec=product, matmat=product, rmatvec=product, dtype=numpy_dtype
        )

    def __repr__(self) -> str:
        kind = type(self.model).__name__
        n = sum(len(y) for _, y in self._batches)
        what = "as called"
        if isinstance(self.model, LogicNetwork):
            tau = "each layer's tau" if self._tau is None else f"tau {self._tau:g}"
            what = f"soft mode in z at {tau}, grad_factor ignored"
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
        given = given_tau(tau, self.noise)
        if given is not None or self.noise:
            require_plain(self.model, "a probe with noise or a tau of its own", hooks=False)
        elif not is_plain(self.model):
            return None  # every layer its own
        return float(self.model.relaxation.tau if given is None else given)

    def _make_operator(self, names: Sequence[str], max_bytes: int) -> ParameterOperator:
        with TURN:  # another thread's probe may have moved what this one is to copy
            if is_plain(self.model):
                return self._network_hessian(self.model, names, max_bytes)
        return self._module_hessian(names, max_bytes)

    def _network_hessian(
        self, model: LogicNetwork, names: Sequence[str], max_bytes: int
    ) -> ParameterOperator:
        loss_fn = self.loss_fn
        check_labels(loss_fn, self._batches, model.n_classes)
        couples = False
        if loss_fn is not functional.cross_entropy:  # of which all is known
            kind = examine_network_loss(model, loss_fn, self._batches)
            if kind == "of parameters":
                return self._module_hessian(names, max_bytes)
            couples = kind == "coupled"
        return NetworkHessian(
            model,
            self._batches,
            loss_fn,
            layers=[int(name.split(".")[1]) for name in names],
            noise=self.noise,
            tau=self._tau or model.relaxation.tau,
            couples=couples,
            max_bytes=max_bytes,
        )

    def _module_hessian(self, names: Sequence[str], max_bytes: int) -> ModuleHessian:
        loss = ModuleLoss(self.model, self.loss_fn)
        chosen = {name: loss.frozen[name] for name in names}
        plan = plan_for(loss, chosen, self._batches)
        live = plan.method == "live"
        if live and isinstance(self.model, LogicNetwork):
            self._refuse_moved_logits(self.model)
        losses = batch_losses(loss, noise=self.noise, tau=self._tau, live=live)
        self._loss, self._few = loss, plan.few
        return ModuleHessian(losses, chosen, self._batches, plan, max_bytes=max_bytes)

    def _refuse_moved_logits(self, model: LogicNetwork) -> None:
        if self.noise is not None or (self._tau and self._tau != model.relaxation.tau):
            raise InvalidInputError(
                "loss_fn reads the network's logits beside its outputs, and noise or another tau "
                "moves the logits of the outputs alone; leave out noise and tau, or that term"
            )

    def _check_differences(self) -> list[dict[str, object]]:
        loss = self._loss or ModuleLoss(self.model, self.loss_fn)
        x, y = self._few or first_that_count(self.loss_fn, self._batches)
        with isolated(self.device, draws=self._draws):
            return check_differences(loss, self.operator, x, y, noise=self.noise, tau=self._tau)
