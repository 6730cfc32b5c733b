"""Is the mean Gumbel-ST gradient that of the noise-free network? A cosine, for one draw to draws without end.

By Gumbel-max the gates of a hard noisy network are drawn with the probabilities softmax(z), so that where
paths share no gates its expected output is the output of the soft network at tau 1. Let d be the Gumbel-ST
gradient of one batch under one draw, m its mean over draws and V the sum of its variances, and s the soft network's
gradient of the same batch. The mean of M draws has the power ``‖m‖² + V/M``, so its signal-to-noise ratio, squared, is
``M ‖m‖²/V``, and its cosine with s is near ``cos(m, s) / √(1 + V/(M ‖m‖²))``, however well m and s agree. What does
not depend on M is

    cos(m, s) = ⟨m, s⟩ / (‖m‖ ‖s‖).

Draws come in K blocks, with mean gradients ḡ_k. Products of independent means have no noise of their own:
``E⟨ḡ_k, ḡ_l⟩ = ‖m‖²`` for k ≠ l, and the average U over all such pairs estimates ``‖m‖²`` without bias. The
cosine is that of averages, ``mean⟨ḡ_k, s⟩ / (‖s‖ √U)``, its estimate and interval those of the jackknife over
blocks: mean and Student's interval of ``K c − (K − 1) c_without_k``.

The loss is linear in the labels: ``L = mean(logsumexp f − mean f) + mean(mean f − f_label)``. Its second term alone
knows the labels and is linear in the outputs f, so that for it the argument above holds; the first also
rewards outputs of less variance, a gradient that the noise itself makes (:mod:`lgn_analysis.theory.hard_lemma`).
Both the whole gradient and that of the second term are compared.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.memory import require_memory
from lgn_analysis.base.validation import seed_number, whole
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import GumbelST, Soft
from lgn_analysis.gates.table import N_GATES
from lgn_analysis.hessian.operators.linear import isolated
from lgn_analysis.hessian.results.intervals import mean_interval
from lgn_analysis.metrics import check_labels
from lgn_analysis.network import LogicNetwork, as_bits, check_features, require_plain

BLOCK: Final = 64
"""Draws of a block: a power of :data:`FACTOR`."""
FACTOR: Final = 4
PARTS: Final = ("whole", "labels")


def gradient_alignment(
    model: LogicNetwork, batch: tuple[Tensor, Tensor], *, draws: int = 4096, seed: int = 0
) -> pd.DataFrame:
    """Return cosines of means of Gumbel-ST gradients with the gradient of the soft network at tau 1.

    Both are ∂L/∂z of the mean cross-entropy of one batch, at the logits of ``model``, whatever its relaxation;
    Gumbel-ST has the model's tau. See :mod:`lgn_analysis.theory.gradient_alignment`.

    Args:
        model: the network; left as it is.
        batch: bits [n, n_features] and labels int64 [n].
        draws: noise draws, a multiple of 64, at least 512.
        seed: seed of the draws.

    Returns:
        A row a layer (0 the first), part and number of draws M = 1, 4, 16 …, and inf:

        - ``part``: ``"whole"`` gradient, or that of the term with the ``"labels"``.
        - ``means``: means of M draws behind the row, independent; for inf, blocks.
        - ``cosine``, ``cosine_low``, ``cosine_high``: mean over them and 95 % interval; for inf cos(m, s), NaN
          where the mean cannot be told from zero.
        - ``snr_squared``: ``‖m‖²`` over the power of the noise in a mean of M draws.
        - ``slope``, ``signal``: ``⟨m, s⟩ / ‖s‖²`` and ``‖m‖² / ‖s‖²``, without bias, of all draws.

    Raises:
        InvalidInputError: draws out of range, inputs that do not fit, or a network changed by hand.
    """
    require_plain(model, "the alignment of gradients")
    draws, seed = whole("draws", draws), seed_number(seed)
    if draws % BLOCK or draws < 8 * BLOCK:
        raise InvalidInputError(
            f"draws must be a multiple of {BLOCK}, at least {8 * BLOCK}, got {draws}"
        )
    x, y = batch
    check_features(x, model.n_features)
    check_labels(y, model.n_classes)
    blocks = draws // BLOCK
    require_memory(
        model.n_gates * N_GATES * model.dtype.itemsize * len(PARTS) * (blocks + 4),
        f"{len(PARTS) * blocks} mean gradients of {model.depth} x {model.width} gates",
        "take fewer draws",
        device=model.device,
    )
    x, y = as_bits(x).to(model.device), y.to(model.device)
    noisy = copy.deepcopy(model).train().requires_grad_()
    noisy.relaxation = GumbelST(model.relaxation.tau)
    soft = copy.deepcopy(model).train().requires_grad_()
    soft.relaxation = Soft(1.0)
    with isolated(model.device, draws=False):
        target = _gradients(soft, x, y, None)
        sums = [_Block(noisy, x, y, seed, block, target) for block in range(blocks)]
    rows = []
    for part, name in enumerate(PARTS):
        for layer, s in enumerate(target[part]):
            found = _Layer([block.sums[part][layer] for block in sums], s)
            within = [block.within[part][layer] for block in sums]
            rows += [{"layer": layer, "part": name, **row} for row in found.rows(within)]
    return pd.DataFrame(rows)


def _gradients(
    model: LogicNetwork, x: Tensor, y: Tensor, key: NoiseKey | None
) -> list[list[Tensor]]:
    """Return the whole gradient and that of the term with the labels, layer by layer."""
    logits = [layer.logits for layer in model.layers]
    outputs = model(x, draw=key)
    of_labels = (outputs.mean(1) - outputs.gather(1, y.unsqueeze(1)).squeeze(1)).mean()
    labels = torch.autograd.grad(of_labels, logits, retain_graph=True)
    loss = functional.cross_entropy(outputs, y)
    return [list(torch.autograd.grad(loss, logits)), list(labels)]


class _Block:
    """The sum of a block's gradients, and the means of its first 1, 4, 16 … draws.

    Attributes:
        sums: by part and layer, the mean gradient [gates · 16].
        within: by part and layer, a pair (⟨ḡ, s⟩, ‖ḡ‖²) for each number of draws below the block's.
    """

    def __init__(
        self,
        model: LogicNetwork,
        x: Tensor,
        y: Tensor,
        seed: int,
        block: int,
        target: Sequence[Sequence[Tensor]],
    ) -> None:
        self.sums = [[torch.zeros_like(s) for s in part] for part in target]
        self.within: list[list[list[tuple[float, float]]]] = [[[] for _ in s] for s in target]
        looks = set(_powers(BLOCK)[:-1])
        for draw in range(BLOCK):
            key = NoiseKey(seed, Purpose.PROBE, block * BLOCK + draw)
            for part, gradients in enumerate(_gradients(model, x, y, key)):
                for layer, g in enumerate(gradients):
                    total = self.sums[part][layer]
                    total += g
                    if draw + 1 in looks:
                        n = draw + 1
                        pair = (_dot(total, target[part][layer]) / n, _dot(total, total) / n**2)
                        self.within[part][layer].append(pair)
        for part_sums in self.sums:
            for total in part_sums:
                total /= BLOCK


class _Layer:
    """What the mean gradients of a layer's blocks say: products with each other and with s."""

    def __init__(self, means: Sequence[Tensor], s: Tensor) -> None:
        stack = torch.stack([mean.view(-1) for mean in means]).double()
        s = s.double().view(-1)
        self.norm = float(s.norm())
        self.along = (stack @ s).cpu().numpy()  # [blocks]
        self.products = (stack @ stack.T).cpu().numpy()  # [blocks, blocks]

    def rows(self, within: Sequence[Sequence[tuple[float, float]]]) -> list[dict[str, float]]:
        """Return a row a number of draws; ``within`` are the pairs of each block's first draws."""
        signal, limit = self._limit()
        whole = {"slope": float(self.along.mean()), "signal": signal}
        whole = {name: value / self.norm**2 for name, value in whole.items()}
        found = []
        for m, (along, power) in [*self._below(within), *self._from_block()]:
            cosines = torch.from_numpy(along / (np.sqrt(power) * self.norm))
            ends = (math.nan, math.nan) if len(cosines) < 2 else mean_interval(cosines)
            noise = float(power.mean()) - signal
            row = {"draws": float(m), "means": len(along), "cosine": float(cosines.mean())}
            row |= {"cosine_low": ends[0], "cosine_high": ends[1]}
            found.append({**row, "snr_squared": signal / noise, **whole})
        last = {"draws": math.inf, "means": len(self.along), **limit}
        return [*found, {**last, "snr_squared": math.inf, **whole}]

    def _below(
        self, within: Sequence[Sequence[tuple[float, float]]]
    ) -> list[tuple[int, tuple[np.ndarray, np.ndarray]]]:
        table = np.asarray(within, dtype=float)  # [blocks, numbers, 2]
        return [
            (m, (table[:, index, 0], table[:, index, 1]))
            for index, m in enumerate(_powers(BLOCK)[:-1])
        ]

    def _from_block(self) -> list[tuple[int, tuple[np.ndarray, np.ndarray]]]:
        """Return products of means of whole blocks and more."""
        blocks, found = len(self.along), []
        for m in [m for m in _powers(blocks * BLOCK) if m >= BLOCK]:
            size = m // BLOCK
            groups = [slice(i, i + size) for i in range(0, blocks - size + 1, size)]
            along = np.array([self.along[group].mean() for group in groups])
            power = np.array([self.products[group, group].mean() for group in groups])
            found.append((m, (along, power)))
        return found

    def _limit(self) -> tuple[float, dict[str, float]]:
        """Return U, and the jackknife's estimate and interval of cos(m, s)."""
        k = len(self.along)
        others = self.products.sum(1) - self.products.diagonal()  # of each block with all others
        total = float(others.sum())
        signal = total / (k * (k - 1))
        without = (total - 2 * others) / ((k - 1) * (k - 2))
        pseudo_signal = torch.from_numpy(k * signal - (k - 1) * without)
        nothing = {"cosine": math.nan, "cosine_low": math.nan, "cosine_high": math.nan}
        if mean_interval(pseudo_signal)[0] <= 0 or without.min() <= 0:
            return signal, nothing
        along = float(self.along.mean())
        along_without = (k * along - self.along) / (k - 1)
        pseudo = k * along / math.sqrt(signal) - (k - 1) * along_without / np.sqrt(without)
        values = torch.from_numpy(pseudo / self.norm)
        low, high = mean_interval(values)
        return signal, {"cosine": float(values.mean()), "cosine_low": low, "cosine_high": high}


def _powers(most: int) -> list[int]:
    """Return 1, 4, 16 … up to ``most``."""
    return [FACTOR**i for i in range(int(math.log(most, FACTOR) + 1e-9) + 1)]


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.double().view(-1), b.double().view(-1)))
