"""How signals pass through a network, measured: gradients, their noise, activations and bits, by layer.

The gradient of a training step, g = ∂L/∂z of one batch under one draw of the noise, is random in two
ways. Over batches β and draws δ, independent of each other, it is

    g = m + B(β) + D(δ) + E(β, δ),

m its mean, the others of mean zero and uncorrelated. A step that averages over more samples shrinks B and
E, one that averages over more draws D and E: D is the noise that a whole batch shares. With ``V_X`` the
sum over parameters of the variance of X, products of gradients tell them apart, none with a bias:

    E⟨g_βδ, g_β′δ′⟩ = ‖m‖²            E⟨g_βδ, g_βδ′⟩ = ‖m‖² + V_B
    E⟨g_βδ, g_β′δ⟩  = ‖m‖² + V_D      E‖g_βδ‖²      = ‖m‖² + V_B + V_D + V_E

Gradients come in *blocks* of two batches under the same draws, batches and draws new in each block. The
last three are averages over pairs within blocks, and the first one over pairs of blocks: with their mean
gradients ḡ_k it is the U-statistic ``U = Σ_k≠l ⟨ḡ_k, ḡ_l⟩ / (K (K − 1))``. Blocks are independent, so
intervals are Student's over the K blocks (for U over its jackknife's pseudo-values,
``K U − (K − 1) U_without_k``) and Fieller's for ratios, whatever the distribution of gradients is. No
gradient is computed twice, and memory is that of K + 4.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.memory import require_memory
from lgn_analysis.base.validation import positive, seed_number, whole
from lgn_analysis.data import Dataset
from lgn_analysis.gates.moments import has_moments
from lgn_analysis.gates.noise import NoiseKey, Purpose, generator_for
from lgn_analysis.gates.parametrisations import get_parametrisation
from lgn_analysis.hessian.operators.batches import Batch
from lgn_analysis.hessian.operators.linear import isolated
from lgn_analysis.hessian.results.intervals import mean_interval, paired_ratio_interval
from lgn_analysis.kernels.reference import count_ones
from lgn_analysis.metrics import check_labels, split_tensors
from lgn_analysis.network import LogicNetwork, Mode, as_bits, check_features, require_plain
from lgn_analysis.theory.mean_field import mean_field
from lgn_analysis.theory.signal_result import SignalResult

_GRADIENTS: Final = ("square", "same_draw", "same_batch")
_NOISY: Final = {"snr": "square", "snr_batches": "same_batch", "snr_draws": "same_draw"}
"""By ratio of signal to noise, the product of gradients whose mean is that signal plus that noise."""
_OF_EPS: Final = ("below_eps", "adam_share")
_ACTIVATIONS: Final = ("mean", "second_moment", "overlap", "sensitivity")
_BYTES_A_GATE: Final = 8
"""Of one gate and sample in a forward pass that is differentiated: an activation and its gradient."""


def signal_propagation(
    model: LogicNetwork,
    data: Dataset | tuple[Tensor, Tensor],
    *,
    batches: int = 16,
    batch_size: int = 128,
    draws: int = 8,
    eps: float = 1e-8,
    lr: float = 0.01,
    seed: int = 0,
    progress: bool = False,
) -> SignalResult:
    """Measure ∂L/∂z, its signal-to-noise ratio, activations and sensitivity, layer by layer.

    L is the mean cross-entropy of the training forward, ``grad_factor`` included, of a batch of different
    samples under one draw of the noise. Batches are drawn independently, two a block, and blocks draw
    noise of their own; see :mod:`lgn_analysis.theory.signal_propagation`. Where a mean gradient cannot be
    told from zero, the lower end of its signal-to-noise ratio is 0, and its estimate may be; where noise
    cannot, the upper end is infinite, and the estimate may be NaN. Activations are taken under the first
    draw of each block. Predictions are those of :func:`lgn_analysis.mean_field` for these samples: of the
    initialisation, so NaN where the logits are no longer those that the network's seed draws, or where
    theory does not know the initialisation or the relaxation.

    Args:
        model: the network, at initialisation or any checkpoint; left as it is. That of CAGE takes its
            next step's temperature each time.
        data: a data set, of which the training split is taken, or a pair (bits [n, n_features], labels
            int64 [n]).
        batches: how many batches, an even number, at least 6.
        batch_size: samples a batch, at least 2.
        draws: noise draws a batch, at least 2; without effect where the relaxation draws none.
        eps: Adam's ε.
        lr: Adam's learning rate.
        seed: seed of batches, draws and flipped bits.
        progress: show a progress bar.

    Raises:
        InvalidInputError: numbers out of range, inputs that are not bits or do not fit, a network changed
            by hand, or memory that is not free.
    """
    found = measure_signals(
        model,
        data,
        batches=batches,
        batch_size=batch_size,
        draws=draws,
        eps=(eps,),
        lr=lr,
        seed=seed,
        progress=progress,
    )[eps]
    layers = found.layers.assign(predicted_rms=math.nan, predicted_overlap=math.nan)
    if has_moments(model.config["init"], model.relaxation, model.parametrisation) and is_as_drawn(
        model
    ):
        pair = split_tensors(data, "train")
        theory = mean_field(model, data=pair, batch_size=found.batch_size, seed=found.seed).layers
        layers["predicted_rms"] = theory["gradient_rms"]
        layers["predicted_overlap"] = theory["overlap"]
    return replace(found, layers=layers)


def measure_signals(
    model: LogicNetwork,
    data: Dataset | tuple[Tensor, Tensor],
    *,
    batches: int,
    batch_size: int,
    draws: int,
    eps: Sequence[float],
    lr: float,
    seed: int,
    progress: bool = False,
) -> dict[float, SignalResult]:
    """Return what :func:`signal_propagation` measures, without the predictions, for each of some ε.

    Gradients do not depend on ε, and are computed once for all.
    """
    require_plain(model, "signal propagation", any_parametrisation=True)
    batches, batch_size = check_batches(batches), whole("batch_size", batch_size, least=2)
    draws = whole("draws", draws, least=2) if model.relaxation.noisy else 1
    eps = [positive("eps", value) for value in eps]
    lr, seed = positive("lr", lr), seed_number(seed)
    x, y = split_tensors(data, "train")
    check_features(x, model.n_features)
    check_labels(y, model.n_classes)
    if batch_size > len(y):
        raise InvalidInputError(
            f"the data hold {len(y)} samples, fewer than a batch of {batch_size}; lower batch_size"
        )
    gradients = batches // 2 + 4
    require_memory(
        model.n_gates
        * (gradients * model.n_parameters * model.dtype.itemsize + batch_size * _BYTES_A_GATE),
        f"{gradients} gradients of {model.depth} x {model.width} gates",
        "take fewer batches",
        device=model.device,
    )
    blocks, means = [], []
    with isolated(model.device, draws=False):
        subject = _Subject(model, eps)
        for block in tqdm(range(batches // 2), desc="signals", unit="block", disable=not progress):
            generator = generator_for(seed, Purpose.PROBE, block)
            chosen = [torch.randperm(len(y), generator=generator)[:batch_size] for _ in range(2)]
            pair = [
                (as_bits(x[rows]).to(model.device), y[rows].to(model.device)) for rows in chosen
            ]
            keys = [None] if draws == 1 else _keys(seed, block, draws)
            averages, mean = subject.gradients(pair, keys)
            blocks.append(averages | subject.activations(pair, keys[0], generator))
            means.append(mean)
    signal, results = _signal(means), {}
    for place, value in enumerate(eps):
        own = [{**block, **{name: block[name][place] for name in _OF_EPS}} for block in blocks]
        layers = _table(own, signal, lr)
        if draws == 1:
            layers[["snr_draws", "snr_draws_low", "snr_draws_high"]] = math.nan
        results[value] = SignalResult(
            layers=layers,
            relaxation=model.relaxation.name,
            batches=batches,
            batch_size=batch_size,
            draws=draws,
            eps=value,
            lr=lr,
            seed=seed,
        )
    return results


def is_as_drawn(model: LogicNetwork) -> bool:
    """Return whether the logits are still those that the network's seed drew."""
    init, seed = model.config["init"], model.seed
    return all(
        torch.equal(
            layer.logits.detach().cpu(),
            get_parametrisation(layer.parametrisation).initial(
                init,
                layer.n_out,
                generator=generator_for(seed, Purpose.LOGITS, layer.index),
                dtype=model.dtype,
            ),
        )
        for layer in model.layers
    )


def check_batches(batches: int, name: str = "batches") -> int:
    """Return the number of batches, or raise unless they make three blocks of two or more."""
    batches = whole(name, batches)
    if batches < 6 or batches % 2:
        raise InvalidInputError(
            f"{name} must be an even number, at least 6 (three blocks of two), got {batches}"
        )
    return batches


def _keys(seed: int, block: int, draws: int) -> list[NoiseKey | None]:
    first = block * draws
    return [NoiseKey(seed, Purpose.PROBE, draw) for draw in range(first, first + draws)]


class _Subject:
    """A copy of a network, whose layers' averages over one block it returns, float64 [depth] each.

    What depends on ε is [n, depth], for n of them.
    """

    def __init__(self, model: LogicNetwork, eps: Sequence[float]) -> None:
        self.model = copy.deepcopy(model).train().requires_grad_()
        self.eps = eps
        self._confidences = [confidence.clone() for confidence in self.model.confidences]

    def gradients(
        self, pair: Sequence[Batch], keys: Sequence[NoiseKey | None]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return averages over parameters of squares, products and Adam's shares; mean gradients by layer."""
        logits = [layer.logits for layer in self.model.layers]
        zero = torch.zeros(len(logits), dtype=torch.float64)
        found = {name: zero.clone() for name in _GRADIENTS}
        found |= {name: zero.repeat(len(self.eps), 1) for name in _OF_EPS}
        totals = [[torch.zeros_like(z) for z in logits] for _ in pair]
        for key in keys:
            of_pair = [self._gradient(batch, key) for batch in pair]
            for layer, gradients in enumerate(zip(*of_pair, strict=True)):
                wide = [g.double() for g in gradients]  # for squares that are no float32
                found["same_draw"][layer] += _product(*wide)
                for total, g, exact in zip(totals, gradients, wide, strict=True):
                    total[layer] += g
                    size = g.abs()
                    found["square"][layer] += _product(exact, exact) / 2
                    for place, eps in enumerate(self.eps):
                        found["below_eps"][place, layer] += float((size < eps).sum()) / 2
                        found["adam_share"][place, layer] += float((size / (size + eps)).sum()) / 2
        n = len(keys)
        for layer, (first, second) in enumerate(zip(*totals, strict=True)):
            squares = (_product(first, first) + _product(second, second)) / 2
            if n > 1:
                found["same_batch"][layer] = (squares - found["square"][layer]) / (n - 1)
            else:  # no noise: any two draws are one
                found["same_batch"][layer] = squares
            first += second
            first /= 2 * n
        count = n * self.model.width * self.model.n_parameters
        return {name: total / count for name, total in found.items()}, totals[0]

    def activations(
        self, pair: Sequence[Batch], key: NoiseKey | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return averages over gates of moments of activations, and of bits that follow the input's."""
        relaxation = self.model.relaxation
        mode: Mode = "noisy" if relaxation.noisy else "discrete" if relaxation.hard else "soft"
        rows = []
        for x, _ in pair:
            n, values = len(x), x
            place = torch.randint(self.model.n_features, (n, 1), generator=generator).to(x.device)
            flipped = x.scatter(1, place, ~x.gather(1, place))
            both = (self.model.packed_activations(bits) for bits in (x, flipped))
            with torch.no_grad():
                for layer, words, moved in zip(self.model.layers, *both, strict=True):
                    values = layer(values, mode=mode, draw=key)
                    sums, squares = values.sum(0).double(), values.square().sum(0).double()
                    among_two = (sums.square() - squares).mean() / (n * (n - 1))
                    changed = count_ones(words ^ moved, n).double().mean() / n
                    row = [sums.mean() / n, squares.mean() / n, among_two, changed]
                    rows.append(torch.stack(row).cpu())
        table = torch.stack(rows).view(2, self.model.depth, len(_ACTIVATIONS)).mean(0)
        return dict(zip(_ACTIVATIONS, table.unbind(1), strict=True))

    def _gradient(self, batch: Batch, key: NoiseKey | None) -> Sequence[Tensor]:
        for confidence, kept in zip(self.model.confidences, self._confidences, strict=True):
            confidence.copy_(kept)
        x, y = batch
        loss = functional.cross_entropy(self.model(x, draw=key), y)
        return torch.autograd.grad(loss, [layer.logits for layer in self.model.layers])


def _product(a: Tensor, b: Tensor) -> float:
    """Return ⟨a, b⟩ in float64."""
    return float(torch.dot(a.double().view(-1), b.double().view(-1)))


def _signal(means: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the pseudo-values of U, over the number of parameters: float64 [blocks, depth].

    Args:
        means: the mean gradient of every block, layer by layer.
    """
    n, columns = len(means), []
    for layer in zip(*means, strict=True):
        products = torch.tensor(
            [[_product(a, b) for b in layer] for a in layer], dtype=torch.float64
        )
        others = products.sum(1) - products.diagonal()  # of each block with all others
        whole = others.sum() / (n * (n - 1))
        without = (others.sum() - 2 * others) / ((n - 1) * (n - 2))
        columns.append((n * whole - (n - 1) * without) / layer[0].numel())
    return torch.stack(columns, dim=1)


def _table(blocks: Sequence[dict[str, Tensor]], signal: Tensor, lr: float) -> pd.DataFrame:
    """Return a row a layer: means over blocks with their intervals."""
    found = {name: torch.stack([block[name] for block in blocks]) for name in blocks[0]}
    rows = []
    for layer, power in enumerate(signal.unbind(1)):
        of = {name: values[:, layer] for name, values in found.items()}
        row: dict[str, Any] = {"layer": layer}
        _add(row, "gradient_rms", *map(_root, _mean(of["square"])))
        for name, noisy in _NOISY.items():
            _add(row, name, *_snr(power, of[noisy] - power))
        for name in (*_OF_EPS, *_ACTIVATIONS):
            _add(row, name, *(min(max(end, 0.0), 1.0) for end in _mean(of[name])))
        _add(row, "adam_step", *(lr * row[f"adam_share{end}"] for end in ("", "_low", "_high")))
        rows.append(row)
    return pd.DataFrame(rows)


def _add(row: dict[str, Any], name: str, value: float, low: float, high: float) -> None:
    row |= {name: value, f"{name}_low": low, f"{name}_high": high}


def _mean(values: Tensor) -> tuple[float, float, float]:
    return float(values.mean()), *mean_interval(values)


def _snr(signal: Tensor, noise: Tensor) -> tuple[float, float, float]:
    """Return the root of a ratio of means over blocks and its interval, 0 for what is below."""
    low, high = paired_ratio_interval(signal, noise)
    top, bottom = float(signal.mean()), float(noise.mean())
    return _root(top / bottom) if bottom > 0 else math.nan, _root(low), _root(high)


def _root(value: float) -> float:
    return math.sqrt(max(value, 0.0))
