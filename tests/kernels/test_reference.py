"""The specification of the kernels, against sixteen gates evaluated one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import Soft
from lgn_analysis.gates.table import COEFFICIENTS, gate_coefficients
from lgn_analysis.kernels import BACKENDS, reference, select_backend
from lgn_analysis.kernels.interface import NetworkSpec
from tests.oracles import BOOLEAN, REAL, gumbel_noise

BATCHES = (1, 63, 64, 65, 129)
SAME_INPUT_WIRING = torch.tensor([[0, 2, 1, 4, 4], [3, 2, 1, 4, 0]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("batch", [(), (1,), (7,), (2, 3)])
def test_a_layer_is_the_weighted_sum_of_sixteen_gates(batch: tuple[int, ...]) -> None:
    x = torch.rand(5, *batch, generator=generator(), dtype=torch.float64)
    w = torch.rand(5, 16, generator=generator(1), dtype=torch.float64)
    y = reference.gate_layer(x, SAME_INPUT_WIRING, gate_coefficients(w))
    for n, (a, b) in enumerate(SAME_INPUT_WIRING.T.tolist()):
        expected = sum(w[n, i] * REAL[i](x[a], x[b]) for i in range(16))
        torch.testing.assert_close(y[n], expected, rtol=1e-13, atol=1e-13)


def test_a_layer_is_differentiable_twice() -> None:
    x = torch.rand(5, 2, generator=generator(), dtype=torch.float64, requires_grad=True)
    c = torch.rand(5, 4, generator=generator(1), dtype=torch.float64, requires_grad=True)

    def layer(x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return reference.gate_layer(x, SAME_INPUT_WIRING, c)

    assert torch.autograd.gradcheck(layer, (x, c))
    assert torch.autograd.gradgradcheck(layer, (x, c))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_discrete_gates_on_bits_give_exact_bits(dtype: torch.dtype) -> None:
    x = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]], dtype=dtype)
    wiring = torch.tensor([[0] * 16, [1] * 16])
    y = reference.gate_layer(x, wiring, COEFFICIENTS.to(dtype))
    expected = [[float(BOOLEAN[i](*x[:, k].tolist())) for k in range(4)] for i in range(16)]
    assert y.tolist() == expected


@pytest.mark.parametrize("batch", BATCHES)
def test_packed_gates_are_the_python_expressions(batch: int) -> None:
    """Trap 5: a batch that is no multiple of the word."""
    bits = torch.rand(6, batch, generator=generator(batch)) < 0.5
    gates = torch.arange(16)
    wiring = torch.randint(6, (2, 16), generator=generator(1))
    wiring[1, [2, 6, 9]] = wiring[0, [2, 6, 9]]
    words = reference.gate_layer_packed(reference.pack_bits(bits), wiring, gates)
    assert words.shape == (16, -(-batch // 64))
    outputs = reference.unpack_bits(words, batch).tolist()
    for gate, a, b in zip(range(16), *wiring.tolist(), strict=True):
        pairs = zip(bits[a].tolist(), bits[b].tolist(), strict=True)
        assert outputs[gate] == [bool(BOOLEAN[gate](*pair)) for pair in pairs]


@given(st.integers(0, 5), st.integers(0, 200), st.integers(0, 2**32))
def test_unpacking_inverts_packing(n: int, batch: int, seed: int) -> None:
    bits = torch.rand(n, batch, generator=generator(seed)) < 0.5
    words = reference.pack_bits(bits)
    assert words.dtype == torch.int64
    assert words.shape == (n, -(-batch // 64))
    assert torch.equal(reference.unpack_bits(words, batch), bits)


@pytest.mark.parametrize("batch", BATCHES)
def test_sample_i_is_bit_i_mod_64_of_word_i_div_64(batch: int) -> None:
    bits = np.random.default_rng(batch).random((3, batch)) < 0.5
    words = reference.pack_bits(torch.from_numpy(bits)).tolist()
    for row, packed in zip(bits, words, strict=True):
        number = sum(int(bit) << i for i, bit in enumerate(row))
        assert [word % 2**64 for word in packed] == [
            (number >> 64 * k) % 2**64 for k in range(len(packed))
        ]


@pytest.mark.parametrize("batch", [0, *BATCHES])
def test_ones_are_counted_within_the_batch(batch: int) -> None:
    bits = torch.rand(9, batch, generator=generator(batch)) < torch.linspace(0, 1, 9)[:, None]
    words = reference.pack_bits(bits)
    for some in (words, ~words):  # beyond the batch all zeros, then all ones
        expected = reference.unpack_bits(some, batch).sum(-1)
        assert torch.equal(reference.count_ones(some, batch), expected)


@pytest.mark.parametrize("batch", BATCHES)
def test_activity_counts_the_python_expressions(batch: int) -> None:
    bits = torch.rand(batch, 6, generator=generator(batch)) < 0.5
    wirings = tuple(torch.randint(6, (2, 6), generator=generator(layer)) for layer in range(3))
    logits = [torch.randn(6, 16, generator=generator(layer)) for layer in range(3)]
    network = NetworkSpec(wirings, n_features=6, relaxation=Soft(), n_groups=2, group_tau=1.0)
    activity = reference.discrete_activity(network, logits, bits)
    values = bits.T.tolist()
    for layer, wiring in enumerate(wirings):
        gates = logits[layer].argmax(-1).tolist()
        values = [
            [BOOLEAN[gate](*pair) for pair in zip(values[a], values[b], strict=True)]
            for gate, a, b in zip(gates, *wiring.tolist(), strict=True)
        ]
        assert activity[layer].tolist() == [sum(row) for row in values]


def test_noise_is_the_documented_philox() -> None:
    noise = reference.gumbel(
        NoiseKey(9, Purpose.EVALUATION, 4), torch.tensor([2]), 3, dtype=torch.float64, device="cpu"
    )
    expected = torch.from_numpy(gumbel_noise(9, 2, 4, 2, 3))
    torch.testing.assert_close(noise[0], expected, rtol=1e-14, atol=1e-14)


def test_a_backend_is_found_by_name() -> None:
    assert "reference" in BACKENDS
    assert select_backend(torch.device("cpu"), "reference") is reference
    with pytest.raises(InvalidInputError, match="unknown backend 'cudda'; use one of"):
        select_backend(torch.device("cpu"), "cudda")
