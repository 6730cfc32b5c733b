"""Wirings that a file does not hold, drawn again from a seed and confirmed by an accuracy.

difflogic and gumbel-lgn keep their wirings out of the state dict. Their programs call
``torch.manual_seed(seed)``, may draw a permutation that splits the training data, and then make the
layers in order, each of which draws from torch's CPU generator: on a CPU its logits first, and then
its wiring. So one seed gives the wirings again, if the order of draws is known; whether it was is told
by the accuracy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import real, seed_number, whole
from lgn_analysis.data import Dataset
from lgn_analysis.gates.table import N_GATES
from lgn_analysis.gates.wiring import WIRINGS, make_wiring
from lgn_analysis.metrics.evaluation import check_labels, split_tensors
from lgn_analysis.network import LogicNetwork

_BATCH = 1024
_TOLERANCE = 0.005
"""How far a stated accuracy may be from the measured one: papers and logs round it."""
_STANDARD_ERRORS = 5.0


@dataclass(frozen=True)
class SeededWiring:
    """How difflogic or gumbel-lgn drew the wirings of a network.

    Attributes:
        seed: the seed that its program was given.
        kind: ``"unique"`` (gumbel-lgn always, and difflogic's default) or ``"random"``.
        split: length of a permutation drawn before the first layer: 60000 in difflogic's MNIST program,
            50000 in its CIFAR-10 program, 0 in gumbel-lgn.
        on_cpu: whether the layers were made on a CPU, where their logits are drawn from the same
            generator before each wiring.
    """

    seed: int
    kind: str = "unique"
    split: int = 0
    on_cpu: bool = False

    def __post_init__(self) -> None:
        seed_number(self.seed)
        whole("split", self.split, least=0)
        if self.kind not in WIRINGS:
            raise InvalidInputError(f"kind must be one of {', '.join(WIRINGS)}, got {self.kind!r}")

    def draw(self, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Return the wirings [2, n_out] of layers of these (n_in, n_out), in order."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.split:
            torch.randperm(self.split, generator=generator)
        wirings = []
        for n_in, n_out in sizes:
            if self.on_cpu:
                torch.randn(n_out, N_GATES, generator=generator, dtype=torch.float32)
            if self.kind == "random":
                wirings.append(make_wiring("random", n_in, n_out, generator=generator))
            else:
                pairs = ordered_pairs(n_in, n_out)
                wirings.append(pairs[:, torch.randperm(n_out, generator=generator)])
        return wirings


def ordered_pairs(n_in: int, n_out: int) -> Tensor:
    """Return the first ``n_out`` pairs of difflogic's order, int64 [2, n_out].

    (0, 1), (2, 3), … come first, then (1, 2), (3, 4), …, then all pairs at distance 2, at 3, and so on.
    (This package's own ``unique`` differs where n_in is odd: it reads every input.)

    >>> ordered_pairs(4, 5).T.tolist()
    [[0, 1], [2, 3], [1, 2], [0, 2], [1, 3]]
    """
    if 2 * n_out < n_in or n_out > n_in * (n_in - 1) // 2:
        raise InvalidInputError(
            f"a wiring of kind 'unique' has {(n_in + 1) // 2} to {n_in * (n_in - 1) // 2} gates on {n_in} "
            f"inputs, and this layer has {n_out}; give kind='random', or the wirings themselves"
        )
    starts = [torch.arange(0, n_in - 1, 2), torch.arange(1, n_in - 1, 2)]
    distances = [1, 1]
    while sum(map(len, starts)) < n_out:
        distances.append(distances[-1] + 1)
        starts.append(torch.arange(n_in - distances[-1]))
    a = torch.cat(starts)
    b = torch.cat([start + distance for start, distance in zip(starts, distances, strict=True)])
    return torch.stack([a, b])[:, :n_out]


def confirm(
    network: LogicNetwork, data: Dataset | tuple[Tensor, Tensor], split: str, accuracy: float
) -> None:
    """Raise unless the discrete network has the stated accuracy on the data, and that says something.

    A wrong wiring leaves about the accuracy of guessing. So the accuracy must lie 5 standard errors above
    that of the commonest class, and be met to 0.005.
    """
    x, y = split_tensors(data, split)
    check_labels(y, network.n_classes)
    accuracy = real("accuracy", accuracy)
    if not 0 <= accuracy <= 1:
        raise InvalidInputError(f"accuracy must be a fraction in 0..1, got {accuracy}")
    guessing = int(y.bincount().max()) / len(y)
    needed = guessing + _STANDARD_ERRORS * (guessing * (1 - guessing) / len(y)) ** 0.5
    if accuracy <= needed:
        raise InvalidInputError(
            f"an accuracy of {accuracy:.4f} on {len(y)} samples is not clearly above guessing "
            f"({guessing:.4f}), so it confirms no wiring; give more data, or the wirings themselves"
        )
    correct = 0
    with torch.no_grad():
        for start in range(0, len(y), _BATCH):
            outputs = network(x[start : start + _BATCH].to(network.device), mode="discrete")
            correct += int((outputs.argmax(-1).cpu() == y[start : start + _BATCH].cpu()).sum())
    found = correct / len(y)
    if abs(found - accuracy) > _TOLERANCE:
        raise InvalidInputError(
            f"with these wirings {found:.4f} of the {len(y)} samples are classified rightly, and "
            f"{accuracy:.4f} was stated; the wirings or the data are others: give the seed, its split and "
            "on_cpu as they were, or the wirings themselves"
        )
