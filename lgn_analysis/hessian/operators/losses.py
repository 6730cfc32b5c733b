"""The losses that a probe differentiates, as functions of parameters."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lgn_analysis.base.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.base.validation import shown
from lgn_analysis.hessian.operators.forward_context import (
    Widened,
    differentiable_forward,
    widened,
)
from lgn_analysis.hessian.operators.known_losses import recognise, strict
from lgn_analysis.hessian.operators.linear import BatchLoss, LossFn, Params
from lgn_analysis.hessian.operators.plain_call import TURN, LiveLoss
from lgn_analysis.hessian.operators.smoothing import GumbelNoise, perturbed_logits
from lgn_analysis.network import LogicNetwork


def check_loss(loss_fn: object) -> None:
    """Raise unless a loss can be called."""
    if not callable(loss_fn):
        raise InvalidInputError(
            f"loss_fn must be a function of (output, y), got {shown(loss_fn)}; for instance "
            "torch.nn.functional.cross_entropy"
        )


def as_mean(value: object) -> Tensor:
    """Return what a loss returned, or raise where it is no mean over a batch."""
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
    return value


class ModuleLoss:
    """The loss of a module over batches, as it is called at this moment.

    Parameters, buffers and training flags are those of now: what happens to the module later does not
    reach it. A LogicNetwork is called in soft mode.

    Args:
        module: the user's own.
        loss_fn: ``loss_fn(output, y)``.
        copies: whether to call it on copies of x, y and buffers, since it writes to them.
        widens: whether to compute in float64 what module and loss ask for in less.
    """

    def __init__(
        self, module: nn.Module, loss_fn: LossFn, *, copies: bool = True, widens: bool = False
    ) -> None:
        self.module = module
        self.loss_fn = loss_fn
        self._strict = strict(loss_fn)
        self.copies = copies
        with TURN:  # not while another probe's values stand in the module
            self.frozen = {name: p.detach().clone() for name, p in module.named_parameters()}
            self._buffers = {name: value.detach().clone() for name, value in module.named_buffers()}
            self._training = [part.training for part in module.modules()]
            self._callee = _callee_for(module)
        self._device = next(iter(self.frozen.values())).device
        self._widens = widens
        self._mode = {"mode": "soft"} if isinstance(module, LogicNetwork) else {}

    def live(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a batch by a plain call of the module; see :class:`LiveLoss`."""
        return self.live_loss(x, y)(params)

    def live_loss(self, x: Tensor, y: Tensor) -> LiveLoss:
        """Return the loss of a batch by plain calls of the module."""
        return self._live(lambda: self._call(x, y))

    def functional(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a batch with ``params`` handed to the module for its own."""
        buffers = self._buffers
        if self.copies or any(self._training):  # batch normalisation writes its running statistics
            buffers = {name: value.clone() for name, value in buffers.items()}
        with TURN, differentiable_forward(), self._in_its_modes(self._callee):
            values = {**self.frozen, **buffers, **params}
            output = functional_call(self._callee, values, (self._given(x),), self._mode)
            return as_mean(self._strict(output, self._given(y)))

    def writes(self, x: Tensor, y: Tensor) -> bool:
        """Return whether a call changes x, y or the module's buffers in place.

        Raises:
            NotDifferentiableError: it changes the module's parameters.
        """
        given = [self._given(part).clone() for part in (x, y)]
        before = [part.clone() for part in given]
        touched = [False]

        def call() -> Tensor:
            parts = [*given, *self.module.buffers()]
            versions = [part._version for part in parts]
            value = self._call(*given, as_they_are=True)
            touched[0] = [part._version for part in parts] != versions
            for name, parameter in self.module.named_parameters():
                if not torch.equal(parameter, self.frozen[name]):
                    raise NotDifferentiableError(
                        f"{type(self.module).__name__} changes its parameter {name} when it is called "
                        "(max_norm of an embedding?), so its loss is no function of fixed parameters"
                    )
            return value

        self._live(call).value({})
        return touched[0] or not all(map(torch.equal, given, before))

    def in_double(self, params: Params, x: Tensor, y: Tensor) -> ModuleLoss | None:
        """Return the loss of a copy of the module in float64; None where it has none.

        Modules may insist on another dtype, and a loss may read the parameters of the module itself.

        Args:
            params: where the loss is tried, in float64.
            x: inputs to try it on, in float64.
            y: their targets.
        """
        try:
            with TURN:
                module = _copy_of(self.module)
            values = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            for name, value in {**self.frozen, **self._buffers}.items():
                values[name].data.copy_(value)
            module.double()
            wide = ModuleLoss(module, self.loss_fn, copies=self.copies, widens=True)
            wide._training = self._training
            value = wide.live_loss(x, y).value(params)
            probed = {name: self.frozen[name] for name in params}
            _, reached = self._live(lambda: wide._call(x, y)).value_and_gradients(probed)
        except Exception:  # whatever a module raises in another dtype
            return None
        if value.dtype != torch.float64 or any(gradient is not None for gradient in reached):
            return None
        return wide

    def output(self, x: Tensor) -> Any:
        """Return what the module gives for x, by a plain call."""
        kept: list[Any] = []

        def call() -> Tensor:
            with self._in_its_modes(self.module):
                kept.append(self.module(self._given(x), **self._mode))
            return torch.zeros(())

        self._live(call).value({})
        return kept[0]

    def _live(self, call: Callable[[], Tensor]) -> LiveLoss:
        return LiveLoss(self.module, call, {**self.frozen, **self._buffers})

    def _call(self, x: Tensor, y: Tensor, *, as_they_are: bool = False) -> Tensor:
        """Return the loss of a batch by a plain call of the module, with its graph."""
        x, y = (part if as_they_are else self._given(part) for part in (x, y))
        with self._in_its_modes(self.module):
            return as_mean(self._strict(self.module(x, **self._mode), y))

    def _given(self, part: Tensor) -> Tensor:
        """Return x or y as the module gets it: a forward may ask it to require gradients."""
        given = part.detach().to(self._device)
        if self.copies:
            given = given.clone()
        return given.requires_grad_() if part.requires_grad else given

    @contextmanager
    def _in_its_modes(self, module: nn.Module) -> Iterator[None]:
        """Call a module's parts in the training flags that they had, in float64 if this is a copy in it.

        The tensors that they hold are kept: pruning and old weight norms set a weight anew at each call,
        from parameters that moved.
        """
        held = [
            (vars(part), {name: v for name, v in vars(part).items() if isinstance(v, Tensor)})
            for part in module.modules()
        ]
        parts = list(zip(module.modules(), self._training, strict=True))
        changed = [(part, part.training) for part, flag in parts if part.training != flag]
        try:
            for part, flag in parts:
                if part.training != flag:
                    part.training = flag
            with Widened() if self._widens else nullcontext():
                yield
        finally:
            for part, flag in changed:
                part.training = flag
            for own, values in held:
                own.update(values)


def _copy_of(model: nn.Module) -> nn.Module:
    """Return a copy of a module, also where a hook such as weight norm's left a graph in an attribute."""
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for part in model.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, memo)


def _callee_for(module: nn.Module) -> nn.Module:
    """Return the module that takes other values of the parameters.

    Other threads may call a network while a probe computes, so a copy of it does, but for one that
    cannot be copied, since it holds tensors that were computed (pruned logits, say).
    """
    if not isinstance(module, LogicNetwork):
        return module
    try:
        return copy.deepcopy(module)
    except RuntimeError:
        return module


def batch_losses(
    loss: ModuleLoss, *, noise: GumbelNoise | None, tau: float | None, live: bool = False
) -> list[BatchLoss]:
    """Return the losses of which a probe's is the mean: one, or one for each draw of the noise."""
    if live:
        return [loss.live]
    network = loss.module
    if not isinstance(network, LogicNetwork):
        return [loss.functional]

    def under(draw: int | None) -> BatchLoss:
        # All logits are perturbed, whichever of them are probed.
        return lambda params, x, y: loss.functional(
            perturbed_logits({**loss.frozen, **params}, network, noise, draw, tau=tau), x, y
        )

    return [under(draw) for draw in (range(noise.draws) if noise else (None,))]


def in_double(loss_fn: Any) -> Any:
    """Return a loss that takes outputs in float64, whatever tensors it holds itself."""
    if recognise(loss_fn) is None:

        def with_wide_tensors(output: Tensor, y: Tensor) -> Any:
            with Widened():
                return loss_fn(output, y)

        return with_wide_tensors
    if isinstance(loss_fn, nn.Module):
        return copy.deepcopy(loss_fn).double()
    if isinstance(loss_fn, functools.partial):
        keywords = {name: widened(value) for name, value in loss_fn.keywords.items()}
        return functools.partial(loss_fn.func, **keywords)
    return loss_fn


def in_double_values(part: Tensor) -> Tensor:
    """Return inputs or targets in float64, labels and bits as they are."""
    wide: Tensor = widened(part)
    return wide


def reads_parameters(model: LogicNetwork, loss_fn: LossFn, outputs: Tensor, y: Tensor) -> bool:
    """Return whether a loss depends on a network's logits by another way than its outputs."""

    def call() -> Tensor:
        return as_mean(loss_fn(outputs.detach(), y))

    logits = {name: value.detach() for name, value in model.named_parameters()}
    _, gradients = LiveLoss(model, call, {}).value_and_gradients(logits)
    return any(gradient is not None for gradient in gradients)


def refuse_hidden_parameters(
    model: LogicNetwork, loss_fn: LossFn, outputs: Tensor, y: Tensor, *, what: str
) -> None:
    """Raise where a loss is one of more than outputs and targets, though ``what`` asks for that."""
    if recognise(loss_fn) is None and reads_parameters(model, loss_fn, outputs, y):
        raise InvalidInputError(
            f"loss_fn reads the network's parameters beside its outputs (a penalty?), and {what} "
            "takes a loss of (output, y) alone; leave that term out"
        )
