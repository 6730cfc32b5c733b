"""Operators that count their products, or multiply a column at a time."""

import torch

from lgn_analysis.hessian import DenseOperator


class Counting(DenseOperator):
    """Counts the columns it has multiplied, and remembers how many came at once."""

    def __init__(self, matrix, slices=None):
        super().__init__(matrix, slices)
        self.count = 0
        self.widest = 0

    def matmat(self, v):
        self.count += v.shape[1]
        self.widest = max(self.widest, v.shape[1])
        return super().matmat(v)


class Columnwise(DenseOperator):
    """Its products do not depend on how many are asked for, which a BLAS does not promise."""

    def matmat(self, v):
        return torch.stack([self.matrix @ column.contiguous() for column in v.T], dim=1)
