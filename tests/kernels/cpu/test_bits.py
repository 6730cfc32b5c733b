"""Packing, unpacking and the discrete network, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lgn_analysis.gates.relaxations import GumbelST
from lgn_analysis.kernels import cpu, reference
from lgn_analysis.kernels.cpu.bits import to_bytes, unpack_samples
from tests.kernels.cpu.conftest import BATCHES, Case, make_case


@pytest.fixture
def case() -> Case:
    return make_case(GumbelST())


@pytest.mark.parametrize("batch", BATCHES)
def test_rows_and_columns_pack_as_the_reference_packs(batch: int, case: Case) -> None:
    bits = case.bits(batch)
    expected = reference.pack_bits(bits.T)
    assert torch.equal(cpu.pack_bits(bits.T), expected)  # a view: samples are rows in memory
    assert torch.equal(cpu.pack_bits(bits.T.contiguous()), expected)
    assert torch.equal(cpu.pack_bits(bits.T[::2]), reference.pack_bits(bits.T[::2]))


@pytest.mark.parametrize("batch", BATCHES)
def test_unpacking_undoes_packing(batch: int, case: Case) -> None:
    bits = case.bits(batch).T
    assert torch.equal(cpu.unpack_bits(reference.pack_bits(bits), batch), bits)


@pytest.mark.parametrize("batch", BATCHES)
def test_samples_come_out_of_blocks_as_they_were(batch: int, case: Case) -> None:
    bits = case.bits(batch)
    n = bits.shape[1]
    words = reference.pack_bits(bits.T).T.contiguous().numpy().reshape(-1)
    values = np.full(batch * n, np.nan, dtype=np.float32)
    unpack_samples(words, n, n, batch, values)
    assert np.array_equal(values.reshape(batch, n), bits.numpy())


@pytest.mark.parametrize("batch", BATCHES)
def test_packed_layer_is_the_reference(batch: int, case: Case, n_threads: int) -> None:
    layer = case.model.layers[0]
    words = reference.pack_bits(case.bits(batch).T)
    expected = reference.gate_layer_packed(words, layer.wiring, layer.gates)
    assert torch.equal(cpu.gate_layer_packed(words, layer.wiring, layer.gates), expected)


@pytest.mark.parametrize("batch", [*BATCHES, 511, 512, 513])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_discrete_network_is_the_reference(batch: int, dtype: torch.dtype, n_threads: int) -> None:
    case = make_case(GumbelST(), dtype=dtype)
    bits = case.bits(batch)
    sums = cpu.discrete_forward(case.network, case.logits, bits)
    expected = case.model(bits, mode="discrete")
    assert torch.equal(sums.to(dtype) / case.network.group_tau, expected)


@pytest.mark.parametrize("batch", [*BATCHES, 511, 512, 513])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activity_is_the_reference(batch: int, dtype: torch.dtype, n_threads: int) -> None:
    case = make_case(GumbelST(), dtype=dtype)
    bits = case.bits(batch)
    activity = cpu.discrete_activity(case.network, case.logits, bits)
    expected = reference.discrete_activity(case.network, case.logits, bits)
    assert activity.dtype == torch.int64
    assert torch.equal(activity, expected)


def test_without_samples_no_gate_is_active() -> None:
    case = make_case(GumbelST())
    assert not cpu.discrete_activity(case.network, case.logits, case.bits(0)).any()


def test_group_sums_count_far_beyond_one_byte() -> None:
    case = make_case(GumbelST(), width=1206, n_classes=2)
    with torch.no_grad():
        case.logits[-1][:603, 15] = 50.0  # TRUE: every sample counts 603
    bits = case.bits(70)
    sums = cpu.discrete_forward(case.network, case.logits, bits)
    assert (sums[:, 0] == 603).all()
    assert torch.equal(sums / case.network.group_tau, case.model(bits, mode="discrete"))


@pytest.mark.parametrize("place", [0, 63, 64, 99])
@pytest.mark.parametrize("intruder", [0.5, -1.0, float("nan"), 2.0])
def test_anything_but_bits_is_noticed(place: int, intruder: float) -> None:
    values = (np.arange(100) % 3 == 0).astype(np.float32)
    octets = np.full(100, 255, dtype=np.uint8)
    assert to_bytes(values, octets)
    assert np.array_equal(octets, values)
    values[place] = intruder
    assert not to_bytes(values, octets)
