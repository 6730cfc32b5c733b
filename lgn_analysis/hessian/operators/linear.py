"""Linear operators that algorithms see: a shape, products, named slices. No logic gates here.

:class:`DenseOperator` wraps a symmetric matrix; :mod:`.module` and :mod:`.network` hold
the Hessians of any module and of a logic gate network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol, Self

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import shown

Params = dict[str, Tensor]
LossFn = Callable[[Tensor, Tensor], Tensor]
BatchLoss = Callable[[Params, Tensor, Tensor], Tensor]
"""Mean loss of a batch as a function of parameters, x and y."""
ParamLoss = Callable[[Params], Tensor]

MAX_BYTES: Final = 4 * 2**30
"""Memory that one call may plan to take without being asked."""


class SymmetricOperator(Protocol):
    """A symmetric linear operator on flat vectors [n]."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def slices(self) -> Mapping[str, slice]: ...

    def matvec(self, v: Tensor) -> Tensor:
        """Return H v [n] for v [n]."""

    def matmat(self, v: Tensor) -> Tensor:
        """Return H V [n, k] for V [n, k]."""


def row_products(operator: SymmetricOperator, rows: Tensor) -> Tensor:
    """Return H v for each row v of ``rows`` [k, n], in float64.

    An operator that sums in float64, and has a method of this name, does not round in between.
    """
    own = getattr(operator, "row_products", None)
    rows = rows.to(device=operator.device, dtype=operator.dtype)
    products: Tensor = operator.matmat(rows.T).T if own is None else own(rows)
    return products.to(torch.float64, memory_format=torch.contiguous_format)


class DenseOperator:
    """A symmetric matrix [n, n] as an operator.

    >>> DenseOperator(torch.diag(torch.tensor([1.0, 2.0]))).matvec(torch.ones(2))
    tensor([1., 2.])
    """

    def __init__(self, matrix: Tensor, slices: Mapping[str, slice] | None = None) -> None:
        if not isinstance(matrix, Tensor) or not matrix.is_floating_point():
            kind = matrix.dtype if isinstance(matrix, Tensor) else type(matrix).__name__
            raise InvalidInputError(f"expected a matrix in a floating tensor, got {kind}")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InvalidInputError(f"expected a square matrix, got shape {tuple(matrix.shape)}")
        self.matrix = matrix
        self.slices = dict(slices or {"all": slice(0, len(matrix))})

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return (len(self.matrix), len(self.matrix))

    @property
    def dtype(self) -> torch.dtype:
        """dtype of vectors."""
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        """Device of vectors."""
        return self.matrix.device

    def matvec(self, v: Tensor) -> Tensor:
        """Return A v [n]."""
        return self.matrix @ v

    def matmat(self, v: Tensor) -> Tensor:
        """Return A V [n, k]."""
        # Rows times the matrix: on few columns that are strided BLAS is several times slower.
        return (v.T.contiguous() @ self.matrix).T


class ParameterOperator:
    """What operators on a dict of parameters have in common: flat vectors, and checked products.

    The parameters are copied: what happens to the module afterwards does not reach the operator.

    Attributes:
        params: the parameters, detached.
        slices: where each lies in a flat vector.
        shape: (n_params, n_params).
    """

    method: str

    def __init__(self, params: Params) -> None:
        self.params = {name: value.detach().clone() for name, value in params.items()}
        first = next(iter(self.params.values()))
        self.dtype = first.dtype
        self.device = first.device
        self.slices: dict[str, slice] = {}
        start = 0
        for name, value in self.params.items():
            self.slices[name] = slice(start, start + value.numel())
            start += value.numel()
        self.shape = (start, start)

    def matvec(self, v: Tensor) -> Tensor:
        """Return H v, v and result [n_params]."""
        _check_real(v)
        if v.shape != (self.shape[0],):
            raise InvalidInputError(
                f"expected a vector of {self.shape[0]} numbers, got shape {tuple(v.shape)}"
            )
        return self.matmat(v.unsqueeze(1)).squeeze(1)

    def matmat(self, v: Tensor) -> Tensor:
        """Return H V, V and result [n_params, k]."""
        _check_real(v)
        if v.ndim != 2 or v.shape[0] != self.shape[0]:
            raise InvalidInputError(
                f"expected a matrix [{self.shape[0]}, k], got shape {tuple(v.shape)}"
            )
        rows = v.detach().to(device=self.device, dtype=self.dtype).T.contiguous()
        return self.row_products(rows).to(self.dtype).T

    def row_products(self, rows: Tensor) -> Tensor:
        """Return H v for each row v of ``rows`` [k, n_params], in float64."""
        raise NotImplementedError

    def loss(self) -> float:
        """Return the mean loss."""
        raise NotImplementedError

    def gradient(self) -> Tensor:
        """Return ∇L [n_params] in float64."""
        raise NotImplementedError

    def displaced(self, step: Tensor) -> Self:
        """Return the same operator at parameters moved by ``step`` [n_params]."""
        moved = self.unflatten(self.flatten(self.params) + step.to(self.device).double())
        other = copy.copy(self)
        other.move_to(moved)
        return other

    def move_to(self, params: Params) -> None:
        """Take other values of the parameters."""
        self.params = params

    def flatten(self, params: Params) -> Tensor:
        """Return the values of a dict of parameters as one float64 vector [n_params]."""
        return torch.cat([params[name].reshape(-1).double() for name in self.params])

    def unflatten(self, v: Tensor) -> Params:
        """Return a vector [n_params] as a dict of parameters."""
        if v.shape != (self.shape[0],):
            raise InvalidInputError(
                f"expected a vector of {self.shape[0]} numbers, got shape {tuple(v.shape)}"
            )
        return unflatten(v.to(device=self.device, dtype=self.dtype), self.params)


def _check_real(v: object) -> None:
    if not isinstance(v, Tensor) or v.is_complex():
        kind = v.dtype if isinstance(v, Tensor) else shown(type(v))
        raise InvalidInputError(f"a product takes a tensor of real numbers, got {kind}")


@contextmanager
def isolated(device: torch.device, *, draws: bool = True) -> Iterator[None]:
    """Record derivatives whatever surrounds the call, and leave the random state as it was.

    Args:
        device: the one whose random state matters.
        draws: whether what runs inside may draw random numbers. All threads share one state: where it
            is put back, what another thread drew in between comes a second time.
    """
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], enabled=draws),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        yield


def unflatten(v: Tensor, like: Params) -> Params:
    """Return a vector in the names and shapes of ``like``."""
    pieces = v.split([value.numel() for value in like.values()])
    return {
        name: piece.view(value.shape)
        for (name, value), piece in zip(like.items(), pieces, strict=True)
    }
