"""A whole network's training forward as one node of autograd, whose passes a backend gives.

The first derivative is the backend's. Those after it are the reference's where the relaxation is soft,
and refused where it is hard: a straight-through gradient is the gradient of no function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lgn_analysis.base.errors import NotDifferentiableError
from lgn_analysis.gates.noise import NoiseKey
from lgn_analysis.gates.relaxations import GradientFunction
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.interface import NetworkSpec, is_transformed


@dataclass
class Tape:
    """What a backward pass needs of its forward pass.

    Attributes:
        tensors: what autograd keeps, and frees when the gradient has been taken.
        memory: what else the backend keeps for as long as the graph lives.
    """

    tensors: list[Tensor] = field(default_factory=list)
    memory: Any = None


class Passes(NamedTuple):
    """A backend's training forward and its gradient.

    Attributes:
        forward: ``(network, key, x, logits, tape)`` to class logits [batch, n_groups]; it writes to the
            tape, which is None where no gradient will be taken.
        backward: ``(network, key, x, logits, tape, grad, inputs_too)`` to the gradient of x
            [batch, n_features], None unless ``inputs_too``, and those of the logits.
    """

    forward: Callable[..., Tensor]
    backward: Callable[..., tuple[Tensor | None, Sequence[Tensor]]]


def differentiable_forward(
    passes: Passes, network: NetworkSpec, logits: Sequence[Tensor], x: Tensor, key: NoiseKey | None
) -> Tensor:
    """Return class logits [batch, n_groups] of the training forward; see :class:`NetworkBackend`.

    Raises:
        NotDifferentiableError: where a derivative is requested that does not exist, or not here: a
            second one of a straight-through gradient, or one in forward mode.
    """
    keeps = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *logits))
    call = _Call(passes, network, key, Tape() if keeps else None)
    result: Tensor = _TrainingForward.apply(call, x, *logits)
    return result


@dataclass
class _Call:
    """What a training forward is given beside tensors. One object: torch binds arguments one by one."""

    passes: Passes
    network: NetworkSpec
    key: NoiseKey | None
    tape: Tape | None

    def reference(self, x: Tensor, *logits: Tensor) -> Tensor:
        """Return what the reference computes."""
        return reference.training_forward(self.network, logits, x, self.key)


def reference_gradient(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradients of a function of plain PyTorch, differentiable again; None of integers."""
    floats = [place for place, value in enumerate(inputs) if value.is_floating_point()]

    def of_floats(*values: Tensor) -> Tensor:
        given = dict(zip(floats, values, strict=True))
        return function(*(given.get(place, value) for place, value in enumerate(inputs)))

    found = torch.func.vjp(of_floats, *(inputs[place] for place in floats))[1](grad)
    gradients: dict[int, Tensor] = dict(zip(floats, found, strict=True))
    return tuple(gradients.get(place) for place in range(len(inputs)))


class _Function(torch.autograd.Function):
    """A function whose arguments are all positional: torch takes 50 µs a call to find that out."""

    @classmethod
    def apply(cls, *inputs: Any) -> Any:
        if is_transformed():
            return super().apply(*inputs)
        inputs = torch._functorch.utils.unwrap_dead_wrappers(inputs)
        return super(torch.autograd.Function, cls).apply(*inputs)  # type: ignore[misc]


class _TrainingForward(_Function):
    @staticmethod
    def forward(call: _Call, x: Tensor, *logits: Tensor) -> Tensor:
        return call.passes.forward(call.network, call.key, x, logits, call.tape)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        call, *tensors = inputs
        if call.tape is not None:
            ctx.save_for_backward(*tensors, *call.tape.tensors)
            # A tape without them: autograd is to free them when the gradient has been taken.
            ctx.call = _Call(call.passes, call.network, call.key, Tape(memory=call.tape.memory))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        call, n_inputs = ctx.call, 1 + len(ctx.call.network.wirings)
        inputs, kept = ctx.saved_tensors[:n_inputs], ctx.saved_tensors[n_inputs:]
        if torch.is_grad_enabled() and not call.network.relaxation.hard:
            # create_graph=True: the gradient is to be differentiated again.
            gradients = reference_gradient(call.reference, inputs, grads[0])
        else:
            tape, inputs_too = Tape([*kept], call.tape.memory), bool(ctx.needs_input_grad[1])
            gradients = _TrainingBackward.apply((call, tape, inputs_too), grads[0], *inputs)
        return None, *gradients

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotDifferentiableError(
            "the training forward of the fused kernels has no forward-mode derivative; use backward(), "
            'soft mode (model(x, mode="soft")), or a model made with backend="reference"'
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, call: _Call, *inputs: Any) -> Any:
        # One network at a time is what the kernels are for; many together the reference can do.
        return torch.vmap(call.reference, in_dims=tuple(in_dims[1:]))(*inputs), 0


class _TrainingBackward(_Function, GradientFunction):
    """The gradient, whose own derivative is refused."""

    @staticmethod
    def forward(what: Any, grad: Tensor, x: Tensor, *logits: Tensor) -> tuple[Tensor | None, ...]:
        call, tape, inputs_too = what
        of_x, of_logits = call.passes.backward(
            call.network, call.key, x, logits, tape, grad, inputs_too
        )
        return of_x, *of_logits
