"""Whether a probe's products are those of a Hessian: measured, and refused where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pandas as pd
import torch
from torch import Tensor

from lgn_analysis.base.errors import NotDifferentiableError
from lgn_analysis.hessian.checks.differences import flat, product, random_signs
from lgn_analysis.hessian.checks.verification import (
    DTYPE_RTOL,
    Evidence,
    check_lowered,
    check_products,
)
from lgn_analysis.hessian.operators.batches import Batch
from lgn_analysis.hessian.operators.linear import ParameterOperator, ParamLoss, Params
from lgn_analysis.hessian.operators.losses import ModuleLoss, batch_losses, in_double_values
from lgn_analysis.hessian.operators.module import ModuleHessian, value_and_gradient
from lgn_analysis.hessian.operators.network import NetworkHessian
from lgn_analysis.hessian.operators.smoothing import GumbelNoise
from lgn_analysis.hessian.results.table import Tabular

_FEWER: Final = 2
"""Samples that have fewer kinks."""


@dataclass(frozen=True)
class CheckReport(Tabular):
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
    # A module in float64 may round to float32 inside; a logic gate network's kernels do not.
    dtypes = (
        {operator.dtype}
        if isinstance(operator, NetworkHessian)
        else {operator.dtype, torch.float32}
    )
    roundings = sorted(1e3 * torch.finfo(dtype).eps for dtype in dtypes)
    allowed = next((rounding for rounding in roundings if skew <= rounding), None)
    if allowed is None:
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
    method = operator.method if isinstance(operator, ModuleHessian) else "double-backward"
    params = operator.params

    def first_loss(of: ModuleLoss, x: Tensor, y: Tensor) -> ParamLoss:
        if method == "live":
            return of.live_loss(x, y)
        first = batch_losses(of, noise=noise, tau=tau)[0]
        return lambda params: first(params, x, y)

    refusal: NotDifferentiableError | None = None
    found: Evidence | None = None
    for of, at, pair in _in_double(loss, params, x, y):
        exact = first_loss(of, *pair)
        few = first_loss(of, *(part[:_FEWER] for part in pair))
        try:
            found = check_products(exact, at, method, model=of.module, fewer=_if_it_runs(few, at))
        except NotDifferentiableError as reason:
            refusal = reason
        except Exception:  # whatever a copy raises, as one of a compiled module may
            if of is loss:
                raise
            continue
        if found is not None or of is not loss:
            break
    if found is None:
        assert refusal is not None
        raise refusal
    dtype, what = next(iter(at.values())).dtype, f"H v of {len(y)} samples by {method}"
    rows = [
        _row("finite differences", found.error, found.allowed, f"{what}, {dtype}, {found.what}")
    ]
    if of is not loss:
        kind = type(loss.module).__name__
        found = check_lowered(first_loss(loss, x, y), exact, params, method, kind=kind)
        rows.append(_row("dtype", found.error, found.allowed, f"{what}, {found.what}"))
    if isinstance(operator, NetworkHessian) and dtype == torch.float64:
        error = _check_kernels(operator, x, y, product(exact, at, method))
        rows.append(
            _row("kernels", error, DTYPE_RTOL, f"H v of {len(y)} samples by {operator.method}")
        )
    return rows


def _in_double(
    loss: ModuleLoss, params: Params, x: Tensor, y: Tensor
) -> Iterator[tuple[ModuleLoss, Params, Batch]]:
    """Yield a loss in float64, where and on what; then the next best, where that one does not run.

    Where the loss itself is in float64, the second is a copy without narrower dtypes inside, whose
    rounding spoils differences.
    """
    is_double = next(iter(params.values())).dtype == torch.float64
    if is_double:
        yield loss, params, (x, y)
    wide_params = {name: value.double() for name, value in params.items()}
    wide_pair = in_double_values(x), in_double_values(y)
    wide = loss.in_double(wide_params, *wide_pair)
    if wide is not None:
        yield wide, wide_params, wide_pair
    if not is_double:
        yield loss, params, (x, y)


def _if_it_runs(loss: ParamLoss, params: Params) -> ParamLoss | None:
    try:
        value_and_gradient(loss, params)
    except Exception:  # whatever a module raises that knows the size of its batches
        return None
    return loss


def _check_kernels(operator: NetworkHessian, x: Tensor, y: Tensor, exact: Tensor) -> float:
    """Return the error of the kernels' product on a few samples; raise where it is large."""
    few = operator.first_piece(x, y)
    direction = random_signs(flat(operator.params))
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
