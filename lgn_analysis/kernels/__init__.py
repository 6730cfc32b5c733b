"""The few hot operations, and the seam through which their fast twins come.

A backend is a module with the functions of :class:`Backend`, feature-major: a gather of inputs is a
contiguous row. It is chosen by the tensor's device and can be forced by name.
"""

from __future__ import annotations

from typing import Final, Protocol

import torch
from torch import Tensor

from lgn_analysis.errors import InvalidInputError
from lgn_analysis.kernels import reference
from lgn_analysis.noise import NoiseKey


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


_BACKENDS: Final[dict[str, Backend]] = {reference.NAME: reference}
BACKENDS: Final = tuple(_BACKENDS)


def select_backend(device: torch.device, requested: str | None = None) -> Backend:
    """Return the backend for ``device``, or the one that is requested by name.

    Raises:
        InvalidInputError: there is no backend of that name.
    """
    del device  # one backend so far, and it runs on every device
    name = requested or reference.NAME
    if name not in _BACKENDS:
        raise InvalidInputError(f"unknown backend {name!r}; use one of {', '.join(BACKENDS)}")
    return _BACKENDS[name]
