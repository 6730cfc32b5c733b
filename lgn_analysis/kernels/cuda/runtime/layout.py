"""Who reads a feature: the wiring of a layer, turned round.

The gradient of an input is a sum over the gates that read it. With the readers listed per feature,
in a fixed order, a program owns its features and adds up their readers alone: no atomics, the same
bits every time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.kernels.interface import NetworkSpec


@dataclass(frozen=True)
class Consumers:
    """A wiring as the kernels read it.

    Attributes:
        wiring: int32 [2, n_out].
        offsets: int32 [n_in + 1]; readers of feature f are at ``offsets[f] : offsets[f + 1]``.
        readers: int32 [2·n_out], ``2·gate + slot``, slot 0 for A and 1 for B. A gate that reads
            one feature twice is listed twice.
        partners: int32 [2·n_out], the feature that the reader's other slot reads.
        n_in: number of features.
        source: int64 [2, n_out], a copy of the wiring it was made from.
    """

    wiring: Tensor
    offsets: Tensor
    readers: Tensor
    partners: Tensor
    n_in: int
    source: Tensor

    @classmethod
    def of(cls, wiring: Tensor, n_in: int) -> Consumers:
        """Turn a wiring int64 [2, n_out] over ``n_in`` features round."""
        n_out = wiring.shape[1]
        wiring = wiring.clone()
        flat = wiring.reshape(-1)
        order = torch.argsort(flat, stable=True)
        counts = torch.zeros(n_in, dtype=torch.int64, device=wiring.device)
        counts.index_add_(0, flat, torch.ones_like(flat))
        offsets = torch.zeros(n_in + 1, dtype=torch.int64, device=wiring.device)
        torch.cumsum(counts, 0, out=offsets[1:])
        return cls(
            wiring=wiring.to(torch.int32).contiguous(),
            offsets=offsets.to(torch.int32),
            readers=(2 * (order % n_out) + order // n_out).to(torch.int32),
            partners=wiring.flip(0).reshape(-1)[order].to(torch.int32),
            n_in=n_in,
            source=wiring,
        )


_CACHE: Final = WeakIdKeyDictionary()


def consumers_of(wiring: Tensor, n_in: int, reader: str = "a layer") -> Consumers:
    """Return the consumers of a wiring, made once for each tensor and again if it was written to.

    Numbers are compared, not versions: what is written by way of ``.data`` raises none. The host
    waits for the answer, except while a CUDA graph is captured, where it must not.

    Raises:
        InvalidInputError: a gate reads an input that is not there; ``reader`` is the layer.
    """
    found: Consumers | None = _CACHE.get(wiring)
    if found is None or found.n_in != n_in or _is_changed(wiring, found.source):
        low, high = (int(bound) for bound in wiring.aminmax())
        if low < 0 or high >= n_in:
            raise InvalidInputError(
                f"{reader} reads input {low if low < 0 else high}, and it has inputs 0..{n_in - 1}; "
                "write numbers of that range into its wiring"
            )
        found = Consumers.of(wiring, n_in)
        _CACHE[wiring] = found
    return found


def _is_changed(wiring: Tensor, source: Tensor) -> bool:
    if wiring.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return not torch.equal(wiring, source)


def consumers_of_layers(network: NetworkSpec) -> list[Consumers]:
    """Return the consumers of every layer of a network; see :func:`consumers_of`."""
    widths = [network.n_features, *(wiring.shape[1] for wiring in network.wirings[:-1])]
    return [
        consumers_of(wiring, n_in, f"layer {layer}")
        for layer, (wiring, n_in) in enumerate(
            zip(network.wirings, widths, strict=True), start=network.first_layer
        )
    ]
