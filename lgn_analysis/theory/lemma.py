"""Lemma 1 of *Mind the Gap*: what Gumbel noise adds to the loss, measured against tr(H).

With F(z) = L(softmax(z/tau)) and g independent Gumbel noise, the gain ``E_g F(z + s·g) − F(z)`` is to
second order ``s² π²/12 tr(∂²F/∂z²)``. Along each draw's line, ``φ(s) = F(z + s·g)``, the Taylor
coefficients φ', φ'', φ''', φ'''' at 0 are known to rounding, and serve twice: the first two as control
variates of the gain, whose expectations are 0 and ``π²/6 tr(H)``, the last two as the next orders of
the lemma, ``s³/6 E φ'''`` and ``s⁴/24 E φ''''``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import positive, real, seed_number, shown, whole
from lgn_analysis.hessian.checks.trial import soft_outputs
from lgn_analysis.hessian.operators.batches import as_batches
from lgn_analysis.hessian.operators.linear import LossFn, ParameterOperator
from lgn_analysis.hessian.operators.losses import (
    check_loss,
    in_double,
    in_double_values,
    refuse_hidden_parameters,
)
from lgn_analysis.hessian.operators.smoothing import GumbelNoise, perturbed_logits
from lgn_analysis.hessian.probe import HessianProbe
from lgn_analysis.hessian.results.intervals import mean_interval, ratio_interval, standard_error
from lgn_analysis.hessian.results.trace import TraceResult
from lgn_analysis.network import LogicNetwork, require_plain

GUMBEL_VARIANCE: Final = math.pi**2 / 6

_STEP: Final = 0.01
"""Step of the differences of φ'', float64: their errors are about 1e-4 φ''''' and 1e-11 φ''."""

_BLOCK: Final = 16


def lemma1(
    model: LogicNetwork,
    data: Any,
    scales: Sequence[float] = (0.1, 0.25, 0.5, 1.0),
    *,
    tau: float | None = None,
    draws: int = 64,
    order: int = 4,
    trace_rtol: float = 0.01,
    trace_probes: int | None = None,
    seed: int = 0,
    loss_fn: LossFn = functional.cross_entropy,
    batch_size: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Compare ``E_g L(softmax((z + s·g)/tau)) − L(softmax(z/tau))`` with ``s² π²/12 tr_z(H)``.

    Everything is float64. The gain is a mean over draws with the control variate ``s·⟨g, ∇F⟩`` and,
    where that narrows it, ``s²/2·gᵀHg``. The trace is in z, so it enters without 1/tau²; in
    u = z/tau the noise has scale ``scale_u = s/tau`` and the trace is ``trace_u = tau²·trace_z``.

    Args:
        model: the network.
        data: as for :class:`lgn_analysis.HessianProbe`.
        scales: noise scales s, above zero; training has s = 1.
        tau: gate temperature; None is the model's.
        draws: noise draws at each scale, at least 2; the same ones at every scale.
        order: 2, 3 or 4, up to which order the expansion is followed; the last two cost two more
            products a draw.
        trace_rtol: tolerance of the trace, where ``trace_probes`` is not given.
        trace_probes: exactly so many probes for the trace.
        seed: seed of the draws and of the trace's probes.
        loss_fn: mean loss.
        batch_size: split the data, to bound memory.
        progress: show a progress bar.

    Returns:
        A row a scale: scale, scale_u, tau, gain, gain_stderr, gain_low, gain_high, prediction,
        prediction_stderr, ratio, ratio_low, ratio_high (95 %, from both intervals; the whole line
        where that of the trace holds zero), control (which control variates), trace_z, trace_u,
        draws, n_matvecs; for ``order`` 3 and more third, third_stderr and ratio_3, the gain over the
        prediction with the third-order term, and for 4 fourth, fourth_stderr and ratio_4.

    Source: Yousefi et al., NeurIPS 2025, Lemma 1; the higher orders are the Taylor series of the
    same expectation.
    """
    require_plain(model, "Lemma 1")
    check_loss(loss_fn)
    draws, seed = whole("draws", draws), seed_number(seed)
    if draws < 2:
        raise InvalidInputError(f"an interval needs at least 2 draws, got {draws}")
    if order not in (2, 3, 4):
        raise InvalidInputError(f"order must be 2, 3 or 4, got {order}")
    if not isinstance(scales, Sequence) or isinstance(scales, str) or not scales:
        raise InvalidInputError(f"scales must be a list of numbers, got {shown(scales)}")
    if not all(math.isfinite(real("scales", scale)) and scale > 0 for scale in scales):
        raise InvalidInputError(f"scales must be finite and above zero, got {[*scales]}")
    tau = model.relaxation.tau if tau is None else positive("tau", tau)
    wide = copy.deepcopy(model).double()
    pieces = [(x, in_double_values(y)) for x, y in as_batches(data, batch_size)]
    probe = HessianProbe(wide, pieces, loss_fn=in_double(loss_fn), tau=tau)
    x, y = pieces[0]
    refuse_hidden_parameters(
        model, in_double(loss_fn), soft_outputs(wide, x), y.to(model.device), what="Lemma 1"
    )
    trace = probe.trace(rtol=trace_rtol, n_probes=trace_probes, seed=seed)
    lines = _lines(wide, probe.operator, scales, draws, order, seed, progress)
    return pd.DataFrame(
        [
            {
                "scale": scale,
                "scale_u": scale / tau,
                "tau": tau,
                **_row(scale, lines, lines[f"at {scale}"], trace, order),
                "trace_z": trace.estimate,
                "trace_u": tau**2 * trace.estimate,
                "draws": draws,
                "n_matvecs": trace.n_matvecs,
            }
            for scale in scales
        ]
    )


def _lines(
    model: LogicNetwork,
    operator: ParameterOperator,
    scales: Sequence[float],
    draws: int,
    order: int,
    seed: int,
    progress: bool,
) -> dict[str, Tensor]:
    """Return for every draw the rise of the loss at each scale, and the derivatives along its line."""
    noise = GumbelNoise(draws=draws, seed=seed)
    start, gradient, base = operator.flatten(operator.params), operator.gradient(), operator.loss()
    names = ["first", "second", "third", "fourth"][:order] + [f"at {scale}" for scale in scales]
    table = {name: torch.zeros(draws, dtype=torch.float64) for name in names}
    with tqdm(total=draws, desc="lemma 1", unit="draw", disable=not progress) as bar:
        for first in range(0, draws, _BLOCK):
            some = range(first, min(first + _BLOCK, draws))
            # The operator's loss divides by tau itself: here only g is added to z.
            moved = [perturbed_logits(operator.params, model, noise, draw) for draw in some]
            g = torch.stack([operator.flatten(params) - start for params in moved])
            curved = (g * operator.row_products(g)).sum(1)
            for place, draw in enumerate(some):
                line = g[place]
                table["first"][draw] = gradient @ line
                table["second"][draw] = curved[place]
                for scale in scales:
                    table[f"at {scale}"][draw] = operator.displaced(scale * line).loss() - base
                if order > 2:
                    before, after = (_curvature(operator, h * line, line) for h in (-_STEP, _STEP))
                    table["third"][draw] = (after - before) / (2 * _STEP)
                    if order > 3:
                        table["fourth"][draw] = (after - 2 * curved[place] + before) / _STEP**2
                bar.update()
    return table


def _curvature(operator: ParameterOperator, step: Tensor, line: Tensor) -> Tensor:
    """Return gᵀHg at z + step."""
    return line @ operator.displaced(step).row_products(line.unsqueeze(0))[0]


def _row(
    scale: float, lines: dict[str, Tensor], rise: Tensor, trace: TraceResult, order: int
) -> dict[str, Any]:
    factor = scale**2 * GUMBEL_VARIANCE / 2
    prediction, stderr = factor * trace.estimate, factor * trace.stderr
    ends = (factor * trace.ci[0], factor * trace.ci[1])
    by_gradient = rise - scale * lines["first"]
    by_both = by_gradient - scale**2 / 2 * lines["second"]
    if float(by_both.std()) < float(by_gradient.std()):
        # The gain is the prediction plus what is left, whose draws know nothing of the probes.
        left, control = by_both, "gradient, curvature"
        rest, (low, high) = float(left.mean()), mean_interval(left)
        gain, gain_stderr = prediction + rest, math.hypot(stderr, standard_error(left))
        below = math.hypot(rest - low, prediction - ends[0])
        above = math.hypot(high - rest, ends[1] - prediction)
        ratio_low, ratio_high = ratio_interval((rest, low, high), (prediction, *ends))
        ratio_low, ratio_high = 1 + ratio_low, 1 + ratio_high
        low, high = gain - below, gain + above
    else:
        left, control = by_gradient, "gradient"
        gain, gain_stderr, (low, high) = (
            float(left.mean()),
            standard_error(left),
            mean_interval(left),
        )
        ratio_low, ratio_high = ratio_interval((gain, low, high), (prediction, *ends))
    row = {
        "gain": gain,
        "gain_stderr": gain_stderr,
        "gain_low": low,
        "gain_high": high,
        "prediction": prediction,
        "prediction_stderr": stderr,
        "ratio": gain / prediction if prediction else math.nan,
        "ratio_low": ratio_low,
        "ratio_high": ratio_high,
        "control": control,
    }
    further = prediction
    for power, name in ((3, "third"), (4, "fourth")):
        if power <= order:
            terms = scale**power / math.factorial(power) * lines[name]
            further += float(terms.mean())
            row[name], row[f"{name}_stderr"] = float(terms.mean()), standard_error(terms)
            row[f"ratio_{power}"] = gain / further if further else math.nan
    return row
