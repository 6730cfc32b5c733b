"""Which two inputs each gate reads.

A wiring is an int64 tensor ``[2, n_out]``: row 0 holds the A inputs, row 1 the B inputs.

Source: Petersen et al. 2022 and its reference code (both kinds; the paper of Yousefi et al. trains
with ``unique``).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError

WIRINGS: Final = ("random", "unique")


def make_wiring(kind: str, n_in: int, n_out: int, *, generator: torch.Generator) -> Tensor:
    """Draw a wiring in which every input is read at least once.

    ``random`` deals the inputs out as evenly as possible, in random order; a gate may read the same
    input twice. ``unique`` gives every gate a different pair of different inputs.

    Args:
        kind: ``"random"`` or ``"unique"``.
        n_in: number of inputs.
        n_out: number of gates; ``2·n_out >= n_in``, or some input could not be read.
        generator: the source of randomness (on the CPU).

    Returns:
        int64 [2, n_out].

    Raises:
        InvalidInputError: the sizes do not fit, or the kind is unknown.
    """
    if n_in < 1 or n_out < 1:
        raise InvalidInputError(
            f"a layer needs at least one input and one gate, got n_in={n_in}, n_out={n_out}"
        )
    if 2 * n_out < n_in:
        raise InvalidInputError(
            f"{n_out} gates read at most {2 * n_out} of {n_in} inputs; use a width of at least "
            f"{(n_in + 1) // 2}, or fewer thresholds"
        )
    if kind == "random":
        return _random_wiring(n_in, n_out, generator)
    if kind == "unique":
        return _unique_wiring(n_in, n_out, generator)
    raise InvalidInputError(f"unknown wiring {kind!r}; use one of {', '.join(WIRINGS)}")


def check_wiring(wiring: Tensor, n_in: int, n_out: int) -> Tensor:
    """Return ``wiring`` as int64 [2, n_out] if it is one for these sizes, else raise."""
    if wiring.dtype.is_floating_point or wiring.dtype == torch.bool:
        raise InvalidInputError(f"a wiring holds integer indices, got dtype {wiring.dtype}")
    if tuple(wiring.shape) != (2, n_out):
        raise InvalidInputError(
            f"a wiring for {n_out} gates has shape (2, {n_out}), got {tuple(wiring.shape)}"
        )
    if wiring.numel() and (int(wiring.min()) < 0 or int(wiring.max()) >= n_in):
        raise InvalidInputError(
            f"wiring indices must lie in 0..{n_in - 1}, got {int(wiring.min())}..{int(wiring.max())}"
        )
    return wiring.to(torch.int64)


def _random_wiring(n_in: int, n_out: int, generator: torch.Generator) -> Tensor:
    slots = torch.randperm(2 * n_out, generator=generator) % n_in
    return torch.randperm(n_in, generator=generator)[slots].reshape(2, n_out)


def _unique_wiring(n_in: int, n_out: int, generator: torch.Generator) -> Tensor:
    n_pairs = n_in * (n_in - 1) // 2
    if n_out > n_pairs:
        raise InvalidInputError(
            f"{n_in} inputs make only {n_pairs} different pairs, too few for {n_out} gates; "
            'use wiring="random", or a width of at most that'
        )
    # Offset 1 is split into its even and its odd pairs, so that the first n_in/2 gates, rounded up,
    # cover every input; then offsets 2, 3, ... in full.
    # An odd n_in leaves the last input over, so its odd pairs begin with the one that reads it; the
    # reference code begins with (1, 2), and with few gates never reads that input.
    odd = torch.arange(1, n_in - 1, 2)
    firsts = [torch.arange(0, n_in - 1, 2), odd.flip(0) if n_in % 2 else odd]
    offsets = [1, 1]
    count = n_in - 1
    while count < n_out:
        offset = offsets[-1] + 1
        firsts.append(torch.arange(n_in - offset))
        offsets.append(offset)
        count += n_in - offset
    a = torch.cat(firsts)[:n_out]
    b = torch.cat([first + offset for first, offset in zip(firsts, offsets, strict=True)])[:n_out]
    order = torch.randperm(n_out, generator=generator)
    return torch.stack([a[order], b[order]])
