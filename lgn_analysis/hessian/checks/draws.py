"""Whether a call draws random numbers: then it has no one loss."""

from __future__ import annotations

import gc
import inspect
import pickle
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lgn_analysis.hessian.operators.forward_context import OperationMode


def draws_random(call: Callable[[], object], generators: Sequence[Generator]) -> str | None:
    """Return the name of what draws random numbers in ``call()``, or None.

    Seen are what PyTorch draws, and draws from ``generators``, whose states are put back. What a call
    seeds itself, the same each time, is no draw: so where there are draws a second call must find the
    generators in other states.

    Args:
        call: takes no arguments; called once or twice.
        generators: :func:`all_generators`.
    """
    watched = _Draws()
    with put_back(generators):
        untouched = _after(generators)
        try:
            first = [*watched.found_in(call), *_after(generators)]
            second = first
            if first != untouched:
                second = [*watched.found_in(call), *_after(generators)]
        finally:
            watched.put_back()
    return next((name for name, _ in _differences(first, second)), None)


@contextmanager
def put_back(generators: Sequence[Generator]) -> Iterator[None]:
    """Give generators at the end the states that they had, where they moved."""
    start, states = [generator.get() for generator in generators], _after(generators)
    try:
        yield
    finally:
        for generator, state, before, after in zip(
            generators, start, states, _after(generators), strict=True
        ):
            if before != after:
                generator.put(state)


Draw = tuple[str, bytes]
"""What drew, or where the state of a generator lies, and that state."""


class _Draws(OperationMode):
    """Notes every operation that draws, with the state of its generator, and puts none back."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Draw] = []
        self.before: dict[torch.Generator, Tensor] = {}

    def found_in(self, call: Callable[[], object]) -> list[Draw]:
        """Return what drew in a call."""
        self.found = []
        with self:
            call()
        return self.found

    def put_back(self) -> None:
        """Put back the states that generators had before their first draw."""
        for generator, state in self.before.items():
            generator.set_state(state)

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        names = (argument.name for argument in func._schema.arguments)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if torch.Tag.nondeterministic_seeded in func.tags and not _is_off(func, given):
            generator = _generator_of(given)
            state = generator.get_state()
            self.before.setdefault(generator, state)
            part = _calling_module()
            name = f"torch.{func.overloadpacket.__name__}" + (f" in {part}" if part else "")
            self.found.append((name, state.numpy().tobytes()))
        return func(*args, **kwargs)


def _is_off(func: Any, given: dict[str, Any]) -> bool:
    """Return whether an operation that may draw does not: dropout 0, or not in training."""
    for argument in func._schema.arguments:
        value = given.get(argument.name, argument.default_value)
        if argument.name in ("dropout", "dropout_p") and value == 0:
            return True
        if argument.name in ("train", "training") and value is False:
            return True
    return False


def _generator_of(given: dict[str, Any]) -> torch.Generator:
    values = list(given.values())
    for value in values:
        if isinstance(value, torch.Generator):
            return value
    devices = [value.device for value in values if isinstance(value, Tensor)]
    device = torch.device(given.get("device") or (devices[0] if devices else "cpu"))
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator


def _calling_module() -> str | None:
    """Return the class of the innermost module whose method is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            return type(owner).__name__
        frame = frame.f_back  # type: ignore[assignment]
    return None


_KINDS: Final = (random.Random, np.random.RandomState, np.random.Generator)


class Generator(NamedTuple):
    """A source of random numbers whose state can be read, and put back."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]


def own_generators(module: nn.Module) -> list[Generator]:
    """Return the generators of torch, the global ones of Python and NumPy, and what a module holds."""
    generators = [
        Generator("PyTorch's generator", torch.get_rng_state, torch.set_rng_state),
        Generator("Python's random", random.getstate, random.setstate),
        Generator("numpy.random", np.random.get_state, np.random.set_state),
    ]
    if torch.cuda.is_initialized():
        cuda = torch.cuda
        generators.append(
            Generator("PyTorch's CUDA generators", cuda.get_rng_state_all, cuda.set_rng_state_all)
        )
    held = _held(module).values()
    return generators + [_generator(value, label) for value, label in held if _has_state(value)]


def all_generators(module: nn.Module) -> list[Generator]:
    """Return :func:`own_generators`, and all others of Python's ``random`` and of NumPy.

    What the module is not seen to hold may be another thread's: its state is read, and never put back.
    """
    kept = gc.get_objects()  # all of the process: a tenth of a second and more
    kinds = {kind for kind in set(map(type, kept)) if issubclass(kind, _KINDS)}
    held = _held(module)
    others = (value for value in kept if type(value) in kinds and id(value) not in held)
    return own_generators(module) + [
        _generator(value, f"a {type(value).__name__}")._replace(put=_leave_as_it_is)
        for value in others
        if _has_state(value)
    ]


def _held(module: nn.Module) -> dict[int, tuple[Any, str]]:
    """Return by id the generators that a module is seen to hold, with a name for each."""
    return {
        id(value): (value, f"{name} of {type(part).__name__}")
        for part in module.modules()
        for name, value in _reachable(part).items()
        if isinstance(value, _KINDS)
    }


def _has_state(value: Any) -> bool:
    return not isinstance(value, random.SystemRandom)


def _generator(value: Any, name: str) -> Generator:
    if isinstance(value, random.Random):
        return Generator(name, value.getstate, value.setstate)
    if isinstance(value, np.random.RandomState):
        return Generator(name, value.get_state, value.set_state)
    bits = value.bit_generator
    return Generator(name, partial(getattr, bits, "state"), partial(setattr, bits, "state"))


def _leave_as_it_is(state: Any) -> None:
    pass


def _reachable(part: nn.Module) -> dict[str, Any]:
    """Return a module's own attributes, and what its forward names outside itself."""
    forward = getattr(type(part), "forward", None)  # a scripted module has none
    if type(part).__module__.startswith("torch.") or not inspect.isfunction(forward):
        return vars(part)
    names = inspect.getclosurevars(forward)
    return {**names.globals, **names.nonlocals, **vars(part)}


def _after(generators: Sequence[Generator]) -> list[Draw]:
    return [(one.name, pickle.dumps(_plain(one.get()))) for one in generators]


def _plain(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.numpy().tobytes()
    return [_plain(part) for part in state] if isinstance(state, list) else state


def _differences(first: list[Draw], second: list[Draw]) -> Iterator[Draw]:
    """Yield the draws of either call that the other has not, in order."""
    for one, other in zip_longest(first, second):
        if one != other:
            yield one or other
