"""Kernels of training steps: cross-entropy, Adam in the pass that makes the logits' gradient, the next step."""

from __future__ import annotations

import math
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from lgn_analysis.kernels.cuda.bits import Batch, batch_rows
from lgn_analysis.kernels.cuda.logits import (
    GATES,
    Draw,
    Tau,
    gradient_options,
    inverse_of,
    load_options,
    noise_arguments,
    store_options,
    value_of,
)
from lgn_analysis.kernels.cuda.runtime.launch import cdiv, launch, power_of_two
from lgn_analysis.kernels.interface import AdamRule, Moments, NetworkSpec

SAMPLES: Final = 16
"""Samples that one program of the loss holds."""


@triton.jit
def cross_entropy(
    losses,  # [batch]
    delta,  # [n_groups, batch]
    logits,  # [batch, n_groups]
    labels,  # [n_samples]
    order,  # [n_steps, batch]
    position,  # [1]
    batch,
    n_groups,
    scale,
    BLOCK: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Write the loss of every sample [batch] and ``scale · (softmax − onehot)`` [n_groups, batch]."""
    samples = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    groups = tl.arange(0, GROUPS)
    rows = batch_rows(order, position, samples, batch)
    label = tl.load(labels + rows, mask=samples < batch, other=0)[:, None]
    inside = (samples < batch)[:, None] & (groups < n_groups)[None, :]
    x = tl.load(
        logits + samples[:, None] * n_groups + groups[None, :], mask=inside, other=float("-inf")
    )
    x = tl.where((samples < batch)[:, None], x, 0.0)
    top = tl.max(x, axis=1)[:, None]
    e = tl.exp(x - top)
    total = tl.sum(e, axis=1)[:, None]
    hit = groups[None, :] == label
    of_label = tl.sum(tl.where(hit, x - top, 0.0), axis=1)
    tl.store(losses + samples, tl.log(tl.sum(e, axis=1)) - of_label, mask=samples < batch)
    gradient = scale * (e / total - tl.where(hit, 1.0, 0.0))
    tl.store(delta + groups[None, :] * batch + samples[:, None], gradient, mask=inside)


@triton.jit
def end_step(
    state,  # [4]
    rates,  # [3]
    lrs,  # [n_steps + 1]
    means,  # [n_steps]
    losses,  # [batch]
    batch,
    log_beta1,
    log_beta2,
    weight_decay,
    BLOCK: tl.constexpr,
):
    """Write the mean loss to means float64 [n_steps], and move state and Adam's rates on."""
    loss = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, batch, BLOCK):
        samples = start + tl.arange(0, BLOCK)
        loss += tl.load(losses + samples, mask=samples < batch, other=0.0).to(tl.float64)
    position = tl.load(state + 3)
    tl.store(means + position, tl.sum(loss, axis=0) / batch)
    step = tl.load(state + 2) + 1
    tl.store(state + 1, tl.load(state + 1) + 1)
    tl.store(state + 2, step)
    tl.store(state + 3, position + 1)
    # float64: 1 - beta2**t is a small difference at first.
    t = (step + 1).to(tl.float64)
    correction1 = 1.0 - tl.exp(t * log_beta1)
    correction2 = 1.0 - tl.exp(t * log_beta2)
    lr = tl.load(lrs + position + 1).to(tl.float64)
    tl.store(rates, (lr / correction1).to(tl.float32))
    tl.store(rates + 1, (1.0 / tl.sqrt(correction2)).to(tl.float32))
    tl.store(rates + 2, (1.0 - lr * weight_decay).to(tl.float32))


@triton.jit
def _updated(value, moment, square, rate, correction, kept, epsilon):
    return value * kept - rate * moment / (tl.sqrt(square) * correction + epsilon)


@triton.jit(do_not_specialize=["stream"])
def logit_adam(
    logits,  # [n, 16]
    first_moment,  # [n, 16]
    second_moment,  # [n, 16]
    sums,  # [n_parts, n, 4]
    added,  # [n, 16] if ADDS
    rates,  # [3]
    state,  # [2]
    stream,
    n,
    n_parts,
    inverse_tau,  # a number, or [1] if STORED
    weight1,
    beta2,
    weight2,
    epsilon,
    NOISY: tl.constexpr,
    STORED: tl.constexpr,
    ADDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Take one Adam step on the logits [n, 16] in place; the gradient is never written.

    It is that of these sums, plus ``added`` if it ADDS. ``weight1`` is 1 - beta1 and ``weight2``
    1 - beta2, rounded once. ``rates`` holds lr / (1 - beta1**t), 1 / sqrt(1 - beta2**t) and
    1 - lr · weight_decay, see :func:`end_step`.
    """
    inverse_tau = value_of(inverse_tau, STORED)
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d0, d1, d2, d3 = gradient_options(
        logits, (sums, n_parts), (state, stream), gates, n, inverse_tau, NOISY, BLOCK
    )
    if ADDS:
        a0, a1, a2, a3 = load_options(added, gates, n, BLOCK)
        d0 += a0
        d1 += a1
        d2 += a2
        d3 += a3
    rate = tl.load(rates)
    correction = tl.load(rates + 1)
    kept = tl.load(rates + 2)
    m0, m1, m2, m3 = load_options(first_moment, gates, n, BLOCK)
    m0 += weight1 * (d0 - m0)
    m1 += weight1 * (d1 - m1)
    m2 += weight1 * (d2 - m2)
    m3 += weight1 * (d3 - m3)
    store_options(first_moment, gates, n, m0, m1, m2, m3, BLOCK)
    q0, q1, q2, q3 = load_options(second_moment, gates, n, BLOCK)
    q0 = beta2 * q0 + weight2 * d0 * d0
    q1 = beta2 * q1 + weight2 * d1 * d1
    q2 = beta2 * q2 + weight2 * d2 * d2
    q3 = beta2 * q3 + weight2 * d3 * d3
    store_options(second_moment, gates, n, q0, q1, q2, q3, BLOCK)
    z0, z1, z2, z3 = load_options(logits, gates, n, BLOCK)
    z0 = _updated(z0, m0, q0, rate, correction, kept, epsilon)
    z1 = _updated(z1, m1, q1, rate, correction, kept, epsilon)
    z2 = _updated(z2, m2, q2, rate, correction, kept, epsilon)
    z3 = _updated(z3, m3, q3, rate, correction, kept, epsilon)
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
    added: Tensor | None = None,
) -> None:
    """Take one Adam step on logits [n, 16] in place, for the four sums [n_parts, n, 4].

    Args:
        logits, moments: written in place.
        sums: of the gates.
        draw: the noise, where there is any.
        layer: index of the layer.
        tau: gate temperature.
        rule: Adam's constants; its learning rate is in ``rates``.
        rates: float32 [3], ``lr / (1 - beta1**t)``, ``1 / sqrt(1 - beta2**t)`` and
            ``1 - lr · weight_decay``.
        added: [n, 16], is added to the gradient.
    """
    n = logits.shape[0]
    inverse, stored = inverse_of(tau)
    arrays = (
        logits,
        moments.mean,
        moments.square,
        sums,
        logits if added is None else added,
        rates,
        *noise_arguments(logits, draw, layer),
    )
    sizes = (
        n,
        sums.shape[0],
        inverse,
        1 - rule.betas[0],
        rule.betas[1],
        1 - rule.betas[1],
        rule.eps,
    )
    grid = (cdiv(n, GATES),)
    kinds = {"NOISY": draw is not None, "STORED": stored, "ADDS": added is not None}
    launch(logit_adam, grid, *arrays, *sizes, **kinds, BLOCK=GATES)


def losses_and_deltas(
    network: NetworkSpec, logits: Tensor, labels: Tensor, batch: Batch, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the losses [batch] and the gradient of the group sums [n_groups, batch], float32.

    Args:
        network: the network.
        logits: float32 [batch, n_groups].
        labels: int64 [n], of all samples.
        batch: which of them.
        scale: multiplies the gradient of the mean loss, and not the losses.
    """
    losses = torch.empty(batch.size, dtype=torch.float32, device=logits.device)
    delta = torch.empty(network.n_groups, batch.size, dtype=torch.float32, device=logits.device)
    arrays = (losses, delta, logits, labels, batch.order, batch.position)
    sizes = (batch.size, network.n_groups, scale / (batch.size * network.group_tau))
    grid, groups = (cdiv(batch.size, SAMPLES),), power_of_two(network.n_groups)
    launch(cross_entropy, grid, *arrays, *sizes, BLOCK=SAMPLES, GROUPS=groups)
    return losses, delta


def finish_step(
    state: Tensor, rates: Tensor, lrs: Tensor, means: Tensor, losses: Tensor, rule: AdamRule
) -> None:
    """Write the mean of losses [batch] to means float64 [n_steps]; move state and Adam's rates on.

    ``lrs`` float32 [n_steps + 1] are the learning rates of the steps of a run, and one more.
    """
    logs = [math.log(beta) if beta > 0 else -math.inf for beta in rule.betas]
    arrays, sizes = (state, rates, lrs, means, losses), (len(losses), *logs, rule.weight_decay)
    launch(end_step, (1,), *arrays, *sizes, BLOCK=256)
