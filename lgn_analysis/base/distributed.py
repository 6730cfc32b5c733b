"""Data-parallel training over several processes: ranks, shards of a batch, sums and means.

Ranks are those of ``torch.distributed``, as ``torchrun`` starts them: NCCL where tensors live on
GPUs, gloo on CPUs. Without a process group there is one rank, and the functions do nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError


def world() -> tuple[int, int]:
    """Return this process's rank and the number of ranks."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


@contextmanager
def process_group(device: torch.device | str) -> Iterator[torch.device]:
    """Join the ranks that ``torchrun`` started, if it did, and yield this rank's device.

    On GPUs rank r of a machine takes ``cuda:r``.
    """
    device = torch.device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend)
    try:
        yield device
        dist.barrier()
    finally:
        # gloo's threads sometimes abort the process when its group is destroyed; it ends with it.
        if backend == "nccl":
            dist.destroy_process_group()


def shard(batch_size: int) -> slice:
    """Return this rank's shard of a batch, equal for all.

    Raises:
        InvalidInputError: the batch cannot be divided equally.
    """
    rank, size = world()
    if batch_size % size:
        raise InvalidInputError(
            f"batch_size {batch_size} cannot be shared equally by {size} ranks; use "
            f"{batch_size // size * size or size} or {(batch_size // size + 1) * size}"
        )
    part = batch_size // size
    return slice(rank * part, (rank + 1) * part)


def from_rank_zero(number: int) -> int:
    """Return rank 0's value of a number below 2**63, on every rank."""
    if world()[1] == 1:
        return number
    on = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    holder = torch.tensor(number, dtype=torch.int64, device=on)
    dist.broadcast(holder, 0)
    return int(holder)


def copy_from_rank_zero(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors by those of rank 0."""
    if world()[1] > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


def average(tensors: Iterable[Tensor]) -> None:
    """Replace tensors of one dtype by their means over the ranks, in one message."""
    size = world()[1]
    if size == 1:
        return
    parts = list(tensors)
    flat = torch.cat([part.reshape(-1) for part in parts])
    dist.all_reduce(flat)
    flat /= size
    for part, mean in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
        part.copy_(mean.view_as(part))


def total(tensor: Tensor) -> Tensor:
    """Return the sum over the ranks, the same bits on all; ``tensor`` may be overwritten."""
    if world()[1] > 1:
        dist.all_reduce(tensor)
    return tensor


def uneven_shard(n: int) -> slice:
    """Return this rank's shard of n samples, equal to within one.

    >>> uneven_shard(5)
    slice(0, 5, None)
    """
    rank, size = world()
    return slice(rank * n // size, (rank + 1) * n // size)


def wait_for_all() -> None:
    """Return once every rank has come here."""
    if world()[1] > 1:
        dist.barrier()
