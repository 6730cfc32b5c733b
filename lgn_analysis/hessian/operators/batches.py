"""Data for a probe: a pair of tensors, or batches that can be read again, always the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    default_collate,
)

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import whole

Batch = tuple[Tensor, Tensor]

_END: Final = object()


def as_batches(data: Any, batch_size: int | None = None) -> list[Batch]:
    """Return the batches of ``data`` as a list of views, or refuse what cannot be a fixed loss.

    Args:
        data: ``(x, y)`` tensors of equal length, a re-iterable of such pairs, or a
            ``torch.utils.data.Dataset`` of samples, which are one batch.
        batch_size: split each pair into pieces of at most so many samples.

    Raises:
        InvalidInputError: one-shot iterators, shuffling loaders, empty data, values that are NaN.
    """
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        data = data.tensors
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(t, Tensor) for t in data):
        pairs: list[Batch] = [data]
    else:
        pairs = _read_twice(data)
    # Tensors made in inference_mode() cannot be saved for a derivative.
    pairs = [(_outside_inference(x), _outside_inference(y)) for x, y in pairs]
    for x, y in pairs:
        if x.ndim == 0 or y.ndim == 0:
            which = "x" if x.ndim == 0 else "y"
            raise InvalidInputError(
                f"the first dimension counts samples, and {which} has none; for a single sample "
                f"give {which}.reshape(1), or stack samples into batches"
            )
        if len(x) != len(y):
            raise InvalidInputError(f"x holds {len(x)} samples and y {len(y)}; they must be equal")
    place = describe_nonfinite([x for x, _ in pairs])
    if place:
        raise InvalidInputError(f"the inputs hold values that are NaN or infinite: {place}")
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


def describe_nonfinite(parts: Sequence[Tensor]) -> str | None:
    """Return the first number that is none and where it stands in the tensors of all batches."""
    for index, part in enumerate(parts):
        if not (part.is_floating_point() or part.is_complex()) or part.is_sparse:
            continue
        bad = ~torch.isfinite(part.detach())
        if bool(bad.any()):
            row, *rest = bad.nonzero()[0].tolist()
            value = part.detach()[(row, *rest)].item()
            before = sum(len(earlier) for earlier in parts[:index])
            entry = f", entry {rest}" if rest else ""
            batch = f" (sample {row} of batch {index})" if len(parts) > 1 else ""
            return f"{value} at sample {before + row}{batch}{entry}"
    return None


def _outside_inference(part: Tensor) -> Tensor:
    if not part.is_inference():
        return part
    with torch.inference_mode(False):
        return part.clone()


def _read_twice(data: Any) -> list[Batch]:
    """Return what two passes agree on; the second is compared as it comes, and not kept."""
    if isinstance(data, DataLoader) and isinstance(data.sampler, RandomSampler):
        raise InvalidInputError(
            "this DataLoader shuffles, so every product would see other batches; "
            "use shuffle=False, or a list of its batches"
        )
    if isinstance(data, Iterator):
        raise InvalidInputError(
            "the data are an iterator that can be read once; pass (x, y), or a list of batches"
        )
    # Iterating over a DataLoader draws from the global generator. Both passes stand in one fork: in
    # a fork each, they would shuffle alike. A sequence draws nothing, and is itself its second pass.
    fixed = isinstance(data, (list, tuple))
    with torch.random.fork_rng(devices=[], enabled=not fixed):
        first = [_as_pair(item) for item in _once(data)]
        again = () if fixed else map(_as_pair, _once(data))
        same = fixed or all(
            _is_same(left, right)
            for left, right in itertools.zip_longest(first, again, fillvalue=_END)
        )
    if not same:
        raise InvalidInputError(
            "the batches differ between two passes (shuffling or augmentation?), so there is no "
            "one loss to differentiate; pass a list of fixed batches"
        )
    return _as_one_batch(first) if first and _are_samples(data, first) else first


def _are_samples(data: Any, items: Sequence[Batch]) -> bool:
    """Return whether items are single samples: those of a data set, and y of no dimension."""
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return True
    unbatched = isinstance(data, DataLoader) and data.batch_size is None
    return all(
        y.ndim == 0 or (unbatched and data.batch_sampler is None and len(x) != len(y))
        for x, y in items
    )


def _once(data: Any) -> Iterator[Any]:
    """Yield the batches, or the samples, of one pass."""
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        try:
            n = len(data)  # type: ignore[arg-type]
        except TypeError:
            raise InvalidInputError(
                f"{type(data).__name__} has no length, so its samples cannot be read; pass (x, y), "
                "or a DataLoader"
            ) from None
        return (data[index] for index in range(n))
    if not isinstance(data, Iterable):
        raise InvalidInputError(
            f"expected (x, y) tensors or batches of them, got {type(data).__name__}"
        )
    return iter(data)


def _as_pair(item: Any) -> Batch:
    """Return a batch, or a sample, whose y may be a number."""
    if isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], Tensor):
        x, y = item
        if isinstance(y, (bool, int, float)):
            return x, torch.as_tensor(y)
        if isinstance(y, Tensor):
            return x, y
    raise InvalidInputError("each batch must be a pair (x, y) of tensors")


def _as_one_batch(samples: Sequence[Batch]) -> list[Batch]:
    try:
        x, y = default_collate(list(samples))
    except RuntimeError as error:
        raise InvalidInputError(
            "the data are single samples of different shapes, which make no batch; pass a DataLoader "
            "with a batch_size and a collate_fn"
        ) from error
    return [(x, y)]


def _is_same(left: Any, right: Any) -> bool:
    if left is _END or right is _END:
        return False
    return all(
        a.shape == b.shape and a.dtype == b.dtype and bool(_equal(a, b).all())
        for a, b in zip(left, right, strict=True)
    )


def _equal(a: Tensor, b: Tensor) -> Tensor:
    return (a == b) | ((a != a) & (b != b))  # NaN is the same as NaN
