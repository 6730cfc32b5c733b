"""The lemma of the forward that GLGNs really use: what drawing gates adds to the loss.

A hard noisy forward evaluates at every gate n the one option ``k_n = argmax(z_n + g_n)``, the same for
all samples. By Gumbel-max ``P(k_n = k) = p_n(k)``, p = softmax(z), whatever the temperature of training
is, and gates choose independently. In the space of gate weights the hard network stands at
``w_n = onehot(k_n)`` and the soft one of tau 1 at their mean p_n. With ``Δ = w − p``,

    E L(w) − L(p) = ⟨∇L, E Δ⟩ + ½ Σ_nm E[Δ_nᵀ (∂²L/∂p_n ∂p_m) Δ_m] + …

The first term is zero as E Δ is, and so are those of two gates, as they choose independently. A gate
reaches the loss of sample i only through ``y_n(i) = p_n · h_n(i)``, linearly, h_n(i) its sixteen outputs
on the soft network's activations, and the loss is a mean over samples. So
``∂²L/∂p_n² = Σ_i h_n(i) h_n(i)ᵀ ∂²L/∂y_n(i)²``, and with ``E (Δ_n · h_n(i))² = Var_p(h_n(i))``

    E L(hard) − L(soft at tau 1) ≈ ½ Σ_n Σ_i Var_p(h_n(i)) ∂²L/∂y_n(i)².

What is left out are the third cumulants of single gates, and joint choices of two and more. Lemma 1 is
another statement: it follows the soft network whose logits are perturbed.

The sum is one over pairs of gate and sample, as the trace's ``Σ q ∂²L/∂y²`` is: probes in activation space
estimate it, of squared length ``q = Var_p(h)`` (:mod:`lgn_analysis.hessian.estimators.activation`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from lgn_analysis.base import distributed
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import seed_number, whole
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import GumbelST, one_hot_argmax, soft_weights
from lgn_analysis.gates.table import gate_coefficients
from lgn_analysis.hessian.checks.trial import soft_outputs
from lgn_analysis.hessian.estimators.activation import FEWEST, Activations
from lgn_analysis.hessian.estimators.stopping import run
from lgn_analysis.hessian.operators.batches import Batch, as_batches
from lgn_analysis.hessian.operators.known_losses import recognise, weights_of
from lgn_analysis.hessian.operators.linear import LossFn
from lgn_analysis.hessian.operators.losses import (
    as_mean,
    check_loss,
    in_double,
    in_double_values,
    refuse_hidden_parameters,
)
from lgn_analysis.hessian.operators.network import NetworkHessian
from lgn_analysis.hessian.probe import HessianProbe
from lgn_analysis.hessian.results.intervals import (
    Tolerances,
    mean_interval,
    ratio_interval,
    standard_error,
)
from lgn_analysis.kernels import select_backend
from lgn_analysis.network import LogicNetwork, require_plain


def hard_lemma(
    model: LogicNetwork,
    data: Any,
    *,
    draws: int = 256,
    rtol: float | None = 0.02,
    n_probes: int | None = None,
    seed: int = 0,
    loss_fn: LossFn = functional.cross_entropy,
    batch_size: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Compare ``E_g L(argmax(z + g)) − L(softmax(z))`` with ``½ Σ_n Σ_i Var_p(h_n(i)) ∂²L/∂y_n(i)²``.

    The first is the gain of the hard noisy forward, that of a Gumbel-ST network with these logits,
    whatever relaxation and tau the model has; it is measured by exact forward passes, draw by draw. The
    second is its expansion to second order; see :mod:`lgn_analysis.theory.hard_lemma`. Soft loss and
    second derivatives are float64, gates are drawn in float32.

    ``⟨∇_p L, onehot − p⟩``, of which the expectation is zero, is subtracted from a draw's loss where that
    narrows the interval (a control variate).

    Args:
        model: the network; left as it is.
        data: as for :class:`lgn_analysis.HessianProbe`.
        draws: noise draws, at least 2.
        rtol: relative half-width of the prediction's interval, where ``n_probes`` is not given.
        n_probes: exactly so many probes for the prediction.
        seed: seed of the draws and of the probes.
        loss_fn: mean loss, to which each sample contributes by itself.
        batch_size: split the data, to bound memory.
        progress: show a progress bar.

    Returns:
        A row: soft_loss (at tau 1), gain, gain_stderr, gain_low, gain_high, prediction,
        prediction_stderr, prediction_low, prediction_high, ratio (gain over prediction), ratio_low,
        ratio_high (95 %, from both intervals; the whole line where that of the prediction holds zero),
        control (``"gradient"`` or ``"none"``), draws, n_matvecs.

    Raises:
        InvalidInputError: fewer than 2 draws, a network changed by hand, or a loss that couples samples or
            reads parameters.
    """
    require_plain(model, "the hard lemma")
    check_loss(loss_fn)
    draws, seed = whole("draws", draws), seed_number(seed)
    if draws < 2:
        raise InvalidInputError(f"an interval needs at least 2 draws, got {draws}")
    wide_loss = in_double(loss_fn)
    wide = copy.deepcopy(model).double().requires_grad_()
    pieces = [(x, in_double_values(y)) for x, y in as_batches(data, batch_size)]
    if recognise(loss_fn) is None:
        x, y = pieces[0]
        outputs = soft_outputs(wide, x)
        refuse_hidden_parameters(
            model, wide_loss, outputs, y.to(model.device), what="the hard lemma"
        )
    operator = HessianProbe(wide, pieces, loss_fn=wide_loss, tau=1.0).operator
    if not isinstance(operator, NetworkHessian) or operator.couples:
        raise InvalidInputError(
            "the hard lemma needs a loss to which each sample contributes by itself"
        )
    curvature = run(
        Activations(operator, seed, weight="variance"),
        n_probes=n_probes,
        tolerances=Tolerances(rtol),
        smallest=FEWEST,
    )
    soft_loss = operator.loss()
    losses, first = _draw_losses(model, operator, pieces, wide_loss, draws, seed, progress)
    plain = losses - soft_loss
    controlled = plain - first
    control = "gradient" if float(controlled.std()) < float(plain.std()) else "none"
    gains = controlled if control == "gradient" else plain
    gain, (low, high) = float(gains.mean()), mean_interval(gains)
    prediction, ends = curvature.estimate / 2, (curvature.ci[0] / 2, curvature.ci[1] / 2)
    ratio_low, ratio_high = ratio_interval((gain, low, high), (prediction, *ends))
    return pd.DataFrame(
        [
            {
                "soft_loss": soft_loss,
                "gain": gain,
                "gain_stderr": standard_error(gains),
                "gain_low": low,
                "gain_high": high,
                "prediction": prediction,
                "prediction_stderr": curvature.stderr / 2,
                "prediction_low": ends[0],
                "prediction_high": ends[1],
                "ratio": gain / prediction if prediction else math.nan,
                "ratio_low": ratio_low,
                "ratio_high": ratio_high,
                "control": control,
                "draws": draws,
                "n_matvecs": curvature.n_matvecs,
            }
        ]
    )


@torch.no_grad()
def _draw_losses(
    model: LogicNetwork,
    operator: NetworkHessian,
    pieces: Sequence[Batch],
    loss_fn: LossFn,
    draws: int,
    seed: int,
    progress: bool,
) -> tuple[Tensor, Tensor]:
    """Return each draw's loss, and the first-order term ``⟨∇_c L, c(onehot) − c(p)⟩``: float64 [draws]."""
    hard = copy.deepcopy(model).float()
    hard.relaxation = GumbelST()
    kernels = select_backend(hard.device, hard.backend)
    logits = [layer.logits.detach() for layer in hard.layers]
    means = [gate_coefficients(soft_weights(z.double(), 1.0)) for z in logits]
    slopes = torch.stack([piece.curvature.slopes for piece in operator.pieces()]).sum(0)
    slopes = distributed.total(slopes)
    weights = [weights_of(loss_fn)(y) for _, y in pieces]
    losses = torch.zeros(draws, dtype=torch.float64)
    first = torch.zeros(draws, dtype=torch.float64)
    for draw in tqdm(range(draws), desc="hard lemma", unit="draw", disable=not progress):
        key = NoiseKey(seed, Purpose.PROBE, draw)
        for (x, y), weight in zip(pieces, weights, strict=True):
            if weight:
                outputs = hard(x.to(hard.device), mode="noisy", draw=key).double()
                value = as_mean(loss_fn(outputs, y.to(hard.device)))
                losses[draw] += weight / sum(weights) * float(value)
        for layer, z in enumerate(logits):
            g = kernels.gumbel(key, layer, len(z), dtype=z.dtype, device=z.device)
            step = gate_coefficients(one_hot_argmax(z + g)).double() - means[layer]
            first[draw] += float((slopes[layer] * step).sum())
    return losses, first
