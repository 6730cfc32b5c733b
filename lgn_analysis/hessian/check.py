"""Whether a probe's products are those of a Hessian: measured, and refused where they are not."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from lgn_analysis.errors import NotDifferentiableError
from lgn_analysis.hessian.losses import ModuleLoss, batch_losses, in_double_values
from lgn_analysis.hessian.module_hessian import METHODS, ModuleHessian
from lgn_analysis.hessian.network_hessian import NetworkHessian
from lgn_analysis.hessian.operators import ParameterOperator, ParamLoss
from lgn_analysis.hessian.smoothing import GumbelNoise
from lgn_analysis.hessian.verification import (
    DTYPE_RTOL,
    LOWERED_RTOL,
    RTOL,
    check_lowered,
    check_products,
    random_signs,
)


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
    loss: ModuleLoss,
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
    kind = type(loss.module).__name__
    method = operator.method if isinstance(operator, ModuleHessian) else "double-backward"
    products = METHODS[method]

    def first_loss(of: ModuleLoss, x: Tensor, y: Tensor) -> ParamLoss:
        first = batch_losses(of, noise=noise, tau=tau, live=method == "live")[0]
        return lambda params: first(params, x, y)

    native, params = first_loss(loss, x, y), operator.params
    what = f"H v of {len(y)} samples by {method}"
    exact: ParamLoss | None = native
    at = params
    if operator.dtype != torch.float64:
        at = {name: value.double() for name, value in params.items()}
        in_64 = [in_double_values(part) for part in (x, y)]
        wide = loss.in_double(at, *in_64)
        exact = None if wide is None else first_loss(wide, *in_64)
    if exact is None:
        _, error = check_products(native, params, products, kind=kind, lowered=True)
        return [_row("finite differences", error, LOWERED_RTOL, f"{what}, {operator.dtype}")]
    blocks, error = check_products(exact, at, products, kind=kind, lowered=False)
    rows = [_row("finite differences", error, RTOL, f"{what}, float64")]
    if operator.dtype != torch.float64:
        error = check_lowered(native, params, products, blocks, kind=kind)
        rows.append(_row("dtype", error, DTYPE_RTOL, f"{what}, {operator.dtype} against float64"))
    if isinstance(operator, NetworkHessian):
        error = _check_kernels(operator, x, y, torch.cat(list(blocks.values())))
        rows.append(
            _row("kernels", error, DTYPE_RTOL, f"H v of {len(y)} samples by {operator.method}")
        )
    return rows


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
