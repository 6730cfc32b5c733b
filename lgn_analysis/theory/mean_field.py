"""How signals pass through a randomly wired network at initialisation: predictions without training.

A gate ``y = c·φ(a, b)`` reads two random outputs of the layer before. In a wide network everything
quadratic follows from 4 × 4 matrices of second moments (:mod:`lgn_analysis.gates.moments`) and from the
matrices ``A_ij = [[1, μ_j], [μ_i, r_ij]]`` of samples i and j, r_ii = q_i:

    forward      μ' = E[c]·(1, μ, μ, μ²)               r'_ij = tr M (A_ij ⊗ A_ij)
    backward     D_ij <- χ_ij D_ij · n_out / n_in       χ_ij = tr M_A A_ij + tr M_B A_ij
    in z         E (∂L/∂z)² = 1/16 Σ_ij D_ij tr N (A_ij ⊗ A_ij), 1/4 of four numbers a gate

D_ij is the mean over gates of ``∂L/∂y(i) ∂L/∂y(j)``, M_A and M_B the blocks of M for (c1, c3) and
(c2, c3). The derivations are in ``docs/theory.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from lgn_analysis.base.validation import seed_number, whole
from lgn_analysis.data import Dataset
from lgn_analysis.gates.moments import GateMoments, gate_moments
from lgn_analysis.hessian.results.table import Tabular
from lgn_analysis.network import LogicNetwork, require_plain
from lgn_analysis.theory.input_pairs import InputPairs, pairs_of, random_bits
from lgn_analysis.theory.output_gradients import gradient_products


@dataclass(frozen=True)
class MeanField(Tabular):
    """What random wiring predicts at initialisation; see :func:`mean_field`.

    Attributes:
        layers: a row a layer, 0 the first.

            - ``mean``, ``second_moment``, ``overlap``: E y, E y² and, for two samples under the same
              draw, E y y' of its outputs in the training forward.
            - ``chi``: by what (∂L/∂y)² is multiplied on the way from its outputs to as many inputs.
            - ``gradient_factor``: by what the rms of ∂L/∂y is multiplied from its outputs to its
              inputs, with the ratio of their numbers and with grad_factor.
            - ``gradient_rms``: root of the mean over parameters of (∂L/∂z)², L the mean cross-entropy
              of a batch under one draw of the noise.
            - ``mean_gradient_rms``: the same of the gradient's mean over draws.
        relaxation, init: their names.
        taus: by layer, the temperature of the softmax that the gradient passes.
        batch_size: samples a batch.
    """

    layers: pd.DataFrame
    relaxation: str
    init: str
    taus: tuple[float, ...]
    batch_size: int

    def to_frame(self) -> pd.DataFrame:
        """Return ``layers`` with the column ``relaxation``."""
        return self.layers.assign(relaxation=self.relaxation)

    def __repr__(self) -> str:
        rms, factor = self.layers["gradient_rms"], self.layers["gradient_factor"]
        return (
            f"MeanField({self.relaxation}, {self.init} initialisation, {len(self.layers)} layers, "
            f"batches of {self.batch_size}: first to last layer gradient rms {rms.iloc[0]:.2g} to "
            f"{rms.iloc[-1]:.2g}, median factor a layer {factor.median():.3g})"
        )


def mean_field(
    model: LogicNetwork,
    *,
    data: Dataset | tuple[Tensor, Tensor] | Tensor | None = None,
    batch_size: int = 128,
    n_classes: int | None = None,
    seed: int = 0,
) -> MeanField:
    """Predict activations and gradients of a network like this one, at initialisation, in closed form.

    Of the model, sizes, initialisation, relaxation, temperatures and grad_factor are taken; its logits
    and wiring are not looked at. The mean is that over networks of this shape, in the limit of large
    width.

    Args:
        model: the network.
        data: what the moments of the input are taken of: the training split of a data set, a pair (bits
            [n, n_features], labels int64 [n]), or bits alone, whose labels are independent of them; None
            is fair, independent bits.
        batch_size: samples a batch.
        n_classes: how many classes the labels have; None is the model's.
        seed: of the samples taken, where the data hold more than 512.

    Raises:
        InvalidInputError: numbers out of range, data that do not fit, a network changed by hand.

    >>> model = LogicNetwork(64, width=2000, depth=3, n_classes=10, group_tau=100.0)  # hard, even
    >>> mean_field(model).layers["chi"].round(6).tolist()
    [1.0, 1.0, 1.0]
    """
    require_plain(model, "mean-field theory", any_parametrisation=True)
    batch_size = whole("batch_size", batch_size, least=1)
    n_groups = model.group_sum.n_groups
    classes = (
        model.n_classes
        if n_classes is None
        else whole("n_classes", n_classes, least=1, most=n_groups)
    )
    seed = seed_number(seed)
    inputs = (
        random_bits(classes) if data is None else pairs_of(data, model.n_features, classes, seed)
    )
    init = model.config["init"]
    moments = [
        gate_moments(init, layer.relaxation, layer.parametrisation) for layer in model.layers
    ]
    one_draw = _forward(inputs, moments, between_draws=False)
    rms = mean_rms = _gradient_rms(model, inputs, moments, one_draw, one_draw[-1], batch_size)
    if model.relaxation.noisy:
        two_draws = _forward(inputs, moments, between_draws=True)
        mean_rms = _gradient_rms(model, inputs, moments, two_draws, one_draw[-1], batch_size)
    rows = []
    for index, (layer, of) in enumerate(zip(model.layers, moments, strict=True)):
        before, after = one_draw[index], one_draw[index + 1]
        chi = float((before.of_one @ _chi(of.coefficients)).mean())
        widening = layer.n_out / layer.n_in
        rows.append(
            {
                "layer": index,
                "mean": float(after.of_one[:, 1].mean()),
                "second_moment": float(after.of_one[:, 3].mean()),
                "overlap": float(after.of_two[:, 3] @ inputs.weight),
                "chi": chi,
                "gradient_factor": abs(layer.grad_factor) * math.sqrt(chi * widening),
                "gradient_rms": rms[index],
                "mean_gradient_rms": mean_rms[index],
            }
        )
    return MeanField(
        layers=pd.DataFrame(rows),
        relaxation=model.relaxation.name,
        init=init,
        taus=tuple(of.tau for of in moments),
        batch_size=batch_size,
    )


@dataclass(frozen=True)
class _Signals:
    """Moments over the outputs of one layer, or over the inputs.

    Attributes:
        of_one: [samples, 4], the entries of A_ii, (1, μ_i, μ_i, q_i).
        of_two: [pairs, 4], those of A_ij, (1, μ_j, μ_i, r_ij).
        between_draws: whether q and r are of two draws of the noise, or of one.
    """

    of_one: Tensor
    of_two: Tensor
    between_draws: bool


def _forward(
    inputs: InputPairs, moments: Sequence[GateMoments], *, between_draws: bool
) -> list[_Signals]:
    """Return the moments of the inputs and of every layer's outputs."""

    def signals(mean: Tensor, second_moment: Tensor, overlap: Tensor) -> _Signals:
        of_one = torch.stack([torch.ones_like(mean), mean, mean, second_moment], 1)
        of_two = [torch.ones_like(overlap), mean[inputs.second], mean[inputs.first], overlap]
        return _Signals(of_one, torch.stack(of_two, 1), between_draws)

    found = [signals(inputs.mean, inputs.mean, inputs.overlap)]  # x² = x for bits
    for of in moments:
        last = found[-1]
        square = _of_two_inputs(of.coefficients_between if between_draws else of.coefficients)
        mu = last.of_one[:, 1]
        mean = of.mean[0] + (of.mean[1] + of.mean[2]) * mu + of.mean[3] * mu**2
        found.append(signals(mean, _form(square, last.of_one), _form(square, last.of_two)))
    return found


def _gradient_rms(
    model: LogicNetwork,
    inputs: InputPairs,
    moments: Sequence[GateMoments],
    signals: Sequence[_Signals],
    of_one_draw: _Signals,
    batch_size: int,
) -> list[float]:
    """Return the root mean square of ∂L/∂z by layer, of one draw or of the mean over draws."""
    ones, twos = _at_output(model, inputs, signals[-1], of_one_draw, batch_size)
    found = []
    for layer, of, at_input in zip(
        reversed(model.layers), reversed(moments), reversed(signals[:-1]), strict=True
    ):
        between = at_input.between_draws
        gradient = _of_two_inputs(of.gradient_between if between else of.gradient)
        of_samples = (ones * _form(gradient, at_input.of_one)).mean()
        of_pairs = twos @ _form(gradient, at_input.of_two)
        square = batch_size * (of_samples + (batch_size - 1) * of_pairs) / model.n_parameters
        found.append(math.sqrt(max(float(square), 0.0)))
        chi = _chi(of.coefficients_between if between else of.coefficients)
        scale = layer.grad_factor**2 * layer.n_out / layer.n_in
        ones = ones * (at_input.of_one @ chi) * scale
        twos = twos * (at_input.of_two @ chi) * scale
    return found[::-1]


def _at_output(
    model: LogicNetwork,
    inputs: InputPairs,
    outputs: _Signals,
    of_one_draw: _Signals,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Return the means over the last layer's gates of ∂L/∂y ∂L/∂y': of samples, and of pairs by weight."""
    groups, group_tau = model.group_sum.n_groups, model.group_sum.group_tau
    share = model.layers[-1].n_out / groups / group_tau**2

    def covariance(entries: Tensor) -> Tensor:
        return share * (entries[:, 3] - entries[:, 1] * entries[:, 2])

    variance = float(covariance(of_one_draw.of_one).mean())

    def product(mean: Tensor, *, same_class: bool) -> float:
        of_logits = gradient_products(variance, float(mean), groups, same_class=same_class)
        return of_logits / (batch_size * group_tau) ** 2

    one = product(covariance(outputs.of_one).mean(), same_class=True)
    of_two = covariance(outputs.of_two)
    same = inputs.same_share * product(of_two @ inputs.same, same_class=True)
    apart = (1.0 - inputs.same_share) * product(of_two @ inputs.apart, same_class=False)
    ones = torch.full_like(outputs.of_one[:, 0], one)
    return ones, same * inputs.same + apart * inputs.apart


def _of_two_inputs(moments: Tensor) -> Tensor:
    """Return C [4, 4] with ``tr M (A ⊗ A) = t^T C t`` for M [4, 4] and t the entries of A.

    The order of ``φ = (1, a, b, ab)`` is that of (1, b) ⊗ (1, a).
    """
    return moments.reshape(2, 2, 2, 2).permute(0, 2, 1, 3).reshape(4, 4)


def _form(matrix: Tensor, entries: Tensor) -> Tensor:
    """Return ``t^T C t`` for every row t of entries."""
    return ((entries @ matrix) * entries).sum(1)


def _chi(moments: Tensor) -> Tensor:
    """Return d [4] with ``χ = d·t``: the mean of (c1 + c3 b)(c1 + c3 b') + (c2 + c3 a)(c2 + c3 a')."""
    by_a, by_b = [1, 3], [2, 3]
    return (moments[by_a][:, by_a] + moments[by_b][:, by_b]).reshape(4)
