"""The one table of gates, against Python's own Boolean operators."""

from __future__ import annotations

import itertools

import pytest
import torch

from lgn_analysis.gates.table import (
    COEFFICIENTS,
    GATE_NAMES,
    N_GATES,
    TRUTH_TABLE,
    gate_coefficients,
    reads_inputs,
)
from tests.oracles import BOOLEAN, REAL

CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
EVERY_GATE = pytest.mark.parametrize("gate", range(16), ids=GATE_NAMES)


@EVERY_GATE
def test_truth_table_is_the_python_expression(gate: int) -> None:
    assert TRUTH_TABLE[gate].tolist() == [int(BOOLEAN[gate](a, b)) for a, b in CORNERS]


@EVERY_GATE
def test_number_spells_the_truth_table_in_binary(gate: int) -> None:
    assert sum(8 >> i for i, (a, b) in enumerate(CORNERS) if BOOLEAN[gate](a, b)) == gate


@EVERY_GATE
def test_name_says_what_the_gate_does(gate: int) -> None:
    words = GATE_NAMES[gate].split()
    negated = words[1:2] in (["NAND"], ["NOR"], ["XNOR"])
    python = {"XOR": "!=", "XNOR": "!=", "NAND": "and", "NOR": "or", "FALSE": "0", "TRUE": "1"}
    expression = " ".join(python.get(word, word.lower()) for word in words)
    for a, b in CORNERS:
        assert bool(eval(expression, {"a": a, "b": b})) ^ negated == bool(BOOLEAN[gate](a, b))


@EVERY_GATE
def test_coefficients_are_the_multilinear_extension(gate: int) -> None:
    a, b = torch.rand(2, 50, generator=torch.Generator().manual_seed(gate), dtype=torch.float64)
    c0, c1, c2, c3 = COEFFICIENTS[gate].double()
    value = c0 + c1 * a + c2 * b + c3 * a * b
    probability = [(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b]
    interpolated = sum(p * BOOLEAN[gate](*ab) for p, ab in zip(probability, CORNERS, strict=True))
    torch.testing.assert_close(value, interpolated + 0 * a, rtol=0, atol=1e-15)
    torch.testing.assert_close(value, REAL[gate](a, b), rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mixture_of_gates_is_the_mixture_of_their_values(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(3, 5, 16, generator=generator, dtype=dtype)
    a, b = torch.rand(2, 3, 5, generator=generator, dtype=dtype)
    c = gate_coefficients(weights)
    assert c.dtype == dtype
    value = c[..., 0] + c[..., 1] * a + c[..., 2] * b + c[..., 3] * a * b
    mixed = sum(weights[..., i] * REAL[i](a, b) for i in range(16))
    torch.testing.assert_close(value, mixed)


def test_gradient_of_the_coefficients_is_the_table() -> None:
    jacobian = torch.autograd.functional.jacobian(gate_coefficients, torch.zeros(16).double())
    assert torch.equal(jacobian, COEFFICIENTS.T.double())


@EVERY_GATE
def test_an_input_is_read_where_flipping_it_can_change_the_output(gate: int) -> None:
    read_a, read_b = reads_inputs(torch.tensor([gate]), same_input=torch.tensor([False]))
    table = {ab: bool(BOOLEAN[gate](*ab)) for ab in CORNERS}
    assert bool(read_a) == any(table[0, b] != table[1, b] for b in (0, 1))
    assert bool(read_b) == any(table[a, 0] != table[a, 1] for a in (0, 1))


@EVERY_GATE
def test_a_gate_on_one_input_reads_it_where_its_diagonal_changes(gate: int) -> None:
    reads = reads_inputs(torch.tensor([gate]), same_input=torch.tensor([True]))
    changes = bool(BOOLEAN[gate](0, 0)) != bool(BOOLEAN[gate](1, 1))
    assert reads.tolist() == [[changes], [changes]]


def test_the_sixteen_gates_are_different() -> None:
    pairs = itertools.combinations(TRUTH_TABLE.tolist(), 2)
    assert N_GATES == len(TRUTH_TABLE) == 16
    assert all(first != second for first, second in pairs)
