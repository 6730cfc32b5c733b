"""Whether a probe's products are those of a Hessian: measured, and refused where they are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pandas as pd
import torch
from torch import Tensor, nn

from lgn_analysis.errors import NotDifferentiableError
from lgn_analysis.hessian.differences import product, random_signs
from lgn_analysis.hessian.losses import batch_losses, in_double
from lgn_analysis.hessian.module_hessian import ModuleHessian
from lgn_analysis.hessian.network_hessian import NetworkHessian
from lgn_analysis.hessian.operators import (
    BatchLoss,
    LossFn,
    ParameterOperator,
    ParamLoss,
    Params,
)
from lgn_analysis.hessian.smoothing import GumbelNoise
from lgn_analysis.hessian.verification import DTYPE_RTOL, check_lowered, check_products
from lgn_analysis.hessian.widening import NARROW, Widened, double_copy

_FEW: Final = 16
"""Samples that derivatives are checked on."""


@dataclass(frozen=True)
class CheckReport:
    """What :meth:`lgn_analysis.HessianProbe.check` measured; a failed check raises instead.

    Attributes:
        table: a row a check: check, error, allowed (both relative), what.
    """

    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """Return the table."""
        return self.table

    def __repr__(self) -> str:
        return f"CheckReport(all passed)\n{self.table.to_string(index=False)}"

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False))


def check_whole(operator: ParameterOperator, kind: str) -> list[dict[str, object]]:
    """Check on all data that products repeat to the bit and are symmetric; return rows of a report."""
    n = operator.shape[0]
    generator = torch.Generator().manual_seed(1)
    pair = torch.randn(2, n, generator=generator, dtype=torch.float64)
    rows = pair.to(device=operator.device, dtype=operator.dtype)
    first, second = operator.row_products(rows), operator.row_products(rows)
    repeated = float((first - second).norm() / (first.norm() or 1.0))
    if repeated > 0:
        raise NotDifferentiableError(
            f"{kind}: the same product differs by {repeated:.1e} from one call to the next. Its "
            "operations are not deterministic; see torch.use_deterministic_algorithms"
        )
    one, other = float(rows[0].double() @ first[1]), float(rows[1].double() @ first[0])
    # Both are sums of n terms of either sign: rounding is relative to the lengths, not to the sums.
    size = float(rows[0].double().norm() * first[1].norm()) or 1.0
    skew = abs(one - other) / size
    allowed = 1e3 * torch.finfo(operator.dtype).eps
    if skew > allowed:
        raise NotDifferentiableError(
            f"{kind}: products are not symmetric, uᵀHv and vᵀHu differ by {skew:.1e} of ‖u‖‖Hv‖"
        )
    return [
        _row("determinism", repeated, 0.0, "two calls, all data"),
        _row("symmetry", skew, allowed, "uᵀHv against vᵀHu, all data"),
    ]


def check_differences(
    model: nn.Module,
    loss_fn: LossFn,
    operator: ParameterOperator,
    x: Tensor,
    y: Tensor,
    *,
    noise: GumbelNoise | None,
    tau: float | None,
) -> list[dict[str, object]]:
    """Check H v on a few samples against finite differences; return rows of a report.

    In float64 where module and loss run in it, and then the operator's own dtype against that. A
    :class:`NetworkHessian`'s kernels are compared with automatic differentiation.
    """
    method = operator.method if isinstance(operator, ModuleHessian) else "double-backward"
    params = operator.params
    native = batch_losses(model, loss_fn, noise=noise, tau=tau)[0]
    x, y = _first_samples(native, params, x, y)
    wide = [part.double() if part.dtype in NARROW else part for part in (x, y)]
    exact = _exact_loss(model, loss_fn, params, *wide, noise=noise, tau=tau)
    if exact is None:
        loss, pair, at = native, (x, y), params
    else:
        loss, pair = exact, (wide[0], wide[1])
        at = {name: value.double() for name, value in params.items()}
    what = f"H v of {len(y)} samples by {method}"
    found = check_products(
        _on(loss, *pair), at, method, model=model, fewer=_on(loss, *(part[:2] for part in pair))
    )
    dtype = next(iter(at.values())).dtype
    rows = [
        _row("finite differences", found.error, found.allowed, f"{what}, {dtype}, {found.what}")
    ]
    if exact is None:
        return rows
    if operator.dtype != torch.float64:
        found = check_lowered(
            _on(native, x, y), _on(exact, *wide), params, method, kind=type(model).__name__
        )
        rows.append(_row("dtype", found.error, found.allowed, f"{what}, {found.what}"))
    if isinstance(operator, NetworkHessian):
        error = _check_kernels(operator, x, y, product(_on(exact, *wide), at, method))
        rows.append(
            _row("kernels", error, DTYPE_RTOL, f"H v of {len(y)} samples by {operator.method}")
        )
    return rows


def _first_samples(loss: BatchLoss, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return a few samples, or all where the loss takes no fewer (a graph, a state of that size)."""
    try:
        loss(params, x[:_FEW], y[:_FEW])
    except (RuntimeError, ValueError, IndexError):
        return x, y
    return x[:_FEW], y[:_FEW]


def _exact_loss(
    model: nn.Module,
    loss_fn: LossFn,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    noise: GumbelNoise | None,
    tau: float | None,
) -> BatchLoss | None:
    """Return the loss in float64, or None where module or loss do not run in it."""
    try:
        inner = batch_losses(double_copy(model), in_double(loss_fn), noise=noise, tau=tau)[0]

        def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
            with Widened():
                return inner(params, x, y)

        value = loss({name: value.double() for name, value in params.items()}, x, y)
    except Exception:  # what a module's own code raises where it asserts a dtype
        return None
    return loss if value.dtype == torch.float64 else None


def _on(loss: BatchLoss, x: Tensor, y: Tensor) -> ParamLoss:
    return lambda params: loss(params, x, y)


def _check_kernels(operator: NetworkHessian, x: Tensor, y: Tensor, exact: Tensor) -> float:
    """Return the error of the kernels' product on a few samples; raise where it is large."""
    few = operator.first_piece(x, y)
    direction = random_signs(torch.cat([value.reshape(-1) for value in operator.params.values()]))
    product = few.products(direction.unsqueeze(0))[0]
    gradient = float(few.slopes.norm())
    error = float((product - exact).norm())
    allowed = DTYPE_RTOL * float(exact.norm()) + 1e3 * torch.finfo(operator.dtype).eps * gradient
    if error > allowed:
        raise NotDifferentiableError(
            f"H v by the {operator.method} differs from automatic differentiation by {error:.2g} of "
            f"{float(exact.norm()):.2g}; please report this, and use backend='reference' meanwhile"
        )
    return error / (float(exact.norm()) or 1.0)


def _row(check: str, error: float, allowed: float, what: str) -> dict[str, object]:
    return {"check": check, "error": error, "allowed": allowed, "what": what}
