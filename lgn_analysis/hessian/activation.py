"""tr(H) of a logic gate network by probes in activation space, what no general tool can do.

With p = softmax(z/tau) per gate, H is a block-diagonal part of the softmax, whose trace is exact
from one gradient, plus ``G = Jᵀ (∂²L/∂p²) J``. A gate touches sample i only through its output
y_n(i), linearly in p, and the loss is a mean over samples, so

    tr G = Σ_n Σ_i q_n(i) · ∂²L/∂y_n(i)²,   q_n(i) = ‖J_nᵀ h_n(i)‖²,

h_n(i) the sixteen gate outputs. With independent signs per gate *and per sample*,
``u_n(i) = ± √q_n(i)``, one product with the Hessian in the layers' outputs gives an unbiased
estimate in which no two samples interfere; its error is estimated from the differences of as few as
two probes at every sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd
import torch
from scipy.special import stdtrit
from torch import Tensor
from tqdm.auto import tqdm

from lgn_analysis.errors import InvalidInputError
from lgn_analysis.gates import COEFFICIENTS, gate_coefficients
from lgn_analysis.hessian.batches import Batch
from lgn_analysis.hessian.intervals import ALPHA, STOPPED_ALPHA, looks
from lgn_analysis.hessian.operators import LossFn, Params, isolated
from lgn_analysis.hessian.results import TraceResult
from lgn_analysis.hessian.smoothing import GumbelNoise, perturbed_logits
from lgn_analysis.kernels import reference
from lgn_analysis.network import LogicNetwork
from lgn_analysis.noise import Purpose, derive_seed

SMALLEST: Final = 2
"""Probes of the first look; every sample is a witness of its own, so two already give an error."""


def activation_trace(
    model: LogicNetwork,
    batches: Sequence[Batch],
    *,
    loss_fn: LossFn,
    layers: Sequence[int],
    noise: GumbelNoise | None,
    tau: float,
    rtol: float | None = 0.01,
    atol: float | None = None,
    n_probes: int | None = None,
    max_matvecs: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> TraceResult:
    """Return the trace of the soft loss's Hessian in the logits of some layers, with its interval.

    Args:
        model: the network.
        batches: bits and labels.
        loss_fn: a mean over samples to which each sample contributes by itself.
        layers: indices of the layers whose logits are probed.
        noise: the frozen noise of a smoothed loss; None for none.
        tau: gate temperature.
        rtol: half-width at most ``rtol·|estimate|``.
        atol: half-width at most this; either tolerance suffices.
        n_probes: exactly so many probes, at least 2, whatever the tolerances.
        max_matvecs: the most products to spend.
        seed: seed of the signs.
        progress: show a progress bar.

    Raises:
        InvalidInputError: no tolerance, or too few probes.
    """
    first = min(SMALLEST, max_matvecs) if n_probes is None else n_probes
    if first < 2:
        raise InvalidInputError(f"an interval needs at least 2 probes, got {first}")
    if n_probes is None and rtol is None and atol is None:
        raise InvalidInputError("give a tolerance (rtol or atol), or n_probes")
    n_samples = sum(len(y) for _, y in batches)
    draws: Sequence[int | None] = range(noise.draws) if noise else (None,)
    exact = torch.zeros(len(layers), dtype=torch.float64)
    # Each look builds the graphs of all pieces again: keeping them would cost more than the network.
    tally = _Tally(len(layers))
    bar = tqdm(desc="trace", unit="probe", disable=not progress)
    converged, reason, alpha = True, f"{first} probes as asked", ALPHA
    sizes = [first] if n_probes is not None else looks(first, max_matvecs)
    done = 0
    for look in sizes:
        for index, piece in enumerate(_pieces(model, batches, loss_fn, layers, noise, tau, draws)):
            scale = len(piece.labels) / n_samples / len(draws)
            if done == 0:
                exact += scale * piece.soft
            generator = torch.Generator().manual_seed(_piece_seed(seed, index, done))
            for _ in range(look - done):
                tally.add(index, scale * piece.probe(generator))
        bar.update(look - done)
        done = look
        if n_probes is not None:
            break
        alpha = STOPPED_ALPHA
        half = tally.half_width(alpha)
        size = abs(float(exact.sum()) + tally.estimate)
        options = [(rtol, size, "rtol"), (atol, 1.0, "atol")]
        allowed, name = max((f * by, label) for f, by, label in options if f is not None)
        converged = half <= allowed
        if converged:
            reason = f"converged ({name})"
            break
        reason = f"stopped at max_matvecs={max_matvecs}: ± {half:.2g}, {name} asks {allowed:.2g}"
    bar.close()
    estimate = float(exact.sum()) + tally.estimate
    half = tally.half_width(alpha)
    return TraceResult(
        estimate=estimate,
        stderr=tally.stderr,
        ci=(estimate - half, estimate + half),
        per_layer=pd.DataFrame(
            {
                "layer": [f"layers.{index}.logits" for index in layers],
                "estimate": (exact + tally.per_layer).tolist(),
                "stderr": tally.layer_stderr.tolist(),
            }
        ),
        n_matvecs=done,
        converged=converged,
        reason=f"{reason}; softmax part exact, activation-space probes",
        seed=seed,
    )


@dataclass(frozen=True)
class _Piece:
    """The graph of one batch's mean loss at one draw, from which probes are taken.

    Attributes:
        offsets: zero [n_l, batch] added to the outputs of each probed layer.
        slopes: ∂L/∂offsets, with their graph.
        lengths: √q [n_l, batch] of each probed layer.
        soft: the exact trace of each layer's softmax part.
    """

    labels: Tensor
    offsets: list[Tensor]
    slopes: list[Tensor]
    lengths: list[Tensor]
    soft: Tensor

    def probe(self, generator: torch.Generator) -> Tensor:
        """Return one probe's contributions [n_layers, batch], float64."""
        u = []
        for length in self.lengths:
            signs = torch.randint(0, 2, length.shape, generator=generator, dtype=torch.int8)
            u.append((2 * signs - 1).to(length) * length)
        products = torch.autograd.grad(
            self.slopes, self.offsets, u, retain_graph=True, materialize_grads=True
        )
        parts = [(a.double() * b.double()).sum(0) for a, b in zip(u, products, strict=True)]
        return torch.stack(parts).cpu()


def _pieces(
    model: LogicNetwork,
    batches: Sequence[Batch],
    loss_fn: LossFn,
    layers: Sequence[int],
    noise: GumbelNoise | None,
    tau: float,
    draws: Sequence[int | None],
) -> Iterator[_Piece]:
    logits = {name: value.detach() for name, value in model.named_parameters()}
    for draw in draws:
        moved = perturbed_logits(logits, model, noise, draw, tau=tau)
        for x, y in batches:
            with isolated(model.device):
                yield _piece(
                    model, moved, x.to(model.device), y.to(model.device), loss_fn, layers, tau
                )


def _piece(
    model: LogicNetwork,
    logits: Params,
    x: Tensor,
    y: Tensor,
    loss_fn: LossFn,
    layers: Sequence[int],
    tau: float,
) -> _Piece:
    own = model.relaxation.tau
    features = x.to(model.dtype).T.contiguous()
    offsets, coefficients, lengths, shares = [], [], [], []
    for index, layer in enumerate(model.layers):
        p = torch.softmax(logits[f"layers.{index}.logits"] / own, dim=-1)
        c = gate_coefficients(p)
        if index in layers:
            c.requires_grad_()
            coefficients.append(c)
            shares.append(p)
            lengths.append(_lengths(p, c.detach(), features.detach(), layer.wiring, tau))
        features = reference.gate_layer(features, layer.wiring, c)
        if index in layers:
            offset = torch.zeros_like(features, requires_grad=True)
            offsets.append(offset)
            features = features + offset
    loss = loss_fn(model.group_sum(features.T), y)
    gradients = torch.autograd.grad(
        loss, [*offsets, *coefficients], create_graph=True, materialize_grads=True
    )
    slopes = list(gradients[: len(offsets)])
    soft = [
        _softmax_trace(p, dc.detach(), tau)
        for p, dc in zip(shares, gradients[len(offsets) :], strict=True)
    ]
    return _Piece(y, offsets, slopes, lengths, torch.stack(soft).cpu())


def _lengths(p: Tensor, c: Tensor, features: Tensor, wiring: Tensor, tau: float) -> Tensor:
    """Return √q = ‖p ∘ (h − y)‖ / tau [n, batch]: a quadratic form in (1, a, b, ab) per gate."""
    spread = p.unsqueeze(-1) * (COEFFICIENTS.to(p) - c.unsqueeze(1))  # [n, 16, 4]
    form = torch.einsum("nki,nkj->nij", spread, spread)
    a, b = features.index_select(0, wiring[0]), features.index_select(0, wiring[1])
    basis = torch.stack([torch.ones_like(a), a, b, a * b], dim=1)  # [n, 4, batch]
    q = (basis * (form @ basis)).sum(1)
    return q.clamp(min=0).sqrt() / tau


def _softmax_trace(p: Tensor, dc: Tensor, tau: float) -> Tensor:
    """Return ``tau⁻² Σ_gates −2 Σ_k p_k² (s_k − s̄)``, s = ∂L/∂p, float64."""
    p, s = p.double(), (dc.double() @ COEFFICIENTS.to(dc.device).double().T)
    mean = (p * s).sum(-1, keepdim=True)
    return -2 * (p**2 * (s - mean)).sum() / tau**2


class _Tally:
    """Contributions by piece, layer, probe and sample; their sums and the error of these.

    Samples are independent of one another, so the variance of a sum is the sum of the variances,
    each from the differences between the probes at that sample.
    """

    def __init__(self, n_layers: int) -> None:
        self.n_layers = n_layers
        self._probes: dict[int, list[Tensor]] = {}

    def add(self, piece: int, contributions: Tensor) -> None:
        self._probes.setdefault(piece, []).append(contributions)

    @property
    def per_layer(self) -> Tensor:
        total = torch.zeros(self.n_layers, dtype=torch.float64)
        for probes in self._probes.values():
            total += torch.stack(probes).mean(0).sum(-1)
        return total

    @property
    def estimate(self) -> float:
        return float(self.per_layer.sum())

    @property
    def stderr(self) -> float:
        return math.sqrt(float(self._variances().sum()))

    @property
    def layer_stderr(self) -> Tensor:
        total = torch.zeros(self.n_layers, dtype=torch.float64)
        for probes in self._probes.values():
            total += torch.stack(probes).var(0).sum(-1) / len(probes)
        return total.sqrt()

    def half_width(self, alpha: float) -> float:
        """Return the half-width of the t interval with Satterthwaite's degrees of freedom."""
        variances = self._variances()
        total = float(variances.sum())
        if total == 0.0:
            return 0.0
        probes = len(next(iter(self._probes.values())))
        # Σ s² and Σ s⁴ over samples; E s⁴ exceeds σ⁴ by (m + 1)/(m − 1), which the count corrects.
        fourth = float(variances.square().sum()) * (probes - 1) / (probes + 1)
        freedom = max(1.0, (probes - 1) * total**2 / fourth)
        return float(stdtrit(freedom, 1 - alpha / 2)) * math.sqrt(total)

    def _variances(self) -> Tensor:
        """Return the variance of the mean at every sample of every piece."""
        return torch.cat(
            [torch.stack(probes).sum(1).var(0) / len(probes) for probes in self._probes.values()]
        )


def _piece_seed(seed: int, piece: int, done: int) -> int:
    return derive_seed(derive_seed(seed, Purpose.PROBE, piece), Purpose.PROBE, done)
