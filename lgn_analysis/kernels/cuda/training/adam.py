"""Adam in the pass that makes the gradient of the logits, which is never written."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from lgn_analysis.kernels.cuda.logits import (
    gradient_options,
    load_options,
    store_options,
    value_of,
)
from lgn_analysis.kernels.cuda.relax import GATES, Draw, Tau, inverse_of, noise_arguments
from lgn_analysis.kernels.cuda.runtime.launch import cdiv, launch
from lgn_analysis.kernels.interface import AdamRule, Moments


@triton.jit
def _updated(
    value: tl.tensor,
    moment: tl.tensor,
    square: tl.tensor,
    rate: tl.tensor,
    correction: tl.tensor,
    epsilon: tl.tensor,
) -> tl.tensor:
    return value - rate * moment / (tl.sqrt(square) * correction + epsilon)


@triton.jit(do_not_specialize=["stream"])
def logit_adam(
    logits: tl.tensor,
    moments: tl.tensor,
    squares: tl.tensor,
    sums: tl.tensor,
    rates: tl.tensor,
    state: tl.tensor,
    stream: tl.tensor,
    n: tl.tensor,
    n_parts: tl.tensor,
    inverse_tau: tl.tensor,
    weight1: tl.tensor,
    beta2: tl.tensor,
    weight2: tl.tensor,
    epsilon: tl.tensor,
    NOISY: tl.constexpr,
    STORED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Take one Adam step on the logits [n, 16] in place; the gradient is never written.

    ``weight1`` is 1 - beta1 and ``weight2`` 1 - beta2, rounded once. ``rates`` holds
    lr / (1 - beta1**t) and 1 / sqrt(1 - beta2**t), see :func:`advance`.
    """
    inverse_tau = value_of(inverse_tau, STORED)
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d0, d1, d2, d3 = gradient_options(
        logits, sums, state, stream, gates, n, n_parts, inverse_tau, NOISY, BLOCK
    )
    rate = tl.load(rates)
    correction = tl.load(rates + 1)
    m0, m1, m2, m3 = load_options(moments, gates, n, BLOCK)
    m0 += weight1 * (d0 - m0)
    m1 += weight1 * (d1 - m1)
    m2 += weight1 * (d2 - m2)
    m3 += weight1 * (d3 - m3)
    store_options(moments, gates, n, m0, m1, m2, m3, BLOCK)
    q0, q1, q2, q3 = load_options(squares, gates, n, BLOCK)
    q0 = beta2 * q0 + weight2 * d0 * d0
    q1 = beta2 * q1 + weight2 * d1 * d1
    q2 = beta2 * q2 + weight2 * d2 * d2
    q3 = beta2 * q3 + weight2 * d3 * d3
    store_options(squares, gates, n, q0, q1, q2, q3, BLOCK)
    z0, z1, z2, z3 = load_options(logits, gates, n, BLOCK)
    z0 = _updated(z0, m0, q0, rate, correction, epsilon)
    z1 = _updated(z1, m1, q1, rate, correction, epsilon)
    z2 = _updated(z2, m2, q2, rate, correction, epsilon)
    z3 = _updated(z3, m3, q3, rate, correction, epsilon)
    store_options(logits, gates, n, z0, z1, z2, z3, BLOCK)


def adam_step(
    logits: Tensor,
    moments: Moments,
    sums: Tensor,
    draw: Draw | None,
    layer: int,
    *,
    tau: Tau,
    rule: AdamRule,
    rates: Tensor,
) -> None:
    """Take one Adam step on logits [n, 16] in place, for the four sums [n_parts, n, 4].

    ``rates`` float32 [2] holds ``lr / (1 - beta1**t)`` and ``1 / sqrt(1 - beta2**t)``.
    """
    n = logits.shape[0]
    inverse, stored = inverse_of(tau)
    launch(
        logit_adam,
        (cdiv(n, GATES),),
        logits,
        moments.mean,
        moments.square,
        sums,
        rates,
        *noise_arguments(logits, draw, layer),
        n,
        sums.shape[0],
        inverse,
        1 - rule.betas[0],
        rule.betas[1],
        1 - rule.betas[1],
        rule.eps,
        NOISY=draw is not None,
        STORED=stored,
        BLOCK=GATES,
    )
