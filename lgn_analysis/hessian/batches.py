"""Data for a probe: a pair of tensors, or batches that can be read again, always the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from lgn_analysis.arguments import whole
from lgn_analysis.errors import InvalidInputError

Batch = tuple[Tensor, Tensor]


def as_batches(data: Any, batch_size: int | None = None) -> list[Batch]:
    """Return the batches of ``data`` as a list of views, or refuse what cannot be a fixed loss.

    Args:
        data: ``(x, y)`` tensors of equal length, or a re-iterable of such pairs.
        batch_size: split each pair into pieces of at most so many samples.

    Raises:
        InvalidInputError: one-shot iterators, shuffling loaders, empty data, values that are NaN.
    """
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(t, Tensor) for t in data):
        pairs: list[Batch] = [data]
    else:
        pairs = _read_twice(data)
    for x, y in pairs:
        if len(x) != len(y):
            raise InvalidInputError(f"x holds {len(x)} samples and y {len(y)}; they must be equal")
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise InvalidInputError("the inputs hold values that are NaN or infinite")
    pairs = [(x, y) for x, y in pairs if len(y)]
    if not pairs:
        raise InvalidInputError("there are no samples to take the mean loss over")
    if batch_size is None:
        return pairs
    batch_size = whole("batch_size", batch_size, least=1)
    return [
        piece
        for x, y in pairs
        for piece in zip(x.split(batch_size), y.split(batch_size), strict=True)
    ]


def _read_twice(data: Any) -> list[Batch]:
    if isinstance(data, DataLoader) and isinstance(data.sampler, RandomSampler):
        raise InvalidInputError(
            "this DataLoader shuffles, so every product would see other batches; "
            "use shuffle=False, or a list of its batches"
        )
    if isinstance(data, Iterator):
        raise InvalidInputError(
            "the data are an iterator that can be read once; pass (x, y), or a list of batches"
        )
    if not isinstance(data, Iterable):
        raise InvalidInputError(
            f"expected (x, y) tensors or batches of them, got {type(data).__name__}"
        )
    # Iterating over a DataLoader draws from the global generator. Both passes stand in one fork: in
    # a fork each, they would shuffle alike. A sequence draws nothing.
    with torch.random.fork_rng(devices=[], enabled=not isinstance(data, (list, tuple))):
        first, second = list(data), list(data)
    for pair in first:
        if not (
            isinstance(pair, (tuple, list))
            and len(pair) == 2
            and all(isinstance(item, Tensor) for item in pair)
        ):
            raise InvalidInputError("each batch must be a pair (x, y) of tensors")
    same = len(first) == len(second) and all(
        torch.equal(a, b)
        for left, right in zip(first, second, strict=True)
        for a, b in zip(left, right, strict=True)
    )
    if not same:
        raise InvalidInputError(
            "the batches differ between two passes (shuffling or augmentation?), so there is no "
            "one loss to differentiate; pass a list of fixed batches"
        )
    return [(x, y) for x, y in first]
