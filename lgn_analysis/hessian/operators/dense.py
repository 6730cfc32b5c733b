"""The matrix of an operator, where it is small enough to be made."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.memory import format_bytes, require_memory
from lgn_analysis.base.validation import shown
from lgn_analysis.hessian.operators.linear import SymmetricOperator, row_products

METHODS: Final = ("auto", "lanczos", "dense")

_LIMIT: Final = 3000
"""Dimension above which no dense matrix is made without being asked: its solution takes n³."""

_COLUMNS: Final = 64
"""Products made at a time."""


def is_dense(method: str, n: int, *, products: int, max_bytes: int) -> bool:
    """Return whether the matrix [n, n] is to be made: asked for, or no dearer than ``products``."""
    if method not in METHODS:
        raise InvalidInputError(f"method must be one of {', '.join(METHODS)}, got {shown(method)}")
    cheap = n <= min(products, _LIMIT) and dense_bytes(n) <= max_bytes
    return method == "dense" or (method == "auto" and cheap)


def dense_bytes(n: int) -> int:
    """Return the memory that the matrix and its eigenvectors take, in float64, LAPACK's own included."""
    return 8 * 7 * n * n


def dense_matrix(operator: SymmetricOperator, *, max_bytes: int) -> NDArray[np.float64]:
    """Return H [n, n] as float64, from n products; not made symmetric.

    Raises:
        InvalidInputError: the matrix and its eigenvectors would not fit ``max_bytes``.
    """
    n = operator.shape[0]
    if dense_bytes(n) > max_bytes:
        raise InvalidInputError(
            f"the eigenvalues of a dense matrix of {n} rows take {format_bytes(dense_bytes(n))}, and "
            f"max_bytes allows {format_bytes(max_bytes)}; use method='lanczos', or raise max_bytes"
        )
    require_memory(
        dense_bytes(n),
        f"the eigenvalues of a dense matrix of {n} rows",
        "use method='lanczos'",
    )
    rows = rows_of(operator)
    if not bool(rows.isfinite().all()):
        raise InvalidInputError("the product of the operator and a unit vector is not finite")
    matrix: NDArray[np.float64] = rows.T.cpu().numpy()
    return matrix


def rows_of(operator: SymmetricOperator) -> Tensor:
    """Return H e_i for all i as rows, float64 [n, n]."""
    n = operator.shape[0]
    matrix = torch.empty(n, n, dtype=torch.float64, device=operator.device)
    for start in range(0, n, _COLUMNS):
        width = min(_COLUMNS, n - start)
        unit = torch.zeros(width, n, dtype=operator.dtype, device=operator.device)
        unit[torch.arange(width), start + torch.arange(width)] = 1
        matrix[start : start + width] = row_products(operator, unit)
    return matrix
