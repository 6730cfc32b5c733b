"""Which gates a network uses: entropy, three notions of unused, and the gate histogram."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import entr
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import whole
from lgn_analysis.data import Dataset
from lgn_analysis.gates.parametrisations import GATES16, get_parametrisation
from lgn_analysis.gates.table import GATE_NAMES, N_GATES, reads_inputs
from lgn_analysis.kernels.reference import count_ones
from lgn_analysis.metrics.evaluation import SHAPE, split_tensors
from lgn_analysis.network import (
    LogicLayer,
    LogicNetwork,
    as_bits,
    changed_by_hand,
    check_choices,
    check_features,
    require_network,
)

UNUSED_ENTROPY: Final = 1.8873
"""Lower edge, in nats, of the central 95 % of the entropy of softmax(z), z ~ N(0, 1)^16.

The 2.5 % quantile of 2·10⁷ draws, standard error 0.0002.
"""
UNUSED_ENTROPIES: Final = {
    GATES16: UNUSED_ENTROPY,
    "light": 0.7817,
    "light-sigmoid": 1.9165,
    "walsh": 1.0279,
}
"""The same by parametrisation, of the distribution over gates that parameters from N(0, 1) mean.

Entries of a truth table are independent: it is the sum of four entropies of one bit, at most log 16 too.
"""


@torch.no_grad()
def gate_usage(
    model: LogicNetwork,
    data: Dataset | Tensor | None = None,
    *,
    split: str = "train",
    batch_size: int = 4096,
) -> pd.DataFrame:
    """Return a row a layer: entropy, three notions of unused, and the gate histogram.

    ``unused`` is the paper's: the share of gates whose entropy of softmax(z) still exceeds
    :data:`UNUSED_ENTROPY`; of other parametrisations than sixteen logits it is the entropy of the
    distribution over gates that they mean, with the edge in :data:`UNUSED_ENTROPIES`. It describes training, not function, and has no meaning for a network
    with residual initialisation, which starts below the threshold. ``constant`` is the share whose
    discrete output is the same on every sample of ``data``; NaN without data. ``unreachable`` is
    the share from which no path leads to an output once discretised; NaN where the network was changed by
    hand, as its paths are not known then.

    Args:
        model: the network.
        data: a data set, or bits [n, n_features].
        split: which split of a data set.
        batch_size: samples at a time.
    """
    require_network(model, "gate usage")
    _refuse_other_layers(model)
    constant: list[float] = [math.nan] * len(model.layers)
    if data is not None:
        x = data if isinstance(data, Tensor) else split_tensors(data, split)[0]
        if x.ndim != 2:
            raise InvalidInputError(SHAPE.format(shape=tuple(x.shape)))
        if len(x) == 0:
            raise InvalidInputError("constant gates are counted on at least one sample, got none")
        activity = _gate_activity(model, x, whole("batch_size", batch_size, least=1))
        constant = [float(((n == 0) | (n == len(x))).mean()) for n in activity]
    entropies, gates = [], []
    for layer in model.layers:
        law = get_parametrisation(layer.parametrisation)
        entropies.append(_entropy(_as_float64(law.gate_logits(layer.logits.detach()))))
        gates.append(law.gates(layer.logits).cpu().numpy())
    if any(np.isnan(entropy).any() for entropy in entropies):
        check_choices(model.layers)
    unreachable = [math.nan] * len(model.layers)
    if not changed_by_hand(model, discrete=True):
        unreachable = _unreachable_shares(model, gates)
    rows = []
    for index, (layer, entropy) in enumerate(zip(model.layers, entropies, strict=True)):
        histogram = np.bincount(gates[index], minlength=N_GATES) / layer.n_out
        rows.append(
            {
                "layer": index,
                "n_gates": layer.n_out,
                # NumPy adds in one order; torch's own sum depends on how many threads there are.
                "entropy": float(entropy.mean()),
                "unused": float((entropy > UNUSED_ENTROPIES[layer.parametrisation]).mean()),
                "constant": constant[index],
                "unreachable": unreachable[index],
                **dict(zip(GATE_NAMES, histogram.tolist(), strict=True)),
            }
        )
    return pd.DataFrame(rows)


def _refuse_other_layers(model: LogicNetwork) -> None:
    for index, layer in enumerate(model.layers):
        if not isinstance(layer, LogicLayer):
            raise InvalidInputError(
                f"gate usage counts the gates of LogicLayers, and layer {index} is a "
                f"{type(layer).__name__}"
            )


def gate_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of softmax(z) in nats, [...] for logits [..., 16]; -inf has no part in it."""
    return torch.as_tensor(_entropy(_as_float64(logits)))


def _as_float64(logits: Tensor) -> NDArray[np.float64]:
    z = logits.detach().cpu().resolve_neg()
    # NumPy has no bfloat16.
    return (z.float() if z.dtype == torch.bfloat16 else z).numpy().astype(np.float64)


def _entropy(z: NDArray[np.float64]) -> NDArray[np.float64]:
    # NumPy works on one thread. Torch's threads wait for each other in each of these operations, on
    # busy cores for longer than the operation takes.
    with np.errstate(invalid="ignore"):
        p = z - z.max(-1, keepdims=True)
    np.exp(p, out=p)
    p /= p.sum(-1, keepdims=True)
    summed: NDArray[np.float64] = entr(p).sum(-1)
    return summed


def _gate_activity(model: LogicNetwork, x: Tensor, batch_size: int) -> list[NDArray[np.int64]]:
    """Return on how many samples of x [n, n_features] each gate is 1: int64 [n_out], layer by layer."""
    kernels = model.backend_for("discrete")
    total: list[NDArray[np.int64]] = []
    for inputs in x.split(batch_size):
        ones: Iterable[Tensor]
        if kernels is None:
            ones = (
                count_ones(w, len(inputs))
                for w in model.packed_activations(inputs.to(model.device))
            )
        else:
            check_features(x, model.n_features)
            logits = [layer.logits for layer in model.layers]
            bits = as_bits(inputs.to(model.device))
            ones = kernels.discrete_activity(model.as_spec(), logits, bits)
        counts = [count.cpu().numpy() for count in ones]
        total = counts if not total else [a + b for a, b in zip(total, counts, strict=True)]
    return total


def _unreachable_shares(model: LogicNetwork, gates: Sequence[NDArray[np.int64]]) -> list[float]:
    shares = []
    options = torch.arange(N_GATES)
    reads_two = reads_inputs(options, same_input=torch.zeros(N_GATES, dtype=torch.bool)).numpy()
    reads_one = reads_inputs(options, same_input=torch.ones(N_GATES, dtype=torch.bool)).numpy()
    reachable = np.ones(model.width, dtype=np.bool_)
    for layer, chosen in zip(reversed(model.layers), reversed(gates), strict=True):
        shares.append(1.0 - float(reachable.mean()))
        wiring = layer.wiring.cpu().numpy()
        reads = np.where(wiring[0] == wiring[1], reads_one[:, chosen], reads_two[:, chosen])
        sources = wiring[reads & reachable]
        reachable = np.zeros(layer.n_in, dtype=np.bool_)
        reachable[sources] = True
    return shares[::-1]
