"""Accuracy, loss and gap over whole splits.

**gap** = soft − discrete and **gap_train** = training forward − discrete, in accuracy, for every
method; the gaps in loss are discrete − soft, so that a positive number is always a cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.memory import require_memory
from lgn_analysis.base.validation import seed_number, shown, whole
from lgn_analysis.data import Dataset
from lgn_analysis.gates.footprint import EVALUATED, evaluation_bytes
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.network import LogicNetwork, call_network, require_network

SHAPE: Final = "x must be [n, n_features], got shape {shape}; one sample is x.unsqueeze(0)"


@dataclass(frozen=True)
class Evaluation:
    """A model on one split; accuracies are fractions, losses mean cross-entropies in nats.

    Attributes:
        flips: predictions that differ between soft and discrete.
        flips_train: predictions that differ between the training forward and discrete, where that is
            noisy their mean over ``noise_draws`` draws.
        gap: soft − discrete accuracy.
        gap_loss: discrete − soft loss.
        gap_train: training forward − discrete accuracy; the training forward is noisy for GumbelST
            and GumbelSoft, soft for Soft and ``argmax z`` for HardST and CAGE.
        noisy_accuracy: mean over ``noise_draws`` draws; NaN where the relaxation draws no noise.
    """

    split: str
    n: int
    soft_accuracy: float
    soft_loss: float
    noisy_accuracy: float
    noisy_loss: float
    discrete_accuracy: float
    discrete_loss: float
    gap: float
    gap_loss: float
    gap_train: float
    gap_train_loss: float
    flips: int
    flips_train: float
    noise_draws: int

    def to_frame(self) -> pd.DataFrame:
        """Return one row."""
        return pd.DataFrame([asdict(self)])

    def __repr__(self) -> str:
        noisy = "" if math.isnan(self.noisy_accuracy) else f", noisy {self.noisy_accuracy:.2%}"
        return (
            f"Evaluation({self.split}, n={self.n}: soft {self.soft_accuracy:.2%}{noisy}, "
            f"discrete {self.discrete_accuracy:.2%}, gap {100 * self.gap:+.2f} pp, "
            f"gap in loss {self.gap_loss:+.4f} nats, {self.flips} flips)"
        )

    def _repr_html_(self) -> str:
        return str(self.to_frame().T.rename(columns={0: ""}).to_html())


@torch.no_grad()
def evaluate(
    model: LogicNetwork,
    data: Dataset | tuple[Tensor, Tensor],
    *,
    split: str = "test",
    noise_draws: int = 8,
    noise_seed: int | None = None,
    batch_size: int = EVALUATED,
) -> Evaluation:
    """Evaluate soft, noisy and discrete over the whole split.

    Args:
        model: left as it is, whatever its mode.
        data: a data set, or a pair (x [n, n_features], y int64 [n]).
        split: ``"train"``, ``"val"`` or ``"test"``; for a pair only a label.
        noise_draws: draws behind the noisy figures, where the relaxation draws noise.
        noise_seed: seed of these draws; None is the model's. Training never uses the same draws.
        batch_size: samples at a time; the result does not depend on it beyond rounding.

    Raises:
        InvalidInputError: the data do not fit the model, or its logits are NaN or its soft loss is
            not finite.
    """
    require_network(model, "an evaluation")
    x, y = split_tensors(data, split)
    check_labels(y, model.n_classes)
    noise_draws = whole("noise_draws", noise_draws, least=1)
    batch_size = whole("batch_size", batch_size, least=1)
    require_memory(
        evaluation_bytes(model, [len(y)], batch_size),
        f"the activations of {model.depth} x {model.width} gates on {min(len(y), batch_size)} samples",
        "lower batch_size",
        device=model.device,
    )
    soft = _Tally()
    discrete = _Tally()
    noisy = _Tally()
    flips = noisy_flips = 0
    seed = model.seed if noise_seed is None else seed_number(noise_seed, "noise_seed")
    keys = [NoiseKey(seed, Purpose.EVALUATION, draw) for draw in range(noise_draws)]
    for inputs, labels in batches(x, y, batch_size, model.device):
        predicted_soft = soft.add(call_network(model, inputs, mode="soft"), labels)
        predicted = discrete.add(call_network(model, inputs, mode="discrete"), labels)
        flips += int((predicted_soft != predicted).sum())
        if model.relaxation_kind.noisy:
            for key in keys:
                logits = call_network(model, inputs, mode="noisy", draw=key)
                noisy_flips += int((noisy.add(logits, labels) != predicted).sum())
    if not math.isfinite(soft.loss):
        # argmax would name a class all the same.
        raise InvalidInputError(
            f"the soft loss on the split {split!r} is {soft.loss}, so its predictions mean nothing; "
            "take finite logits, or raise tau or group_tau"
        )
    kind = model.relaxation_kind
    training, flips_train = (discrete, 0.0) if kind.hard else (soft, float(flips))
    if kind.noisy:
        training, flips_train = noisy, noisy_flips / noise_draws
    return Evaluation(
        split=split,
        n=len(y),
        soft_accuracy=soft.accuracy,
        soft_loss=soft.loss,
        noisy_accuracy=noisy.accuracy,
        noisy_loss=noisy.loss,
        discrete_accuracy=discrete.accuracy,
        discrete_loss=discrete.loss,
        gap=soft.accuracy - discrete.accuracy,
        gap_loss=discrete.loss - soft.loss,
        gap_train=training.accuracy - discrete.accuracy,
        gap_train_loss=discrete.loss - training.loss,
        flips=flips,
        flips_train=flips_train,
        noise_draws=noise_draws if kind.noisy else 0,
    )


def split_tensors(data: Dataset | tuple[Tensor, Tensor], split: str) -> tuple[Tensor, Tensor]:
    """Return (x, y) of one split, or the pair itself, checked for length, emptiness and NaN."""
    pair = data.split(split) if isinstance(data, Dataset) else data
    if not (
        isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(t, Tensor) for t in pair)
    ):
        raise InvalidInputError(
            f"the data must be a Dataset or a pair of tensors (x, y), got {shown(type(data))}; "
            "Dataset.from_arrays makes one of arrays"
        )
    x, y = pair
    if x.ndim != 2:
        raise InvalidInputError(SHAPE.format(shape=tuple(x.shape)))
    if y.ndim == 0 or len(x) != len(y):
        n_labels = len(y) if y.ndim else "a single label"
        raise InvalidInputError(f"x holds {len(x)} samples and y {n_labels}; they must be equal")
    if len(y) == 0:
        raise InvalidInputError(f"the split {split!r} is empty; there is nothing to evaluate")
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).sum())
        raise InvalidInputError(f"the features hold {bad} values that are NaN or infinite")
    return x, y


def check_labels(y: Tensor, n_classes: int) -> None:
    """Raise unless y is [n] and holds integers in 0..n_classes-1."""
    if y.ndim != 1:
        raise InvalidInputError(f"labels must be class numbers [n], got shape {tuple(y.shape)}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise InvalidInputError(f"labels must be integers, got {y.dtype}")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= n_classes:
        raise InvalidInputError(f"labels must lie in 0..{n_classes - 1}, got {low}..{high}")


def batches(
    x: Tensor, y: Tensor, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield consecutive (x, y) on ``device``, the last one short where it must be."""
    batch_size = whole("batch_size", batch_size, least=1)
    for inputs, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
        yield inputs.to(device), labels.to(device, torch.int64)


class _Tally:
    """Sums of hits and losses, weighted by samples, not by batches."""

    def __init__(self) -> None:
        self.n = 0
        self.hits = 0
        self.total_loss = 0.0

    def add(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Count a batch and return its predictions; of tied classes the first wins."""
        predicted = logits.argmax(-1)
        self.n += len(labels)
        self.hits += int((predicted == labels).sum())
        self.total_loss += float(functional.cross_entropy(logits.double(), labels, reduction="sum"))
        return predicted

    @property
    def accuracy(self) -> float:
        return self.hits / self.n if self.n else math.nan

    @property
    def loss(self) -> float:
        return self.total_loss / self.n if self.n else math.nan
