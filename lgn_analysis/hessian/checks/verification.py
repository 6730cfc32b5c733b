"""Checks that H v is the Hessian of a loss.

A custom backward that calls raw kernels gives products that are wrong and symmetric all the same.
So symmetry is no check; finite differences are, and what spoils them is told apart: rounding, and kinks
of piecewise operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.utils._pytree import tree_leaves

from lgn_analysis.base.errors import NotDifferentiableError
from lgn_analysis.hessian.checks.differences import (
    CentralDifferences,
    excess_by_name,
    moved_a_little,
    product,
)
from lgn_analysis.hessian.operators.forward_context import OperationMode
from lgn_analysis.hessian.operators.linear import ParamLoss, Params
from lgn_analysis.hessian.operators.module import value_and_gradient
from lgn_analysis.hessian.operators.plain_call import LiveLoss

DTYPE_RTOL: Final = 1e-2
"""Relative error of H v in the module's own dtype against float64, where that dtype is float32."""

_DTYPE_ROUNDINGS: Final = 64
"""The same in a narrower dtype, in units of its rounding."""


@dataclass(frozen=True)
class Evidence:
    """What a check of a product measured.

    Attributes:
        error: relative.
        allowed: what it may be.
        what: what decided.
    """

    error: float
    allowed: float
    what: str


def check_products(
    loss: ParamLoss,
    params: Params,
    method: str,
    *,
    model: nn.Module,
    fewer: ParamLoss | None = None,
) -> Evidence:
    """Return the evidence that the gradient is the loss's, and that H v is the gradient's derivative.

    Central differences along a random v, of the loss against the gradient and of the gradient against
    H v, parameter by parameter; one step that agrees is enough. Where none does, the branches of
    piecewise operations that differ between the ends are counted: without any, the product is wrong.
    With some at every step, a point beside the first decides, since activations may lie on a kink
    exactly, and then fewer samples. With kinks in the way even there, two methods of differentiation
    must agree, and no ``autograd.Function`` of Python's may be in the graph.

    Args:
        loss: of one batch.
        params: where.
        method: the one under test, of :data:`.module.METHODS`.
        model: the module, to say what may be wrong with it.
        fewer: the loss of fewer samples.

    Raises:
        NotDifferentiableError: naming the parameters whose rows of H v disagree, and what was seen.
    """
    beside = moved_a_little(params)
    places = [(loss, params, ""), (loss, beside, ", beside a kink")]
    if fewer is not None:
        places.append((fewer, beside, ", beside a kink, on fewer samples"))
    fixed = _padding_rows(model, params)
    for of, at, where in places:
        trial = CentralDifferences(of, at, method, fixed)
        if trial.agrees:
            what = f"finite differences at step {trial.best.size:.0e}{where}"
            return Evidence(trial.best.scaled, trial.rtol, what)
        kinks = [_count_kinks(of, *trial.ends(step.size)) for step in trial.steps]
        if not all(kinks):
            break
    suspects = _suspects(model, loss, params)
    error = _other_method_error(loss, params, method)
    agree = error is not None and error <= trial.rtol
    if all(kinks) and trial.is_gradient and agree and not suspects:
        what = f"two methods agree; {min(kinks)} kinks in the way of finite differences"
        return Evidence(error or 0.0, trial.rtol, what)
    _complain(type(model).__name__, trial, kinks, suspects, error)


def _padding_rows(model: nn.Module, params: Params) -> dict[str, int]:
    """Return the rows of embeddings in which torch takes the loss for constant, by parameter.

    A weight that has another use beside is not among them.
    """
    uses = [
        (name.rpartition(".")[0], name, value)
        for name, value in model.named_parameters(remove_duplicate=False)
    ]
    parts = dict(model.named_modules(remove_duplicate=False))
    return {
        name: parts[owner].padding_idx
        for owner, name, value in uses
        if name in params
        and isinstance(parts[owner], nn.Embedding | nn.EmbeddingBag)
        and parts[owner].padding_idx is not None
        and sum(value is other for _, _, other in uses) == 1
    }


def _complain(
    kind: str, trial: CentralDifferences, kinks: list[int], suspects: str, error: float | None
) -> NoReturn:
    doubt = ", or kinks between the ends of every difference hide that it is right"
    doubt = doubt if all(kinks) else ""
    for slope in trial.slopes:
        if not slope.agrees:
            raise NotDifferentiableError(
                f"the gradient of {kind} is not the derivative of its loss{doubt}: along one direction it "
                f"says {slope.expected:.4g}, finite differences say {slope.measured:.4g}. "
                + (suspects or "A straight-through estimator or a detached term does this")
                + "; no Hessian belongs to such a gradient"
            )
    seen = ", ".join(
        f"{step.error:.1g} at {step.size:.0e} with {n} kinks between"
        for step, n in zip(trial.steps, kinks, strict=True)
    )
    other = "does not run" if error is None else f"differs by {error:.1g}"
    unknown = "No custom autograd.Function is in its graph, and what does this is not known"
    _refuse(
        kind,
        trial.wrong,
        f"H v is wrong against finite differences of the gradient{doubt} (relative error {seen}; "
        f"another method of differentiation {other}). {suspects or unknown}",
    )


def check_lowered(
    loss: ParamLoss, exact: ParamLoss, params: Params, method: str, *, kind: str
) -> Evidence:
    """Return the error of H v in the module's own dtype against float64; raise where it is large.

    A point beside the given one decides where the two dtypes fall on different sides of a kink there.

    Args:
        loss: in the parameters' dtype.
        exact: the same in float64.
        params: where.
        method: of differentiation.
        kind: what to call the module.
    """
    dtype = next(iter(params.values())).dtype
    rtol = max(DTYPE_RTOL, _DTYPE_ROUNDINGS * torch.finfo(dtype).eps)
    noise = min(1e3 * torch.finfo(dtype).eps, rtol / 8)
    for at, where in ((params, ""), (moved_a_little(params), ", beside a kink")):
        rows = product(loss, at, method)
        expected = product(exact, {name: value.double() for name, value in at.items()}, method)
        length = float(expected.norm())
        size = float(value_and_gradient(loss, at)[1].norm())
        wrong = excess_by_name(params, rows, expected, rtol, 0.1 * rtol * length + noise * size)
        if not any(wrong.values()):
            error = float((rows - expected).norm()) / (length or 1.0)
            return Evidence(error, rtol, f"{dtype} against float64{where}")
    _refuse(
        kind,
        wrong,
        f"H v in {dtype} differs from float64. Its operations lose accuracy, or take "
        "another path in that dtype; probe module.double()",
    )


def _other_method_error(loss: ParamLoss, params: Params, method: str) -> float | None:
    """Return how far the products of two methods are apart, or None where the other does not run."""
    if isinstance(loss, LiveLoss):
        return None
    backward, forward = "double-backward", "forward-over-reverse"
    try:
        one = product(loss, params, method)
        two = product(loss, params, forward if method == backward else backward)
    except Exception:  # whatever a module raises where it is called in another way
        return None
    return float((one - two).norm()) / (float(two.norm()) or 1.0)


def _suspects(model: nn.Module, loss: ParamLoss, params: Params) -> str:
    """Return what in a module is known to have wrong derivatives, or nothing."""
    found = []
    if isinstance(loss, LiveLoss):
        names = loss.inspect(params, _custom_functions)
    else:
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        names = _custom_functions(loss(leaves))
    if names:
        found.append(
            f"Its graph holds the custom autograd.Function {', '.join(names)}: a backward that calls raw "
            "kernels, or detaches, does this; write it with differentiable operations"
        )
    if any(getattr(part, "padding_idx", None) is not None for part in model.modules()):
        found.append(
            "An embedding with padding_idx leaves the gradient of that row out: do so without, or use its "
            "weight nowhere else"
        )
    if any(part.training and "SpectralNorm" in _norms(part) for part in model.modules()):
        found.append(
            "spectral_norm in training mode moves its singular vectors at each call and takes them for "
            "constants: call model.eval()"
        )
    return ". ".join(found)


def _norms(part: nn.Module) -> str:
    """Return the classes of a module and of its hooks."""
    return " ".join(type(item).__name__ for item in (part, *part._forward_pre_hooks.values()))


def _custom_functions(value: Tensor) -> list[str]:
    """Return the names of the ``autograd.Function`` subclasses of Python's in the graph of a value."""
    waiting: list[Any] = [value.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(following for following, _ in node.next_functions)
    custom = (node for node in seen if isinstance(node, BackwardCFunction))
    return sorted({type(node).__name__.removesuffix("Backward") for node in custom})


def _refuse(kind: str, wrong: dict[str, float], reason: str) -> NoReturn:
    bad = [f"{name or 'all together'} ({error:.0%})" for name, error in wrong.items() if error > 0]
    more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
    raise NotDifferentiableError(f"{kind}, in {', '.join(bad[:4])}{more}: {reason}")


Edges = tuple[Tensor, list[Any]]


def _at(*edges: float) -> Callable[..., Edges]:
    return lambda x, *_: (x, list(edges))


def _difference(x: Tensor, y: Tensor) -> Edges:
    return x - y, [0.0]


def _loss_difference(x: Tensor, y: Tensor, reduction: int = 1, edge: float = 1.0) -> Edges:
    return x - y, [-edge, edge]


_EDGES: Final[dict[str, Callable[..., Edges]]] = {
    **dict.fromkeys(("relu", "leaky_relu", "_prelu_kernel", "rrelu_with_noise"), _at(0.0)),
    **dict.fromkeys(("elu", "celu", "abs", "sgn", "sign"), _at(0.0)),
    **dict.fromkeys(("hardswish", "hardsigmoid"), _at(-3.0, 3.0)),
    **dict.fromkeys(("maximum", "minimum", "fmax", "fmin"), _difference),
    **dict.fromkeys(("smooth_l1_loss", "huber_loss"), _loss_difference),
    "softshrink": lambda x, edge=0.5: (x, [-edge, edge]),
    "hardshrink": lambda x, edge=0.5: (x, [-edge, edge]),
    "threshold": lambda x, edge, value: (x, [edge]),
    "hardtanh": lambda x, low=-1.0, high=1.0: (x, [low, high]),
    "clamp": lambda x, low=None, high=None: (x, [low, high]),
    "clamp_min": lambda x, low: (x, [low]),
    "clamp_max": lambda x, high: (x, [high]),
}
"""By name of an operation: the tensor [...] that decides on the branch, and where branches meet."""

_STEPS: Final = ("round", "floor", "ceil", "trunc")


class _Branches(OperationMode):
    """Records the branch of every element of every piecewise operation.

    An operation of the tables above; and any that makes truth values or whole numbers of real ones: a
    comparison, the places of maxima, an order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Tensor] = []

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func.overloadpacket.__name__.rstrip("_")
        real = [a for a in args if isinstance(a, Tensor) and a.is_floating_point()]
        if name in _EDGES and real:
            decides, edges = _EDGES[name](*args)
            self.taken.append(_side(decides.detach(), edges))
        result = func(*args, **kwargs)
        if name in ("amax", "amin"):
            dims = args[1] if len(args) > 1 else kwargs.get("dim", ())
            self.taken.append(args[0] == func(args[0], dims, True))
        elif real and name in ("max", "min") and isinstance(result, Tensor):
            self.taken.append(real[0] == result)
        elif real and name in _STEPS:
            self.taken.append(result.detach().clone())
        elif real:
            self.taken.extend(
                leaf.clone()
                for leaf in tree_leaves(result)
                if isinstance(leaf, Tensor) and not (leaf.is_floating_point() or leaf.is_complex())
            )
        return result


def _side(decides: Tensor, edges: list[Any]) -> Tensor:
    side = torch.zeros(decides.shape, dtype=torch.int8, device=decides.device)
    for edge in edges:
        if edge is not None:  # an element on the edge itself has a branch of its own
            side = side + (decides > edge) + (decides >= edge)
    return side


def _count_kinks(loss: ParamLoss, one: Params, other: Params) -> int:
    """Return how many branches of the loss's piecewise operations differ between two points."""
    first, second = _taken(loss, one), _taken(loss, other)
    changed = abs(len(first) - len(second))
    for a, b in zip(first, second, strict=False):
        changed += int((a != b).sum()) if a.shape == b.shape else max(a.numel(), b.numel())
    return changed


def _taken(loss: ParamLoss, params: Params) -> list[Tensor]:
    with _Branches() as branches:
        loss({name: value.detach().requires_grad_() for name, value in params.items()})
    return branches.taken
