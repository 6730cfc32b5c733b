"""The sixteen two-input Boolean gates and their multilinear extension.

Gate ``i`` has the truth table ``i = 8·g(0,0) + 4·g(0,1) + 2·g(1,0) + g(1,1)``, the numbering of
difflogic. Every gate is multilinear in its inputs, so all sixteen lie in the span of
``{1, a, b, ab}`` and a mixture of gates is four coefficients. This module holds the only table.

Source: Petersen et al., *Deep Differentiable Logic Gate Networks*, NeurIPS 2022, Table 1.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

N_GATES: Final = 16

GATE_NAMES: Final[tuple[str, ...]] = (
    "FALSE",
    "A AND B",
    "A AND NOT B",
    "A",
    "NOT A AND B",
    "B",
    "A XOR B",
    "A OR B",
    "A NOR B",
    "A XNOR B",
    "NOT B",
    "A OR NOT B",
    "NOT A",
    "NOT A OR B",
    "A NAND B",
    "TRUE",
)

TRUTH_TABLE: Final[Tensor] = torch.tensor(
    [[(gate >> shift) & 1 for shift in (3, 2, 1, 0)] for gate in range(N_GATES)]
)
"""int64 [16, 4]: each gate at (a, b) = (0,0), (0,1), (1,0), (1,1)."""

ENTRY_COEFFICIENTS: Final[Tensor] = torch.tensor(
    [[1, -1, -1, 1], [0, 0, 1, -1], [0, 1, 0, -1], [0, 0, 0, 1]]
)
"""int64 [4, 4]: the coefficients of a table with a single one, at (0,0), (0,1), (1,0) and (1,1)."""

COEFFICIENTS: Final[Tensor] = TRUTH_TABLE @ ENTRY_COEFFICIENTS
"""int64 [16, 4]: each gate as ``c0 + c1·a + c2·b + c3·ab``."""


def gate_coefficients(weights: Tensor) -> Tensor:
    """Return ``c = w G``, the four coefficients of the mixture ``Σ_i w_i · gate_i``.

    Args:
        weights: [..., 16], any real dtype.

    Returns:
        [..., 4], the coefficients of 1, a, b and ab.

    >>> gate_coefficients(torch.nn.functional.one_hot(torch.tensor(6), 16).double())  # XOR
    tensor([ 0.,  1.,  1., -2.], dtype=torch.float64)
    """
    return weights @ COEFFICIENTS.to(device=weights.device, dtype=weights.dtype)


def entry_coefficients(entries: Tensor) -> Tensor:
    """Return the coefficients [..., 4] of truth tables [..., 4], g(0,0), g(0,1), g(1,0), g(1,1).

    >>> entry_coefficients(torch.tensor([0.0, 1.0, 1.0, 0.0]))  # XOR
    tensor([ 0.,  1.,  1., -2.])
    """
    return entries @ ENTRY_COEFFICIENTS.to(device=entries.device, dtype=entries.dtype)


def reads_inputs(gates: Tensor, *, same_input: Tensor) -> Tensor:
    """Return which inputs a discrete gate's output depends on: bool [2, n] for gates int64 [n].

    Args:
        gates: gate numbers 0..15.
        same_input: bool [n], where A and B are wired to one input; such a gate is a function of one
            bit, constant where g(0,0) = g(1,1).

    >>> reads_inputs(torch.tensor([1, 3, 15]), same_input=torch.zeros(3, dtype=torch.bool))
    tensor([[ True,  True, False],
            [ True, False, False]])
    """
    g00, g01, g10, g11 = TRUTH_TABLE.to(gates.device)[gates].unbind(-1)
    by_a = (g00 != g10) | (g01 != g11)
    by_b = (g00 != g01) | (g10 != g11)
    diagonal = g00 != g11
    return torch.stack(
        [torch.where(same_input, diagonal, by_a), torch.where(same_input, diagonal, by_b)]
    )
