"""The losses of torch that a probe knows: what their mean divides by, and the targets that they take.

``reduction="mean"`` divides by what a batch weighs: the class weights of its labels, without those
that are ignored, or the number of its elements. So the mean over all batches is
``Σ_b W_b L_b / Σ_b W_b``, which for any other loss is only right where W_b is the number of samples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian.operators.batches import Batch, describe_nonfinite

_OVER_CLASSES: Final = (functional.cross_entropy, functional.nll_loss)
_ELEMENTWISE: Final = (
    functional.mse_loss,
    functional.l1_loss,
    functional.smooth_l1_loss,
    functional.huber_loss,
    functional.binary_cross_entropy,
    functional.binary_cross_entropy_with_logits,
    functional.kl_div,
    functional.poisson_nll_loss,
    functional.gaussian_nll_loss,
    functional.soft_margin_loss,
    functional.hinge_embedding_loss,
)
_FUNCTIONS: Final[dict[type[nn.Module], Any]] = {
    nn.CrossEntropyLoss: functional.cross_entropy,
    nn.NLLLoss: functional.nll_loss,
    nn.MSELoss: functional.mse_loss,
    nn.L1Loss: functional.l1_loss,
    nn.SmoothL1Loss: functional.smooth_l1_loss,
    nn.HuberLoss: functional.huber_loss,
    nn.BCELoss: functional.binary_cross_entropy,
    nn.BCEWithLogitsLoss: functional.binary_cross_entropy_with_logits,
    nn.KLDivLoss: functional.kl_div,
    nn.PoissonNLLLoss: functional.poisson_nll_loss,
    nn.SoftMarginLoss: functional.soft_margin_loss,
    nn.HingeEmbeddingLoss: functional.hinge_embedding_loss,
}
_IGNORED: Final = -100
"""torch's default of ``ignore_index``."""


@dataclass(frozen=True)
class KnownLoss:
    """A loss of torch as one of its functions, and the options that its mean depends on.

    Attributes:
        function: of ``torch.nn.functional``.
        reduction: as torch has it.
        weight: of every class [n_classes]; None for equal ones.
        ignore_index: the label that does not count.
    """

    function: Any
    reduction: str = "mean"
    weight: Tensor | None = None
    ignore_index: int = _IGNORED

    @property
    def over_classes(self) -> bool:
        """Whether the second dimension of outputs is one of classes, and targets are labels of them."""
        return self.function in _OVER_CLASSES

    def weight_of(self, y: Tensor) -> float:
        """Return what the mean over a batch divides by, from its targets alone.

        Shares of classes are as many elements as there are classes for each label: what counts is
        that batches weigh in the right proportion.
        """
        if not self.over_classes or y.is_floating_point():
            by_batch = self.function is functional.kl_div and self.reduction == "batchmean"
            return float(len(y) if by_batch else y.numel())
        labels = y.long()
        counted = labels[labels != self.ignore_index]
        if self.weight is None:
            return float(counted.numel())
        return float(self.weight.double().to(y.device)[counted].sum())


def recognise(loss_fn: Any) -> KnownLoss | None:
    """Return a loss of torch, its module or a partial of its function; None for any other."""
    if isinstance(loss_fn, functools.partial):
        if loss_fn.args or loss_fn.func not in (*_OVER_CLASSES, *_ELEMENTWISE):
            return None
        return _from_options(loss_fn.func, loss_fn.keywords)
    if isinstance(loss_fn, nn.Module):
        function = next(
            (
                function
                for kind, function in _FUNCTIONS.items()
                if isinstance(loss_fn, kind) and type(loss_fn).forward is kind.forward
            ),
            None,
        )
        if function is None or _is_changed(loss_fn):
            return None
        return _from_options(function, {**vars(loss_fn), **dict(loss_fn.named_buffers())})
    try:
        known = loss_fn in (*_OVER_CLASSES, *_ELEMENTWISE)
    except (TypeError, ValueError, RuntimeError):  # an object with an equality of its own
        known = False
    return KnownLoss(loss_fn) if known else None


def _is_changed(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _from_options(function: Any, options: Mapping[str, Any]) -> KnownLoss | None:
    if options.get("size_average") is not None or options.get("reduce") is not None:
        return None
    weight = options.get("weight")
    allowed = ("weight",) if function in _OVER_CLASSES else ("pos_weight",)
    for name, value in options.items():
        if isinstance(value, Tensor) and value.ndim and name not in allowed:
            return None  # a weight for every element of one batch
    return KnownLoss(
        function,
        reduction=options.get("reduction", "mean"),
        weight=weight if function in _OVER_CLASSES else None,
        ignore_index=options.get("ignore_index", _IGNORED),
    )


def is_known(loss_fn: Any) -> bool:
    """Return whether a loss is one of torch's: differentiable, and without random numbers."""
    if isinstance(loss_fn, nn.Module) and type(loss_fn).__module__ == "torch.nn.modules.loss":
        return not _is_changed(loss_fn)
    return recognise(loss_fn) is not None


def strict(loss_fn: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss that refuses targets which torch would broadcast against the outputs."""
    known = recognise(loss_fn)
    if known is None or known.over_classes:
        return loss_fn

    def with_equal_shapes(output: Tensor, y: Tensor) -> Tensor:
        if isinstance(output, Tensor):
            check_shapes(loss_fn, output.shape, y.shape)
        return loss_fn(output, y)

    return with_equal_shapes


def check_shapes(loss_fn: Any, outputs: Sequence[int], targets: Sequence[int]) -> None:
    """Raise where a loss of torch by elements meets targets of another shape than the outputs."""
    known = recognise(loss_fn)
    if known is None or known.over_classes or tuple(outputs) == tuple(targets):
        return
    raise InvalidInputError(
        f"{known.function.__name__} needs targets of the outputs' shape; outputs are {tuple(outputs)} "
        f"and targets {tuple(targets)}, which torch would broadcast to another loss: reshape y, or "
        "the module's output"
    )


def weights_of(loss_fn: Any) -> Callable[[Tensor], float]:
    """Return the function from targets to the weight of a batch: samples, where the loss is unknown."""
    known = recognise(loss_fn)
    return (lambda y: float(len(y))) if known is None else known.weight_of


NO_MEAN: Final = (
    "loss_fn must be the mean over samples, and its value changes when every sample is repeated; "
    "use reduction='mean'"
)


def check_targets(loss_fn: Any, batches: Sequence[Batch]) -> None:
    """Raise where a loss of torch is asked for a sum, or its targets are NaN or none of them counts."""
    known = recognise(loss_fn)
    if known is None:
        return
    if known.reduction == "sum":
        raise InvalidInputError(NO_MEAN)
    place = describe_nonfinite([y for _, y in batches])
    if place:
        raise InvalidInputError(f"the targets hold {place}")
    if known.over_classes and not any(known.weight_of(y) for _, y in batches):
        why = f"ignore_index={known.ignore_index}"
        if known.weight is not None:
            why += " or a class of weight zero"
        raise InvalidInputError(f"no label counts in the mean loss: each one is {why}")


def check_labels(loss_fn: Any, batches: Sequence[Batch], n_classes: int) -> None:
    """Raise where a loss over classes meets targets that are no labels in 0..n_classes-1.

    The label that the loss ignores is one too.
    """
    known = recognise(loss_fn)
    if known is None or not known.over_classes:
        return
    for _, y in batches:
        # Floating labels [n, n_classes] are shares of the classes.
        if y.ndim == 1 and y.dtype not in (torch.int64, torch.uint8):
            raise InvalidInputError(f"class labels must be int64, got {y.dtype}; convert: y.long()")
    ends = [
        (int(counted.min()), int(counted.max()))
        for _, y in batches
        if not (y.is_floating_point() or y.dtype == torch.bool)
        for counted in [y.long()[y.long() != known.ignore_index]]
        if counted.numel()
    ]
    if ends:
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        if low < 0 or high >= n_classes:
            raise InvalidInputError(
                f"labels must lie in 0..{n_classes - 1}, got {low}..{high}; the last is out of "
                f"bounds for {n_classes} classes"
            )
    if known.weight is not None and known.weight.shape != (n_classes,):
        raise InvalidInputError(
            f"the loss has class weights of shape {tuple(known.weight.shape)}, and there are "
            f"{n_classes} classes"
        )


def check_network_data(loss_fn: Any, batches: Sequence[Batch], n_features: int) -> None:
    """Raise unless batches are samples [n, n_features] of a logic gate network, labelled as the loss asks."""
    for x, y in batches:
        if x.ndim != 2 or x.shape[1] != n_features or x.is_complex():
            raise InvalidInputError(
                f"expected inputs [batch, {n_features}] of real numbers, got {x.dtype} of shape "
                f"{tuple(x.shape)}"
            )
        shares = y.is_floating_point() and y.ndim == 2
        known = recognise(loss_fn)
        if known is not None and known.over_classes and y.ndim != 1 and not shares:
            raise InvalidInputError(
                "labels must be class numbers [n], or shares of the classes [n, n_classes] in a "
                f"floating dtype, got {y.dtype} of shape {tuple(y.shape)}"
            )
