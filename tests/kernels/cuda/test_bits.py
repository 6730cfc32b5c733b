"""Packing, unpacking and batches, at ragged sizes."""

from __future__ import annotations

import pytest
import torch

from lgn_analysis.kernels import reference
from lgn_analysis.kernels.cuda.bits import (
    Batch,
    gather_packed,
    pack_bits,
    unpack_bits,
)

BATCHES = (1, 63, 64, 65, 130)


def coins(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5


@pytest.mark.parametrize("batch", BATCHES)
def test_packing_is_the_reference_and_unpacking_undoes_it(batch: int, device: torch.device) -> None:
    bits = coins(70, batch).to(device)
    words = pack_bits(bits)
    torch.testing.assert_close(words, reference.pack_bits(bits))
    torch.testing.assert_close(unpack_bits(words, batch), bits)


def test_any_strides_and_any_dtype_are_packed(device: torch.device) -> None:
    bits = coins(65, 70).to(device)
    expected = reference.pack_bits(bits.T)
    torch.testing.assert_close(pack_bits(bits.T), expected)
    torch.testing.assert_close(pack_bits(bits.T.to(torch.float32)), expected)
    strided = coins(130, 140).to(device)[::2, ::2].T
    torch.testing.assert_close(pack_bits(strided), reference.pack_bits(strided))


@pytest.mark.parametrize("size", [1, 65])
def test_a_batch_is_the_chosen_rows(size: int, device: torch.device) -> None:
    x = coins(40, 70).to(device)
    order = torch.randint(40, (3, size), generator=torch.Generator().manual_seed(2)).to(device)
    batch = Batch(order, torch.tensor([2], device=device))
    words = gather_packed(pack_bits(x), 70, batch)
    torch.testing.assert_close(words, reference.pack_bits(x[order[2]].T))
