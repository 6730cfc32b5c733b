"""A module's loss by a plain call of the module, as a function of parameters.

``functional_call`` hands other tensors to the names of a module's parameters. It cannot reach a
parameter that the loss or the module holds by a second reference, nor what a backward calls again,
nor scripted modules. Here the module's own parameters take the values, are differentiated with respect
to, and get their own values back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from lgn_analysis.base.errors import NotDifferentiableError
from lgn_analysis.hessian.operators.forward_context import differentiable_forward
from lgn_analysis.hessian.operators.linear import Params

T = TypeVar("T")

TURN: Final = threading.RLock()
"""A module that holds a probe's parameters: one thread at a time may have it so."""


class LiveLoss:
    """The loss of one batch, ``call()`` on the module itself, at any values of its parameters.

    Called with parameters it returns a value that can be differentiated twice. Each derivative calls
    the module again: a graph that outlived a call would hang on parameters that have changed since.

    Args:
        module: whose parameters take other values while it is called.
        call: calls it and returns the loss, a tensor with one number.
        others: values of the parameters, and of the buffers, that are not given.
    """

    def __init__(self, module: nn.Module, call: Callable[[], Tensor], others: Params) -> None:
        self._module = module
        self._call = call
        self._others = others

    def __call__(self, params: Params) -> Tensor:
        value: Tensor = _Value.apply(self, tuple(params), *params.values())
        return value

    def value_and_gradients(self, params: Params) -> tuple[Tensor, list[Tensor | None]]:
        """Return the loss and its gradients, None for a parameter that it does not reach."""
        with self._holding(params) as leaves:
            value = self._call()
            gradients: Sequence[Tensor | None] = [None] * len(leaves)
            if value.requires_grad:
                gradients = torch.autograd.grad(value, leaves, allow_unused=True)
        return value.detach(), list(gradients)

    def value(self, params: Params) -> Tensor:
        """Return the loss."""
        with self._holding(params):
            return self._call().detach()

    def inspect(self, params: Params, read: Callable[[Tensor], T]) -> T:
        """Return ``read(value)`` of the loss with its graph."""
        with self._holding(params):
            return read(self._call())

    def gradient_and_product(
        self, params: Params, direction: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return ∇L and H v by parameters."""
        with self._holding(params) as leaves:
            value = self._call()
            nothing = [torch.zeros_like(leaf) for leaf in leaves]
            if not value.requires_grad:
                return nothing, nothing
            gradient = torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)
            reached = [part for part in gradient if part.requires_grad]
            if not reached:
                return [part.detach() for part in gradient], nothing
            along = [v for part, v in zip(gradient, direction, strict=True) if part.requires_grad]
            product = torch.autograd.grad(reached, leaves, along, materialize_grads=True)
            return [part.detach() for part in gradient], list(product)

    @contextmanager
    def _holding(self, params: Params) -> Iterator[list[Tensor]]:
        """Give the module all values, yield its own parameters of those names, and put all back."""
        # Checkpointed activations are computed again in a backward: it stands in the same context.
        with TURN, torch.inference_mode(False), torch.enable_grad(), differentiable_forward():
            held = {**dict(self._module.named_parameters()), **dict(self._module.named_buffers())}
            values = {**self._others, **params}
            leaves = [held[name] for name in params]
            before = {name: held[name].detach().clone() for name in values}
            needed = [leaf.requires_grad for leaf in leaves]
            hooks = [leaf._backward_hooks for leaf in leaves]
            try:
                for name, value in values.items():
                    _write(held[name], value)
                for name, value in values.items():
                    if not _same(held[name], value):
                        raise NotDifferentiableError(
                            f"{type(self._module).__name__}.{name} shares its memory with another "
                            "parameter, so the two cannot move apart; clone one, or make them one "
                            "parameter"
                        )
                for leaf in leaves:
                    leaf.requires_grad_()
                    leaf._backward_hooks = None  # a hook changes gradients, and not the loss
                yield leaves
            finally:
                for leaf, flag, hook in zip(leaves, needed, hooks, strict=True):
                    leaf._backward_hooks = hook
                    leaf.requires_grad_(flag)
                for name, value in before.items():
                    _write(held[name], value)
                _put_back_buffers(self._module, held)


def _put_back_buffers(module: nn.Module, held: Params) -> None:
    """Register a module's own buffers again where its forward registered others."""
    for name, value in module.named_buffers():
        if name in held and value is not held[name]:
            owner, _, last = name.rpartition(".")
            setattr(module.get_submodule(owner), last, held[name])


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _write(to: Tensor, value: Tensor) -> None:
    # ``data``: a graph that the caller keeps of an earlier call must not see a change.
    if not _same(to.data, value.detach()):
        to.data.copy_(value.detach())


class _Value(torch.autograd.Function):
    """The loss; its backward is :class:`_Gradient`, which can be differentiated once more."""

    @staticmethod
    def forward(ctx: Any, live: LiveLoss, names: tuple[str, ...], *values: Tensor) -> Tensor:
        ctx.live, ctx.names = live, names
        ctx.save_for_backward(*values)
        return live.value(dict(zip(names, values, strict=True)))

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:
        gradient = _Gradient.apply(ctx.live, ctx.names, scale, *ctx.saved_tensors)
        return None, None, *gradient


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, live: LiveLoss, names: tuple[str, ...], scale: Tensor, *values: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.live, ctx.names = live, names
        ctx.save_for_backward(scale, *values)
        _, gradients = live.value_and_gradients(dict(zip(names, values, strict=True)))
        return tuple(
            torch.zeros_like(value) if gradient is None else scale * gradient.to_dense()
            for value, gradient in zip(values, gradients, strict=True)
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *direction: Tensor) -> Any:
        scale, *values = ctx.saved_tensors
        params = dict(zip(ctx.names, values, strict=True))
        gradient, product = ctx.live.gradient_and_product(params, direction)
        along = sum((g * v).sum() for g, v in zip(gradient, direction, strict=True))
        return None, None, along, *(scale * part for part in product)
