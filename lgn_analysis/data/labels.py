"""Training labels that say less of the inputs than the true ones, to tell learning from what else training does."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch

from lgn_analysis.base.errors import DataError
from lgn_analysis.base.memory import require_memory
from lgn_analysis.base.validation import whole
from lgn_analysis.data.dataset import Dataset
from lgn_analysis.data.splits import random_order

TRUE: Final = "true"
PERMUTED: Final = "permuted"
INDEPENDENT: Final = "independent"
LABELS: Final = (TRUE, PERMUTED, INDEPENDENT)


def relabelled(data: Dataset, labels: str, *, seed: int = 0) -> Dataset:
    """Return the data with other training labels; validation and test labels stay the true ones.

    ``"permuted"`` gives each training sample the label of another, drawn by ``seed``. Class counts stay. There
    is nothing to generalise, but the labels are fixed: a network can still learn them by heart.

    ``"independent"`` holds every training sample once with every class, ``n_classes`` times as many samples:
    sample ``j n + i`` has input i and class ``(i + j) mod n_classes``. Over this split inputs and labels are
    independent, exactly, so no network can do better than to give each class the probability
    ``1/n_classes``, and its least cross-entropy is ``ln n_classes``: the loss says nothing of the input. What
    a batch says by chance the rest of the epoch takes back.

    Args:
        data: with its true labels.
        labels: one of :data:`LABELS`; ``"true"`` returns the data as they are.
        seed: draws the permutation, 0 … 2^64-1.

    Raises:
        DataError: unknown ``labels``, labels that were changed already, or too little memory.
    """
    if labels not in LABELS:
        raise DataError(f"unknown labels {labels!r}; use one of {', '.join(LABELS)}")
    if labels == TRUE:
        return data
    if data.labels != TRUE:
        raise DataError(
            f"the training labels of {data.name!r} are {data.labels} already; start from the data with "
            "true ones"
        )
    if labels == PERMUTED:
        seed = whole("label_seed", seed, most=2**64 - 1, error=DataError)
        order = torch.from_numpy(random_order(len(data.y_train), seed=seed))
        shuffled = data.y_train[order.to(data.y_train.device)]
        return replace(data, y_train=shuffled, labels=PERMUTED, label_seed=seed)
    n, classes = len(data.y_train), data.n_classes
    require_memory(
        classes * data.x_train.numel(),
        f"every training sample of {data.name!r} with each of its {classes} classes",
        "use fewer thresholds, or permuted labels",
        device=data.x_train.device,
        error=DataError,
    )
    places = torch.arange(n * classes, device=data.y_train.device)
    return replace(
        data,
        x_train=data.x_train.repeat(classes, 1),
        y_train=(places % n + places // n) % classes,
        labels=INDEPENDENT,
    )
