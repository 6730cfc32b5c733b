"""Gumbel noise in the logits: the smoothed loss that a probe differentiates, and Lemma 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
import torch
from torch.nn import functional

from lgn_analysis.errors import InvalidInputError
from lgn_analysis.hessian.intervals import mean_interval, ratio_interval
from lgn_analysis.hessian.operators import LossFn, Params
from lgn_analysis.network import LogicNetwork
from lgn_analysis.noise import NoiseKey, Purpose, gumbel

GUMBEL_VARIANCE: Final = math.pi**2 / 6


@dataclass(frozen=True)
class GumbelNoise:
    """Frozen draws of Gumbel noise on all logits, recomputed whenever they are needed.

    Attributes:
        tau: gate temperature of the smoothed loss; None is the model's.
        draws: how many draws the loss is a mean over.
        seed: names the draws; probing never uses those of training.
    """

    tau: float | None = None
    draws: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InvalidInputError(f"draws must be at least 1, got {self.draws}")
        if self.tau is not None and not (math.isfinite(self.tau) and self.tau > 0):
            raise InvalidInputError(f"tau must be finite and above zero, got {self.tau}")


def perturbed_logits(
    params: Params,
    model: LogicNetwork,
    noise: GumbelNoise | None,
    draw: int | None,
    scale: float = 1.0,
    tau: float | None = None,
) -> Params:
    """Return logits whose soft mode is ``softmax((z + s·g)/tau)``; without noise ``softmax(z/tau)``.

    The model divides by its own tau, so the logits are scaled by ``tau_model / tau``; tau None is
    the noise's, or else the model's.
    """
    own = model.relaxation.tau
    tau = tau or (noise.tau if noise else None) or own
    perturbed = dict(params)
    for index, layer in enumerate(model.layers):
        name = f"layers.{index}.logits"
        if name in params:
            z = params[name]
            if noise is not None and draw is not None:
                key = NoiseKey(noise.seed, Purpose.PROBE, draw)
                z = z + scale * gumbel(key, index, layer.n_out, dtype=z.dtype, device=z.device)
            perturbed[name] = z if tau == own else z * (own / tau)
    return perturbed


def lemma1(
    model: LogicNetwork,
    data: Any,
    scales: Sequence[float] = (0.1, 0.25, 0.5, 1.0),
    *,
    tau: float | None = None,
    draws: int = 64,
    trace_rtol: float = 0.05,
    trace_probes: int | None = None,
    seed: int = 0,
    loss_fn: LossFn = functional.cross_entropy,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Compare ``E_g L(softmax((z + s·g)/tau)) − L(softmax(z/tau))`` with ``s² π²/12 tr_z(H)``.

    The gain is a mean over draws with the control variate ``s·⟨g, ∇F⟩``, whose expectation is zero:
    the mean of g is common to a gate's 16 logits and the gradient is orthogonal to that direction.
    The trace is in z, so it enters without 1/tau²; ``trace_u = tau²·trace_z`` is beside it.

    Args:
        model: the network.
        data: as for :class:`lgn_analysis.HessianProbe`.
        scales: noise scales s, above zero; training has s = 1.
        tau: gate temperature; None is the model's.
        draws: noise draws at each scale, at least 2; the same ones at every scale.
        trace_rtol: tolerance of the trace, where ``trace_probes`` is not given.
        trace_probes: exactly so many Hutchinson probes.
        seed: seed of the draws and of the trace's probes.
        loss_fn: mean loss.
        batch_size: split the data, to bound memory.

    Returns:
        A row a scale: scale, tau, gain, gain_stderr, gain_low, gain_high, prediction,
        prediction_stderr, ratio, ratio_low, ratio_high (95 %, from both intervals; the whole line where
        that of the trace holds zero),
        trace_z, trace_u, draws, n_matvecs.

    Source: Yousefi et al., NeurIPS 2025, Lemma 1.
    """
    from lgn_analysis.hessian.probe import HessianProbe

    if draws < 2:
        raise InvalidInputError(f"an interval needs at least 2 draws, got {draws}")
    if not all(math.isfinite(scale) and scale > 0 for scale in scales):
        raise InvalidInputError(f"scales must be finite and above zero, got {[*scales]}")
    tau = model.relaxation.tau if tau is None else tau
    probe = HessianProbe(model, data, loss_fn=loss_fn, tau=tau, batch_size=batch_size)
    trace = probe.trace(rtol=trace_rtol, n_probes=trace_probes, seed=seed)
    base, gradient = probe.loss(), probe.grad()
    noise = GumbelNoise(draws=draws, seed=seed)
    params = probe.operator.params
    rows = []
    for scale in scales:
        gains = []
        for draw in range(draws):
            # The probe's loss divides by its own tau: here only s·g is added to z.
            moved = perturbed_logits(params, model, noise, draw, scale)
            step = probe.operator.flatten(moved) - probe.operator.flatten(params)
            gains.append(probe.operator.loss(moved) - base - float(step @ gradient))
        sample = torch.tensor(gains, dtype=torch.float64)
        gain, stderr = float(sample.mean()), float(sample.std()) / math.sqrt(draws)
        gain_low, gain_high = mean_interval(sample)
        factor = scale**2 * GUMBEL_VARIANCE / 2
        prediction, prediction_stderr = factor * trace.estimate, factor * trace.stderr
        ends = (factor * trace.ci[0], factor * trace.ci[1])
        low, high = ratio_interval((gain, gain_low, gain_high), (prediction, *ends))
        rows.append(
            {
                "scale": scale,
                "tau": tau,
                "gain": gain,
                "gain_stderr": stderr,
                "gain_low": gain_low,
                "gain_high": gain_high,
                "prediction": prediction,
                "prediction_stderr": prediction_stderr,
                "ratio": gain / prediction if prediction else math.nan,
                "ratio_low": low,
                "ratio_high": high,
                "trace_z": trace.estimate,
                "trace_u": tau**2 * trace.estimate,
                "draws": draws,
                "n_matvecs": trace.n_matvecs,
            }
        )
    return pd.DataFrame(rows)
