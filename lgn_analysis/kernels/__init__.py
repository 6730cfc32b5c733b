"""The few hot operations, and the choice of the backend that computes them.

A backend is a module with the functions of :class:`.interface.Backend`. It is chosen by the tensor's
device and can be forced by name. One that also has the functions of :class:`.interface.NetworkBackend`
runs a whole network at once. A module is imported when it is first chosen.

A process that has imported this can fork: its child computes on as many threads as it did itself.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import os
import sys
from typing import Final, cast

import torch

from lgn_analysis.base.errors import InvalidInputError, MissingDependencyError
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.interface import Backend, NetworkBackend, is_transformed

__all__ = ["BACKENDS", "Backend", "NetworkBackend", "select_backend", "select_network_backend"]


_MODULES: Final = {
    reference.NAME: "lgn_analysis.kernels.reference",
    "cpu": "lgn_analysis.kernels.cpu",
    "cuda": "lgn_analysis.kernels.cuda",
}
BACKENDS: Final = tuple(_MODULES)


def select_backend(device: torch.device, requested: str | None = None) -> Backend:
    """Return the backend for ``device``, or the one that is requested by name.

    Raises:
        InvalidInputError: there is no backend of that name.
        MissingDependencyError: the one that is requested needs a package that is not installed.
    """
    name = requested or _default(device.type)
    if name not in _MODULES:
        raise InvalidInputError(f"unknown backend {name!r}; use one of {', '.join(BACKENDS)}")
    if name == "cpu" and is_transformed():
        # Its kernels read memory, and a tensor under a transform has none to show.
        name = reference.NAME
    try:
        return cast(Backend, importlib.import_module(_MODULES[name]))
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"backend={name!r} needs the package {error.name}, which is not installed; install it, "
            'or choose backend="reference"'
        ) from error


def select_network_backend(
    device: torch.device, requested: str | None = None, *, parametrisation: str
) -> NetworkBackend | None:
    """Return the backend of :func:`select_backend` if it runs whole networks of a parametrisation, else None."""
    backend = select_backend(device, requested)
    known = parametrisation in getattr(backend, "PARAMETRISATIONS", ())
    return cast(NetworkBackend, backend) if known else None


@functools.cache
def _default(device_type: str) -> str:
    needs = {"cpu": "numba", "cuda": "triton"}.get(device_type)
    found = needs is not None and importlib.util.find_spec(needs) is not None
    return device_type if found else reference.NAME


_OMP_PAUSE_HARD: Final = 2


def _end_idle_threads() -> None:
    # GNU's OpenMP keeps its threads waiting for work. A forked child has none of them, does not know
    # it, and waits for ever in torch's first parallel operation. So the thread that forks ends its
    # own before, and both processes begin new ones when they need them.
    ctypes.CDLL(torch._C.__file__).omp_pause_resource_all(_OMP_PAUSE_HARD)


if sys.platform == "linux" and torch.backends.openmp.is_available():
    os.register_at_fork(before=_end_idle_threads)
