"""The few hot operations, and the interface through which their fast twins come.

A backend is a module with the functions of :class:`Backend`, feature-major: a gather of inputs is a
contiguous row. It is chosen by the tensor's device and can be forced by name. One that also has the
functions of :class:`NetworkBackend` runs a whole network at once. A module is imported when it is
first chosen.

A process that has imported this can fork: its child computes on as many threads as it did itself.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError, MissingDependencyError
from lgn_analysis.gates.noise import NoiseKey
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.interface import (
    AdamRule,
    Curvature,
    Moments,
    NetworkSpec,
    OutputLoss,
    Run,
    is_transformed,
)


class Backend(Protocol):
    """What every backend offers; :mod:`lgn_analysis.kernels.reference` is the specification."""

    NAME: str

    def gumbel(
        self,
        key: NoiseKey,
        layers: Tensor | int,
        n_gates: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> Tensor:
        """Return Gumbel noise [..., n_gates, 16]."""

    def gate_layer(self, x: Tensor, wiring: Tensor, coefficients: Tensor) -> Tensor:
        """Return ``c0 + c1·a + c2·b + c3·ab`` [n_out, ...] for x [n_in, ...]."""

    def gate_layer_packed(self, words: Tensor, wiring: Tensor, gates: Tensor) -> Tensor:
        """Return the outputs of discrete gates [n_out, n_words] on packed bits [n_in, n_words]."""

    def pack_bits(self, bits: Tensor) -> Tensor:
        """Return bits [n, batch] packed into int64 words [n, ceil(batch / 64)]."""

    def unpack_bits(self, words: Tensor, batch: int) -> Tensor:
        """Return packed words [n, n_words] as bool [n, batch]."""

    def Curvature(
        self,
        network: NetworkSpec,
        logits: Sequence[Tensor],
        x: Tensor,
        loss: OutputLoss,
        *,
        tau: float,
        layers: Sequence[int],
    ) -> Curvature:
        """Prepare derivatives of the soft loss; see :class:`lgn_analysis.kernels.interface.Curvature`."""


class NetworkBackend(Backend, Protocol):
    """A backend that runs whole networks, their layers of one width."""

    def training_forward(
        self, network: NetworkSpec, logits: Sequence[Tensor], x: Tensor, key: NoiseKey | None
    ) -> Tensor:
        """Return class logits [batch, n_groups] of the training forward for float32 logits.

        ``x`` is bool or float32 [batch, n_features]; the key is given exactly when the relaxation
        is noisy.
        """

    def discrete_forward(
        self, network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor
    ) -> Tensor:
        """Return the group sums of the discrete network, not divided: int32 [batch, n_groups]."""

    def discrete_activity(
        self, network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor
    ) -> Tensor:
        """Return on how many samples each gate of the discrete network is 1: int64 [depth, width]."""

    def PackedSamples(self, words: Tensor, n_features: int) -> Any:
        """Name training inputs int64 [n, ceil(n_features / 64)], feature 0 in the lowest bit."""

    def TrainingRun(
        self,
        network: NetworkSpec,
        logits: Sequence[Tensor],
        moments: Sequence[Moments],
        samples: Any,
        labels: Tensor,
        adam: AdamRule,
    ) -> Run:
        """Prepare training steps on these data."""


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
    device: torch.device, requested: str | None = None
) -> NetworkBackend | None:
    """Return the backend of :func:`select_backend` if it runs whole networks, else None."""
    backend = select_backend(device, requested)
    return cast(NetworkBackend, backend) if hasattr(backend, "training_forward") else None


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
