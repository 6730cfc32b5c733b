"""Whether the layers of another project compute what the converted ones do."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.table import gate_coefficients
from lgn_analysis.network import LogicLayer, LogicNetwork
from lgn_analysis.network.layer import scale_gradient

_N_BITS: Final = 64
"""Samples of random bits: a gate misses one of its four rows with probability 4e-8."""
_N_VALUES: Final = 8
_TOLERANCE: Final = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Of the largest value; sums over a few samples and the readers of an input."""


def check_agreement(named: Sequence[tuple[str, nn.Module]], network: LogicNetwork) -> None:
    """Compare each layer and the group sum with those of the converted network.

    Args:
        named: the other project's layers and group sum, with their names.
        network: what they were converted to.

    Raises:
        InvalidInputError: one computes something else, or cannot be run here.
    """
    network.set_backend("reference")
    *layers, (name, group_sum) = named
    for (of_layer, theirs), ours in zip(layers, network.layers, strict=True):
        _compare_bits(of_layer, theirs, ours)
        _compare_values(of_layer, theirs, ours)
    x = _random(_N_BITS, network.width, network).float()
    _require_close(name, "outputs", _run(name, group_sum, x, False), network.group_sum(x))
    network.set_backend(None)


def _compare_bits(name: str, theirs: nn.Module, ours: LogicLayer) -> None:
    bits = (_random(_N_BITS, ours.n_in, ours) < 0.5).float()
    found = _run(name, theirs, bits, False)
    expected = ours(bits, mode="discrete").to(found.dtype)
    if not torch.equal(found, expected):
        raise InvalidInputError(_other(name, "outputs on bits in eval() mode"))


def _compare_values(name: str, theirs: nn.Module, ours: LogicLayer) -> None:
    """Compare the training forward and its gradients in inputs and logits."""
    x = _random(_N_VALUES, ours.n_in, ours).to(ours.logits.dtype)
    cotangent = _random(_N_VALUES, ours.n_out, ours).to(ours.logits.dtype)
    weights = next(theirs.parameters(recurse=False))
    results = [
        _with_gradients(lambda v: _run(name, theirs, v, True), x, weights, cotangent),
        _with_gradients(lambda v: _training_forward(ours, v), x, ours.logits, cotangent),
    ]
    labels = (
        "outputs of the training forward",
        "gradients in the inputs",
        "gradients in the weights",
    )
    for label, found, expected in zip(labels, *results, strict=True):
        _require_close(name, label, found, expected)


def _training_forward(layer: LogicLayer, x: Tensor) -> Tensor:
    """Return the training forward, with the noise that torch's own Gumbel softmax draws at seed 0."""
    relaxation = layer.relaxation
    if not relaxation.noisy:
        return layer.train()(x)
    with _seeded(x):
        weights = functional.gumbel_softmax(layer.logits, relaxation.tau, hard=relaxation.hard)
    c0, c1, c2, c3 = gate_coefficients(weights).unbind(-1)
    a, b = scale_gradient(x, layer.grad_factor)[:, layer.wiring].unbind(1)
    return c0 + c1 * a + c2 * b + c3 * a * b


@contextlib.contextmanager
def _seeded(x: Tensor) -> Iterator[None]:
    """Set torch's generators to seed 0, and back afterwards."""
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(0)
        yield


def _with_gradients(
    call: Callable[[Tensor], Tensor], x: Tensor, z: Tensor, cotangent: Tensor
) -> list[Tensor]:
    was_trained = z.requires_grad
    z.requires_grad_(True)
    try:
        with torch.enable_grad():
            inputs = x.clone().requires_grad_(True)
            outputs = call(inputs)
            gradients = torch.autograd.grad(outputs, [inputs, z], cotangent.to(outputs.dtype))
    finally:
        z.requires_grad_(was_trained)
    return [outputs.detach(), *gradients]


def _run(name: str, module: nn.Module, x: Tensor, training: bool) -> Tensor:
    """Return what a module of another project returns; neither its mode nor a generator is moved."""
    try:
        with (
            _seeded(x),
            torch.set_grad_enabled(training),
            _in_mode(module, training),
            contextlib.redirect_stdout(io.StringIO()),  # difflogic prints while it computes
        ):
            outputs: Tensor = module(x)
    except Exception as error:
        message = " ".join(str(error).split()) or "no message"
        raise InvalidInputError(
            f"{name} cannot be run here to compare it ({type(error).__name__}: {message}); move the "
            "module to where it runs, or give check=False"
        ) from error
    if not isinstance(outputs, Tensor):
        raise InvalidInputError(_other(name, "what its forward returns"))
    return outputs


@contextlib.contextmanager
def _in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _random(n: int, size: int, like: LogicLayer | LogicNetwork) -> Tensor:
    """Return uniform numbers [n, size], always the same."""
    device = next(like.parameters()).device
    generator = torch.Generator().manual_seed(size)
    return torch.rand(n, size, generator=generator, dtype=torch.float64).to(device)


def _require_close(name: str, what: str, found: Tensor, expected: Tensor) -> None:
    if found.shape == expected.shape:
        least = torch.float64 if {found.dtype, expected.dtype} == {torch.float64} else torch.float32
        difference = (found.detach().double() - expected.detach().double()).abs().max()
        if difference <= _TOLERANCE[least] * max(1.0, float(expected.detach().abs().max())):
            return
    raise InvalidInputError(_other(name, what))


def _other(name: str, what: str) -> str:
    return (
        f"{name} has the names of a layer that is known and computes something else: {what} differ; it "
        "cannot be converted"
    )
