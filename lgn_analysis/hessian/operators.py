"""Linear operators that algorithms see: a shape, products, named slices. No logic gates here.

:class:`ModuleHessian` is the Hessian of a mean loss over data in parameters of any ``nn.Module``,
exact; :class:`DenseOperator` wraps a symmetric matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.func import grad, jvp

from lgn_analysis.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.hessian.batches import Batch

Params = dict[str, Tensor]
LossFn = Callable[[Tensor, Tensor], Tensor]
BatchLoss = Callable[[Params, Tensor, Tensor], Tensor]
"""Mean loss of a batch as a function of parameters, x and y."""
ParamLoss = Callable[[Params], Tensor]

MAX_BYTES: Final = 4 * 2**30
"""Memory that one call may plan to take without being asked."""

_TRIAL: Final = 16
"""Samples that the methods are tried on."""


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

    Sums over batches are float64, each batch weighted by its samples. Two methods give the same
    product. ``"double-backward"`` differentiates ⟨∇L, v⟩ once more; the columns of one ``matmat``
    share the graph of ∇L, which makes it the faster one. ``"forward-over-reverse"`` is
    ``torch.func.jvp`` of ``torch.func.grad`` and needs about half the memory. The first that the
    module allows is taken.

    Attributes:
        method: which of the two is in use.
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

    def matvec(self, v: Tensor) -> Tensor:
        """Return H v, v and result [n_params]."""
        if v.shape != (self.shape[0],):
            raise InvalidInputError(
                f"expected a vector of {self.shape[0]} numbers, got shape {tuple(v.shape)}"
            )
        return self.matmat(v.unsqueeze(1)).squeeze(1)

    def matmat(self, v: Tensor) -> Tensor:
        """Return H V, V and result [n_params, k]."""
        if v.ndim != 2 or v.shape[0] != self.shape[0]:
            raise InvalidInputError(
                f"expected a matrix [{self.shape[0]}, k], got shape {tuple(v.shape)}"
            )
        rows = v.detach().to(device=self.device, dtype=self.dtype).T.contiguous()
        total = torch.zeros_like(rows, dtype=torch.float64)
        with isolated(self.device):
            for weight, loss in self._weighted():
                for index, product in enumerate(self.products(loss, self._params, rows)):
                    total[index] += weight * product.double()
        return total.T.to(self.dtype)

    def products(self, loss: ParamLoss, params: Params, rows: Tensor) -> Iterator[Tensor]:
        """Yield H v of one batch's loss at ``params`` for each row v of ``rows`` [k, n_params]."""
        return METHODS[self.method](loss, params, rows)

    def loss(self, at: Params | None = None) -> float:
        """Return the mean loss, at other parameters where given."""
        params = self._params if at is None else at
        with isolated(self.device), torch.no_grad():
            return float(sum(weight * loss(params).double() for weight, loss in self._weighted()))

    def gradient(self, at: Params | None = None) -> Tensor:
        """Return ∇L [n_params] in float64, at other parameters where given."""
        total = torch.zeros(self.shape[0], dtype=torch.float64, device=self.device)
        with isolated(self.device):
            for weight, loss in self._weighted():
                total += weight * value_and_gradient(loss, self._params if at is None else at)[1]
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
        return unflatten(v.to(device=self.device, dtype=self.dtype), self._params)

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

    def _find_method(self) -> str:
        rows = torch.ones(1, self.shape[0], dtype=self.dtype, device=self.device)
        x, y = self._batches[0]
        loss = _at(self._losses[0], x[:_TRIAL], y[:_TRIAL])
        failures: list[str] = []
        for method, products in METHODS.items():
            try:
                with isolated(self.device):
                    list(products(loss, self._params, rows))
                return method
            except NotDifferentiableError:
                raise
            except (RuntimeError, NotImplementedError) as error:
                failures.append(f"{method}: {str(error).splitlines()[0]}")
        raise NotDifferentiableError(
            f"the gradient of this module cannot be differentiated ({'; '.join(failures)}); a "
            "custom autograd.Function needs a backward of differentiable operations"
        )


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Record derivatives whatever surrounds the call, and leave the random state as it was."""
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        yield


def value_and_gradient(loss: ParamLoss, params: Params) -> tuple[float, Tensor]:
    """Return the loss and its gradient as one float64 vector."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    value = loss(leaves)
    gradient = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    return float(value.detach()), torch.cat([g.reshape(-1).double() for g in gradient])


def unflatten(v: Tensor, like: Params) -> Params:
    """Return a vector in the names and shapes of ``like``."""
    pieces = v.split([value.numel() for value in like.values()])
    return {
        name: piece.view(value.shape)
        for (name, value), piece in zip(like.items(), pieces, strict=True)
    }


def _double_backward(loss: ParamLoss, params: Params, rows: Tensor) -> Iterator[Tensor]:
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    inputs = list(leaves.values())
    parts = torch.autograd.grad(loss(leaves), inputs, create_graph=True, materialize_grads=True)
    gradient = torch.cat([part.reshape(-1) for part in parts])
    for index, row in enumerate(rows):
        if not gradient.requires_grad:  # the loss is linear in the parameters
            yield torch.zeros_like(row)
            continue
        product = torch.autograd.grad(
            gradient, inputs, row, retain_graph=index + 1 < len(rows), materialize_grads=True
        )
        yield torch.cat([part.reshape(-1) for part in product])


def _forward_over_reverse(loss: ParamLoss, params: Params, rows: Tensor) -> Iterator[Tensor]:
    gradient = grad(loss)
    for row in rows:
        product = jvp(gradient, (params,), (unflatten(row, params),))[1]
        yield torch.cat([part.reshape(-1) for part in product.values()])


Products = Callable[[ParamLoss, Params, Tensor], Iterator[Tensor]]
METHODS: Final[dict[str, Products]] = {
    "double-backward": _double_backward,
    "forward-over-reverse": _forward_over_reverse,
}


def _at(loss: BatchLoss, x: Tensor, y: Tensor) -> ParamLoss:
    return lambda params: loss(params, x, y)
