"""Packing, unpacking, thermometer encoding and batches, at ragged sizes."""

from __future__ import annotations

import pytest
import torch

from lgn_analysis.data import thermometer as encode
from lgn_analysis.data.thermometer import integer_thresholds
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.cuda.bits import (
    Batch,
    gather_packed,
    pack_bits,
    thermometer,
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


@pytest.mark.parametrize("order", ["threshold-major", "feature-major"])
@pytest.mark.parametrize("batch", [1, 65])
def test_pixels_are_encoded_as_the_data_sets_encode_them(
    batch: int, order: str, device: torch.device
) -> None:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (batch, 70), dtype=torch.uint8, generator=generator)
    levels = integer_thresholds([0.0, 0.2, 0.5, 1.0], divisor=255)
    on_device = torch.tensor(levels, dtype=torch.int32, device=device)
    words = thermometer(pixels.to(device), on_device, order=order)
    expected = encode(pixels, levels, order=order)  # type: ignore[arg-type]
    torch.testing.assert_close(unpack_bits(words, batch).T.cpu(), expected)


def test_floats_are_encoded_in_their_own_dtype(device: torch.device) -> None:
    values = torch.tensor([[0.2, 0.25, 0.5], [0.1, 0.75, float("inf")]])
    levels = torch.tensor([0.2, 0.5])
    words = thermometer(values.to(device), levels.to(device))
    torch.testing.assert_close(unpack_bits(words, 2).T.cpu(), encode(values, levels.tolist()))


def test_an_unknown_bit_order_is_refused(device: torch.device) -> None:
    values = torch.zeros(2, 3, dtype=torch.uint8, device=device)
    with pytest.raises(ValueError, match="'threshold-major' or 'feature-major'"):
        thermometer(values, torch.zeros(1, dtype=torch.int32, device=device), order="pixel-major")


@pytest.mark.parametrize("size", [1, 65])
def test_a_batch_is_the_chosen_rows(size: int, device: torch.device) -> None:
    x = coins(40, 70).to(device)
    order = torch.randint(40, (3, size), generator=torch.Generator().manual_seed(2)).to(device)
    batch = Batch(order, torch.tensor([2], device=device))
    words = gather_packed(pack_bits(x), 70, batch)
    torch.testing.assert_close(words, reference.pack_bits(x[order[2]].T))


def test_a_batch_of_pixels_is_encoded_in_one_go(device: torch.device) -> None:
    pixels = torch.randint(256, (9, 5), generator=torch.Generator().manual_seed(3))
    values = pixels.to(device, torch.uint8)
    levels = torch.tensor([50, 100], dtype=torch.int32, device=device)
    order = torch.tensor([[0, 1, 2], [8, 8, 3]], device=device)
    words = thermometer(values, levels, batch=Batch(order, torch.tensor([1], device=device)))
    torch.testing.assert_close(words, thermometer(values[order[1]], levels))
