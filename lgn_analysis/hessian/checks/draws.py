"""Whether a call draws random numbers: then it has no one loss."""

from __future__ import annotations

import gc
import inspect
import pickle
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lgn_analysis.hessian.operators.forward_context import OperationMode


def draws_random(call: Callable[[], object], module: nn.Module | None = None) -> str | None:
    """Return the name of what draws random numbers in ``call()``, or None.

    Seen are PyTorch's generators and all of Python's ``random`` and of NumPy, whoever holds them. What
    a call seeds itself, the same each time, is no draw: so where there are draws a second call must
    find the generators in other states. Put back are the states of torch, of Python's and NumPy's global
    generators and of those that the module is seen to hold; another one may be another thread's.

    Args:
        call: takes no arguments; called once or twice.
        module: what it holds of generators has names there.
    """
    watched = _Draws()
    with generators_put_back(module) as sources:
        untouched = _after(sources)
        try:
            first = [*watched.found_in(call), *_after(sources)]
            second = first
            if first != untouched:
                second = [*watched.found_in(call), *_after(sources)]
        finally:
            watched.put_back()
    return next((name for name, _ in _differences(first, second)), None)


@contextmanager
def generators_put_back(module: nn.Module | None = None) -> Iterator[list[_Source]]:
    """Yield the generators of PyTorch, Python and NumPy, and put back the states they had."""
    sources = _sources(module)
    start, states = [source.get() for source in sources], _after(sources)
    try:
        yield sources
    finally:
        for source, state, before, after in zip(
            sources, start, states, _after(sources), strict=True
        ):
            if before != after:
                source.put(state)


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


_GENERATORS: Final = (random.Random, np.random.RandomState, np.random.Generator)


class _Source(NamedTuple):
    """A generator whose state can be read, and put back."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]


def _leave_as_it_is(state: Any) -> None:
    pass


def _sources(module: nn.Module | None) -> list[_Source]:
    sources = [
        _Source("PyTorch's generator", torch.get_rng_state, torch.set_rng_state),
        _Source("Python's random", random.getstate, random.setstate),
        _Source("numpy.random", np.random.get_state, np.random.set_state),
    ]
    if torch.cuda.is_initialized():
        cuda = torch.cuda
        sources.append(
            _Source("PyTorch's CUDA generators", cuda.get_rng_state_all, cuda.set_rng_state_all)
        )
    labels = {
        id(value): f"{name} of {type(part).__name__}"
        for part in (module.modules() if module is not None else ())
        for name, value in _reachable(part).items()
    }
    kept = gc.get_objects()
    kinds = {kind for kind in set(map(type, kept)) if issubclass(kind, _GENERATORS)}
    for value in (value for value in kept if type(value) in kinds):
        label = labels.get(id(value), f"a {type(value).__name__}")
        if isinstance(value, random.SystemRandom):  # has no state
            continue
        if isinstance(value, random.Random):
            source = _Source(label, value.getstate, value.setstate)
        elif isinstance(value, np.random.RandomState):
            source = _Source(label, value.get_state, value.set_state)
        else:
            bits = value.bit_generator
            get, put = partial(getattr, bits, "state"), partial(setattr, bits, "state")
            source = _Source(label, get, put)
        # What the module is not seen to hold may be another thread's: not ours to put back.
        sources.append(source if id(value) in labels else source._replace(put=_leave_as_it_is))
    return sources


def _reachable(part: nn.Module) -> dict[str, Any]:
    """Return a module's own attributes, and what its forward names outside itself."""
    forward = getattr(type(part), "forward", None)  # a scripted module has none
    if type(part).__module__.startswith("torch.") or not inspect.isfunction(forward):
        return vars(part)
    names = inspect.getclosurevars(forward)
    return {**names.globals, **names.nonlocals, **vars(part)}


def _after(sources: list[_Source]) -> list[Draw]:
    return [(source.name, pickle.dumps(_plain(source.get()))) for source in sources]


def _plain(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.numpy().tobytes()
    return [_plain(part) for part in state] if isinstance(state, list) else state


def _differences(first: list[Draw], second: list[Draw]) -> Iterator[Draw]:
    """Yield the draws of either call that the other has not, in order."""
    for one, other in zip_longest(first, second):
        if one != other:
            yield one or other
