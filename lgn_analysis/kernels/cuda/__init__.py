"""The CUDA backend: fused Triton kernels, feature-major, activations packed as bits.

* ``noise``, ``logits``: noise, argmax, softmax and the 16 → 4 map in one pass, and back;
* ``bits``: packing, unpacking, batches out of packed data;
* ``forward``, ``backward``: gates, group sums, the four sums and input gradients;
* ``layer``, ``network``: a layer, and whole passes over a network;
* ``training``: whole training steps, captured in a CUDA graph;
* ``curvature``: derivatives along directions of logits and along random signs in the outputs of gates;
* ``runtime``: who reads what; starting, recording and compiling kernels.

:mod:`lgn_analysis.kernels.reference` is the specification. Nothing here is imported before a CUDA
tensor, or a user, asks for it: Triton exists on Linux alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import MAX_GATES, NoiseKey
from lgn_analysis.gates.parametrisations import GATES16
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.cuda.bits import pack_bits, unpack_bits
from lgn_analysis.kernels.cuda.curvature.operator import Curvature
from lgn_analysis.kernels.cuda.forward import gates_forward_packed, group_sums
from lgn_analysis.kernels.cuda.layer import GateLayer
from lgn_analysis.kernels.cuda.logits import Draw, noise
from lgn_analysis.kernels.cuda.network import discrete_activity, discrete_forward, training_forward
from lgn_analysis.kernels.cuda.training.run import TrainingRun
from lgn_analysis.kernels.interface import PackedSamples

__all__ = [
    "NAME",
    "PARAMETRISATIONS",
    "Curvature",
    "PackedSamples",
    "TrainingRun",
    "discrete_activity",
    "discrete_forward",
    "gate_layer",
    "gate_layer_packed",
    "group_sums",
    "gumbel",
    "pack_bits",
    "training_forward",
    "unpack_bits",
]

NAME: Final = "cuda"
PARAMETRISATIONS: Final = frozenset({GATES16})
_DTYPES: Final = (torch.float32, torch.float64)


def gumbel(
    key: NoiseKey,
    layers: Tensor | Sequence[int] | int,
    n_gates: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cuda",
) -> Tensor:
    """Return Gumbel noise [..., n_gates, 16], ``layers`` leading; see :func:`lgn_analysis.gates.noise.gumbel`.

    The words are those of every backend; a value lies within the bound stated there.
    """
    if n_gates > MAX_GATES:
        raise InvalidInputError(f"noise addresses at most {MAX_GATES} gates a layer, not {n_gates}")
    if dtype not in _DTYPES:
        raise InvalidInputError(
            f"Gumbel noise is float32 or float64, not {dtype}; convert the model: model.float()"
        )
    draw = Draw.of(key, torch.device(device))
    which = torch.as_tensor(layers, dtype=torch.int64)
    rows = [noise(draw, layer, n_gates, dtype) for layer in which.reshape(-1).tolist()]
    if which.ndim == 0:
        return rows[0]
    return torch.stack(rows).reshape(*which.shape, n_gates, -1)


def gate_layer(x: Tensor, wiring: Tensor, coefficients: Tensor) -> Tensor:
    """Return ``c0 + c1·a + c2·b + c3·ab`` [n_out, ...] for x [n_in, ...], any trailing shape.

    Differentiable any number of times; the first derivative is fused, others are plain PyTorch.
    """
    if coefficients.dtype not in _DTYPES or x.dtype != coefficients.dtype:
        return reference.gate_layer(x, wiring, coefficients)
    outputs: Tensor = GateLayer.apply(x.flatten(1), wiring, coefficients)
    return outputs.reshape(-1, *x.shape[1:])


def gate_layer_packed(words: Tensor, wiring: Tensor, gates: Tensor) -> Tensor:
    """Return the outputs of discrete gates [n_out, n_words] on packed bits [n_in, n_words]."""
    return gates_forward_packed(words, wiring, gates)
