"""The sum over groups of gates that turns a layer's outputs into class logits."""

from __future__ import annotations

from torch import Tensor, nn

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import positive, whole
from lgn_analysis.network import parts
from lgn_analysis.network.inputs import check_divisible


@parts.unpatched
class GroupSum(nn.Module):
    """Sum contiguous blocks of features and divide by ``group_tau``: [batch, n] -> [batch, groups].

    Args:
        n_groups: number of groups; the features must be a multiple of it.
        group_tau: group-sum temperature, above zero.
    """

    def __init__(self, n_groups: int, group_tau: float = 1.0) -> None:
        super().__init__()
        self.n_groups = whole("n_groups", n_groups, least=1)
        self.group_tau = positive("group_tau", group_tau)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., n_groups] for x [..., n]."""
        if x.ndim == 0:
            raise InvalidInputError(f"expected values [batch, n], got shape {tuple(x.shape)}")
        check_divisible("n", x.shape[-1], "n_groups", self.n_groups)
        return x.unflatten(-1, (self.n_groups, -1)).sum(-1) / self.group_tau

    def extra_repr(self) -> str:
        return f"{self.n_groups}, group_tau={self.group_tau}"
