"""Linear operators that algorithms see: a shape, products, named slices. No logic gates here.

:class:`ModuleHessian` is the Hessian of a mean loss over data in parameters of any ``nn.Module``,
through ``torch.func``; :class:`DenseOperator` wraps a symmetric matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from lgn_analysis.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.hessian.batches import Batch

Params = dict[str, Tensor]
LossFn = Callable[[Tensor, Tensor], Tensor]
BatchLoss = Callable[[Params, Tensor, Tensor], Tensor]
"""Mean loss of a batch as a function of parameters, x and y."""
ParamLoss = Callable[[Params], Tensor]

_BLOCK_ELEMENTS: Final = 2**21


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


class DenseOperator:
    """A symmetric matrix [n, n] as an operator.

    >>> DenseOperator(torch.diag(torch.tensor([1.0, 2.0]))).matvec(torch.ones(2))
    tensor([1., 2.])
    """

    def __init__(self, matrix: Tensor, slices: Mapping[str, slice] | None = None) -> None:
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
        return self.matrix @ v


class ModuleHessian:
    """H = ∇² of the mean loss over all samples, in a dict of parameters.

    Each product differentiates the gradient along v, forward over reverse; where a module has no
    forward-mode derivative, it differentiates ⟨∇L, v⟩ once more instead. Sums over batches are
    float64, each batch weighted by its samples.

    Attributes:
        method: ``"forward-over-reverse"`` or ``"double-backward"``, whichever the module allows.
        vectorised: whether several vectors can share a product (``vmap``).
        slices: where each parameter lies in a flat vector.
    """

    def __init__(
        self, batch_losses: Sequence[BatchLoss], params: Params, batches: Sequence[Batch]
    ) -> None:
        self._losses = list(batch_losses)
        self._params = {name: value.detach() for name, value in params.items()}
        self._batches = list(batches)
        self._n_samples = sum(len(y) for _, y in batches)
        first = next(iter(self._params.values()))
        self.dtype = first.dtype
        self.device = first.device
        self.slices: dict[str, slice] = {}
        start = 0
        for name, value in self._params.items():
            self.slices[name] = slice(start, start + value.numel())
            start += value.numel()
        self.shape = (start, start)
        self.method = self._find_method()
        self.vectorised = self._can_vectorise()

    def matvec(self, v: Tensor) -> Tensor:
        """Return H v, v and result [n_params]."""
        tangent = self.unflatten(v)
        total = torch.zeros(self.shape[0], dtype=torch.float64, device=self.device)
        for weight, loss in self._weighted():
            total += weight * self.flatten(self._product(loss, tangent))
        return total.to(self.dtype)

    def matmat(self, v: Tensor) -> Tensor:
        """Return H V, V and result [n_params, k]."""
        columns = v.to(device=self.device, dtype=self.dtype).T
        if not self.vectorised:
            return torch.stack([self.matvec(column) for column in columns], dim=1)
        return torch.cat([self._block(block) for block in columns.split(self._block_size)]).T

    def loss(self, at: Params | None = None) -> float:
        """Return the mean loss, at other parameters where given."""
        params = self._params if at is None else at
        with torch.no_grad():
            return float(sum(weight * loss(params).double() for weight, loss in self._weighted()))

    def gradient(self, at: Params | None = None) -> Tensor:
        """Return ∇L [n_params] in float64, at other parameters where given."""
        params = self._params if at is None else at
        total = torch.zeros(self.shape[0], dtype=torch.float64, device=self.device)
        for weight, loss in self._weighted():
            total += weight * self.flatten(grad(loss)(params))
        return total

    def flatten(self, params: Params) -> Tensor:
        """Return the values of a dict of parameters as one float64 vector [n_params]."""
        return torch.cat([params[name].reshape(-1).double() for name in self._params])

    def unflatten(self, v: Tensor) -> Params:
        """Return a vector [n_params] as a dict of parameters."""
        if v.shape != (self.shape[0],):
            raise InvalidInputError(
                f"expected a vector of {self.shape[0]} numbers, got shape {tuple(v.shape)}"
            )
        v = v.to(device=self.device, dtype=self.dtype)
        return {
            name: v[where].reshape(self._params[name].shape) for name, where in self.slices.items()
        }

    @property
    def params(self) -> Params:
        """The parameters, detached."""
        return self._params

    def _weighted(self) -> list[tuple[float, ParamLoss]]:
        """Return (weight, loss) for every batch and loss; the weights add to one."""
        return [
            (len(y) / self._n_samples / len(self._losses), _at(loss, x, y))
            for x, y in self._batches
            for loss in self._losses
        ]

    def _block(self, rows: Tensor) -> Tensor:
        """Return the products of rows [k, n_params], all at once."""
        tangents = vmap(self.unflatten)(rows)
        total = torch.zeros(rows.shape, dtype=torch.float64, device=self.device)
        for weight, loss in self._weighted():
            products = vmap(partial(self._product, loss))(tangents)
            total += weight * vmap(self.flatten)(products)
        return total.to(self.dtype)

    @property
    def _block_size(self) -> int:
        """How many vectors share a product: as many as keep their tangents small."""
        largest = max(x.numel() for x, _ in self._batches)
        return max(1, _BLOCK_ELEMENTS // (self.shape[0] + largest))

    def _can_vectorise(self) -> bool:
        """Return whether the module's products can be batched by ``vmap``."""
        _, loss = self._weighted()[0]
        tangents = {
            name: torch.zeros(2, *value.shape).to(value) for name, value in self._params.items()
        }
        try:
            vmap(partial(self._product, loss))(tangents)
        except (RuntimeError, NotImplementedError):
            return False
        return True

    def _product(self, loss: ParamLoss, tangent: Params) -> Params:
        if self.method == "forward-over-reverse":
            product: Params = jvp(grad(loss), (self._params,), (tangent,))[1]
            return product
        pullback = vjp(grad(loss), self._params)[1]
        back: Params = pullback(tangent)[0]
        return back

    def _find_method(self) -> str:
        tangent = {name: torch.zeros_like(value) for name, value in self._params.items()}
        _, loss = self._weighted()[0]
        try:
            jvp(grad(loss), (self._params,), (tangent,))
            return "forward-over-reverse"
        except NotDifferentiableError:
            raise
        except (RuntimeError, NotImplementedError) as forward_error:
            try:
                vjp(grad(loss), self._params)[1](tangent)
                return "double-backward"
            except (RuntimeError, NotImplementedError) as error:
                raise NotDifferentiableError(
                    f"the gradient of this module cannot be differentiated: {error}"
                ) from forward_error


def _at(loss: BatchLoss, x: Tensor, y: Tensor) -> ParamLoss:
    return lambda params: loss(params, x, y)
