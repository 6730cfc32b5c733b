"""A whole network's training forward as one node of autograd, whose passes a backend gives.

The first derivative is the backend's. Those after it are the reference's where the relaxation is soft,
and refused where it is hard: a straight-through gradient is the gradient of no function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from lgn_analysis.base.errors import NotDifferentiableError
from lgn_analysis.gates.noise import NoiseKey
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.interface import NetworkSpec


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
        name: of the backend.
        forward: ``(network, key, x, logits, tape)`` to class logits [batch, n_groups]; it writes to the
            tape, which is None where no gradient will be taken.
        backward: ``(network, key, x, logits, tape, grad, inputs_too)`` to the gradient of x
            [batch, n_features], None unless ``inputs_too``, and those of the logits.
    """

    name: str
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
    tape = Tape() if keeps else None
    result: Tensor = _TrainingForward.apply(passes, network, key, tape, x, *logits)
    return result


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


class _TrainingForward(torch.autograd.Function):
    @staticmethod
    def forward(
        passes: Passes,
        network: NetworkSpec,
        key: NoiseKey | None,
        tape: Tape | None,
        x: Tensor,
        *logits: Tensor,
    ) -> Tensor:
        return passes.forward(network, key, x, logits, tape)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.passes, ctx.network, ctx.key, tape, *tensors = inputs
        if tape is not None:
            ctx.memory = tape.memory
            ctx.save_for_backward(*tensors, *tape.tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        n_inputs = 1 + len(ctx.network.wirings)
        x, *logits = ctx.saved_tensors[:n_inputs]
        if torch.is_grad_enabled() and not ctx.network.relaxation.hard:
            # create_graph=True: the gradient is to be differentiated again.
            forward = _reference_forward(ctx.network, ctx.key)
            gradients = reference_gradient(forward, (x, *logits), grads[0])
        else:
            tape = Tape([*ctx.saved_tensors[n_inputs:]], ctx.memory)
            gradients = _TrainingBackward.apply(
                ctx.passes,
                ctx.network,
                ctx.key,
                tape,
                bool(ctx.needs_input_grad[4]),
                grads[0],
                x,
                *logits,
            )
        return None, None, None, None, *gradients

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotDifferentiableError(
            f"the training forward of the {ctx.passes.name} kernels has no forward-mode derivative; use "
            'backward(), soft mode (model(x, mode="soft")), or a model made with backend="reference"'
        )

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Any,
        passes: Passes,
        network: NetworkSpec,
        key: NoiseKey | None,
        tape: Any,
        *inputs: Any,
    ) -> Any:
        # One network at a time is what the kernels are for; many together the reference can do.
        return torch.vmap(_reference_forward(network, key), in_dims=tuple(in_dims[4:]))(*inputs), 0


class _TrainingBackward(torch.autograd.Function):
    """The gradient, whose own derivative is refused."""

    @staticmethod
    def forward(
        passes: Passes,
        network: NetworkSpec,
        key: NoiseKey | None,
        tape: Tape,
        inputs_too: bool,
        grad: Tensor,
        x: Tensor,
        *logits: Tensor,
    ) -> tuple[Tensor | None, ...]:
        of_x, of_logits = passes.backward(network, key, x, logits, tape, grad, inputs_too)
        return of_x, *of_logits

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotDifferentiableError(_NO_SECOND_DERIVATIVE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotDifferentiableError(_NO_SECOND_DERIVATIVE)


def _reference_forward(network: NetworkSpec, key: NoiseKey | None) -> Callable[..., Tensor]:
    return lambda x, *logits: reference.training_forward(network, logits, x, key)


_NO_SECOND_DERIVATIVE: Final = (
    "a straight-through gradient is the gradient of no function, so it has no derivative and no "
    'Hessian; differentiate the network in soft mode instead: model(x, mode="soft")'
)
