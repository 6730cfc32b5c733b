"""What the tests compare with: second implementations that share nothing with the package.

All in NumPy float64 or Python integers, sixteen gates evaluated one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BOOLEAN: tuple[Callable[[Any, Any], Any], ...] = (
    lambda a, b: False,
    lambda a, b: a and b,
    lambda a, b: a and not b,
    lambda a, b: a,
    lambda a, b: not a and b,
    lambda a, b: b,
    lambda a, b: a != b,
    lambda a, b: a or b,
    lambda a, b: not (a or b),
    lambda a, b: a == b,
    lambda a, b: not b,
    lambda a, b: a or not b,
    lambda a, b: not a,
    lambda a, b: not a or b,
    lambda a, b: not (a and b),
    lambda a, b: True,
)
"""The sixteen gates on truth values."""

REAL: tuple[Callable[[Any, Any], Any], ...] = (
    lambda a, b: 0 * a,
    lambda a, b: a * b,
    lambda a, b: a - a * b,
    lambda a, b: a + 0 * b,
    lambda a, b: b - a * b,
    lambda a, b: b + 0 * a,
    lambda a, b: a + b - 2 * a * b,
    lambda a, b: a + b - a * b,
    lambda a, b: 1 - (a + b - a * b),
    lambda a, b: 1 - (a + b - 2 * a * b),
    lambda a, b: 1 - b + 0 * a,
    lambda a, b: 1 - b + a * b,
    lambda a, b: 1 - a + 0 * b,
    lambda a, b: 1 - a + a * b,
    lambda a, b: 1 - a * b,
    lambda a, b: 1 + 0 * a,
)
"""The same gates on real inputs, as Petersen et al. 2022 print them."""

Array = np.ndarray[Any, Any]


def discrete_outputs(
    x: Sequence[Sequence[int]], layers: Sequence[tuple[Array, Array]]
) -> list[list[int]]:
    """Return the last layer's bits, sample by sample and gate by gate, in Python alone.

    Args:
        x: bits [batch, n_features].
        layers: (gate numbers [n], wiring [2, n]) of each layer.
    """
    outputs = []
    for sample in x:
        bits = [bool(bit) for bit in sample]
        for gates, (first, second) in layers:
            bits = [
                bool(BOOLEAN[gate](bits[a], bits[b]))
                for gate, a, b in zip(gates, first, second, strict=True)
            ]
        outputs.append([int(bit) for bit in bits])
    return outputs


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@dataclass(frozen=True)
class Gradients:
    """Outputs [batch, groups], and the gradients of Σ cotangent · output."""

    outputs: Array
    activations: list[Array]
    logits: list[Array]
    inputs: Array


def network_gradients(
    x: Array,
    cotangent: Array,
    logits: Sequence[Array],
    wirings: Sequence[Array],
    noise: Sequence[Array],
    *,
    tau: float | Sequence[float],
    hard: bool,
    group_tau: float,
    grad_factor: float = 1.0,
) -> Gradients:
    """Evaluate a network and its written gradient rule, sixteen gates at a time.

    With ``s = softmax((z + g) / tau)`` the weights w are s, or ``onehot(argmax(z + g))`` if hard;
    in both cases ``dz_i = s_i (dw_i − Σ_j s_j dw_j) / tau``; ``tau`` may be one a layer.
    """
    taus = [tau] * len(logits) if isinstance(tau, float) else list(tau)
    activations, saved = [x], []
    for z, (first, second), g, t in zip(logits, wirings, noise, taus, strict=True):
        s = softmax((z + g) / t)
        w = np.eye(16)[(z + g).argmax(-1)] if hard else s
        a, b = activations[-1][:, first], activations[-1][:, second]
        h = np.stack([gate(a, b) for gate in REAL], axis=-1)
        saved.append((s, w, a, b, h))
        activations.append((h * w).sum(-1))
    n_groups = cotangent.shape[1]
    block = activations[-1].shape[1] // n_groups
    outputs = np.stack(
        [activations[-1][:, k * block : (k + 1) * block].sum(1) for k in range(n_groups)], axis=1
    )
    dy = np.repeat(cotangent / group_tau, block, axis=1)
    dzs = []
    for (s, w, a, b, h), (first, second), y, t in zip(
        saved[::-1], wirings[::-1], activations[-2::-1], taus[::-1], strict=True
    ):
        dw = (dy[:, :, None] * h).sum(0)
        dzs.append(s * (dw - (s * dw).sum(-1, keepdims=True)) / t)
        one, zero = np.ones_like(a), np.zeros_like(a)
        # A gate is linear in each input, so its derivative is a difference of two values.
        by_a = np.stack([gate(one, b) - gate(zero, b) for gate in REAL], axis=-1)
        by_b = np.stack([gate(a, one) - gate(a, zero) for gate in REAL], axis=-1)
        dx = np.zeros_like(y)
        for gate in range(len(first)):
            dx[:, first[gate]] += dy[:, gate] * (by_a[:, gate] * w[gate]).sum(-1)
            dx[:, second[gate]] += dy[:, gate] * (by_b[:, gate] * w[gate]).sum(-1)
        dy = dx * grad_factor
    return Gradients(outputs / group_tau, activations[1:], dzs[::-1], dy)


def philox4x32_10(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x32-10 in Python integers, from the pseudocode of Salmon et al. 2011."""
    c, k = list(counter), list(key)
    for _ in range(10):
        low = [0xD2511F53 * c[0] % 2**32, 0xCD9E8D57 * c[2] % 2**32]
        high = [0xD2511F53 * c[0] // 2**32, 0xCD9E8D57 * c[2] // 2**32]
        c = [high[1] ^ c[1] ^ k[0], low[1], high[0] ^ c[3] ^ k[1], low[0]]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def noise_words(seed: int, purpose: int, draw: int, layer: int, n_gates: int) -> Array:
    """Return the Philox words [n_gates, 16] of one layer's noise, in the documented layout."""
    key = (seed % 2**32, seed // 2**32)
    blocks = [
        philox4x32_10((block, draw % 2**32, draw // 2**32, purpose * 2**24 + layer), key)
        for block in range(4 * n_gates)
    ]
    return np.array(blocks, dtype=np.int64).reshape(n_gates, 16)


def gumbel_noise(seed: int, purpose: int, draw: int, layer: int, n_gates: int) -> Array:
    """Return −log(−log u), u = (word + ½) / 2³²; in float64 such a u is exact."""
    words = noise_words(seed, purpose, draw, layer, n_gates)
    values = [-math.log(-math.log((word + 0.5) / 2**32)) for word in words.ravel().tolist()]
    return np.array(values).reshape(words.shape)
