"""Will a network train: which layers Adam moves, whether its loss can fall, and what single change helps.

Adam moves a logit by at most ``lr · |g| / (|g| + ε)`` a step, g the size of its gradient. Logits are of
size one, so a layer needs at least ``1 / (lr · share)`` steps to become another one, share the mean of
``|g| / (|g| + ε)`` over its logits. A layer for which that is more than all steps *stands still*: its
gates stay as undecided as they were drawn, and are the unused ones of the paper. It is a statement about
the gradients of now: as the layers above decide, they let more through.

Under noise not all of g is signal. By Gumbel-max the expected hard network is the soft one at tau 1, so what a
Gumbel-ST gradient knows of the labels is the gradient of that soft network, which shrinks from layer to
layer, and the rest is noise of constant size: a step goes its way by the quotient of the two sizes. Averaging
over M draws a step multiplies it by √M, up to one.

A group sum of n gates over k classes has logits between 0 and ``R = n / group_tau``: no sample's loss is
below ``ln(1 + (k − 1) e^−R)``. ``σ = ½ √n / group_tau`` is the spread of a class logit while the gates'
outputs are coins.

Gradients are measured (:func:`lgn_analysis.signal_propagation`), of the network and, where it stands at its
initialisation, of networks drawn anew with one thing changed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pandas as pd
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import positive, seed_number, whole
from lgn_analysis.data import Dataset
from lgn_analysis.gates.relaxations import Soft
from lgn_analysis.hessian.results.table import Tabular
from lgn_analysis.network import LogicNetwork, require_plain
from lgn_analysis.theory.signal_propagation import is_as_drawn, measure_signals

SMALL_EPS: Final = (1e-16, 1e-20)
"""ε that are tried: below the gradients of 16 and of 24 layers of soft gates (``benchmarks/adam_eps.py``)."""

LOW_LOSS: Final = 0.05
"""Nats that a loss should be able to fall to."""

_UNEVEN: Final = 1.5
"""Factor from layer to layer above which ``grad_factor`` is worth a try."""

_DRAWS: Final = 4
"""Noise draws a batch that gradients are measured under."""

_DROWNED: Final = 0.1
"""Share of signal below which a gradient is called noise."""

_MORE_DRAWS: Final = 16
"""By what factor more draws a step are tried against noise."""


@dataclass(frozen=True)
class Diagnosis(Tabular):
    """What :func:`lgn_analysis.diagnose` found.

    Attributes:
        layers: a row a layer, 0 the first: gradient_rms; adam_share, the mean of ``|g|/(|g| + ε)``;
            signal_share, the part of g's size that is the soft network's gradient (1 without noise);
            fewest_steps, below which no logit moves by one with the signal; stands_still, whether those
            are more than ``steps``.
        changes: a row a single change, the network as it is first: change; still_layers; unused, the
            share of gates in them; fewest_steps of the slowest layer; loss_floor in nats.
        regime: R and σ of a class logit, loss_floor in nats, and chance, the loss of guessing.
        steps: for how many steps it is asked.
        eps, lr: Adam's.
    """

    layers: pd.DataFrame
    changes: pd.DataFrame
    regime: dict[str, float]
    steps: int
    eps: float
    lr: float

    @property
    def trains(self) -> bool:
        """Whether every layer moves within ``steps``, and the loss can fall to half of chance."""
        can_fall = self.regime["loss_floor"] <= self.regime["chance"] / 2
        return can_fall and not bool(self.layers["stands_still"].any())

    @property
    def remedies(self) -> pd.DataFrame:
        """The changes that leave fewer layers standing still, or a lower loss within reach."""
        now, others = self.changes.iloc[0], self.changes.iloc[1:]
        better = others["still_layers"] < now["still_layers"]
        if now["loss_floor"] > LOW_LOSS:
            better |= others["loss_floor"] < now["loss_floor"] / 2
        return others[better].sort_values(["still_layers", "fewest_steps"])

    def to_frame(self) -> pd.DataFrame:
        """Return ``layers``."""
        return self.layers

    def __str__(self) -> str:
        return "\n".join(self._sentences())

    def __repr__(self) -> str:
        still = int(self.layers["stands_still"].sum())
        return (
            f"Diagnosis({'trains' if self.trains else 'does not train'} in {self.steps} steps: {still} of "
            f"{len(self.layers)} layers stand still, loss no lower than "
            f"{self.regime['loss_floor']:.2g})"
        )

    def _sentences(self) -> Iterator[str]:
        still = self.layers[self.layers["stands_still"]]
        now, regime = self.changes.iloc[0], self.regime
        if still.empty:
            yield (
                f"Every layer moves: the slowest needs {now['fewest_steps']:.3g} steps or more to move a "
                f"logit by one, and there are {self.steps}."
            )
        else:
            names = ", ".join(str(layer + 1) for layer in still["layer"])
            yield (
                f"{len(still)} of {len(self.layers)} layers stand still (1 is the input's: {names}): moving a "
                f"logit by one takes {_range(still['fewest_steps'])} steps or more, at the gradients of now, and "
                f"there are {self.steps}."
            )
            yield (
                f"Their gradients are of {_range(still['gradient_rms'])}, Adam's ε is {self.eps:g}."
                if still["signal_share"].min() > _DROWNED
                else f"Their gradients are noise: {_range(still['signal_share'])} of their size is signal."
            )
            yield (
                f"So {now['unused']:.0%} of the gates learn nothing while that lasts"
                + (
                    "; noise commits them all the same."
                    if still["signal_share"].min() <= _DROWNED
                    else ", stay unused, and give the layers above averages that the discrete network "
                    "does not have: expect a gap."
                )
            )
        yield (
            f"R = {regime['R']:.3g}, σ = {regime['sigma']:.2g}: the loss can fall to "
            f"{regime['loss_floor']:.2g} of {regime['chance']:.3g} nats."
        )
        remedies = self.remedies
        if len(remedies):
            yield "What helps, one at a time:"
            for _, row in remedies.iterrows():
                yield (
                    f"  {row['change']}: {row['still_layers']} layers stand still, the slowest needs "
                    f"{row['fewest_steps']:.3g} steps; loss down to {row['loss_floor']:.2g}"
                )


def _range(values: pd.Series) -> str:
    low, high = f"{values.min():.2g}", f"{values.max():.2g}"
    return low if low == high else f"{low} to {high}"


def diagnose(
    model: LogicNetwork,
    data: Dataset | tuple[Tensor, Tensor],
    *,
    steps: int = 20_000,
    lr: float = 0.01,
    eps: float = 1e-8,
    batch_size: int = 128,
    draws_per_step: int = 1,
    batches: int = 6,
    seed: int = 0,
) -> Diagnosis:
    """Say whether a network will train, which layers will stand still, and what to change.

    Args:
        model: the network, at initialisation or any checkpoint; left as it is. The changes of wiring and
            depth are tried where its logits are those that its seed draws.
        data: a data set, or a pair (bits, labels), as for :func:`lgn_analysis.signal_propagation`.
        steps: for how many steps it is to be trained.
        lr: Adam's learning rate.
        eps: Adam's ε.
        batch_size: samples a batch; all of them where there are fewer.
        draws_per_step: noise draws that a step averages over; without effect where there is no noise.
        batches: batches that gradients are measured on, an even number, at least 6.
        seed: draws them, and noise.

    Raises:
        InvalidInputError: numbers out of range, data that do not fit, or a network changed by hand.
    """
    require_plain(model, "a diagnosis", any_parametrisation=True)
    steps, seed = whole("steps", steps, least=1), seed_number(seed)
    lr, eps = positive("lr", lr), positive("eps", eps)
    draws = whole("draws_per_step", draws_per_step, least=1)
    n = len(data.y_train if isinstance(data, Dataset) else data[1])
    if n < 2:
        raise InvalidInputError(f"a diagnosis needs at least 2 samples, got {n}")
    subject = _Subject(data, steps, lr, min(batch_size, n), batches, seed)
    gradients = subject.measure(model, [eps, *_smaller(eps)])
    layers = subject.layers(gradients, eps, draws)
    rows = [subject.row("as it is", model, layers)]
    for change, changed, own_eps, own_draws in _changes(model, layers, eps, draws):
        # They depend neither on ε nor on how many draws are averaged.
        of = gradients if changed is model else subject.measure(changed, [own_eps])
        rows.append(subject.row(change, changed, subject.layers(of, own_eps, own_draws)))
    return Diagnosis(
        layers=layers,
        changes=pd.DataFrame(rows),
        regime=regime(model),
        steps=steps,
        eps=eps,
        lr=lr,
    )


def regime(model: LogicNetwork) -> dict[str, float]:
    """Return R and σ of a network's class logits, the lowest loss that they allow, and that of chance."""
    group = model.group_sum
    n, k = model.width / group.n_groups, model.n_classes
    largest = n / group.group_tau
    return {
        "R": largest,
        "sigma": math.sqrt(n) / (2 * group.group_tau),
        "loss_floor": math.log1p((k - 1) * math.exp(-largest)),
        "chance": math.log(k),
    }


class _Gradients(NamedTuple):
    """Gradients of a network: a row a layer for each ε, and the soft network's size where there is noise."""

    by_eps: dict[float, pd.DataFrame]
    noise_free: pd.Series | None


@dataclass(frozen=True)
class _Subject:
    """How networks are looked at."""

    data: Dataset | tuple[Tensor, Tensor]
    steps: int
    lr: float
    batch_size: int
    batches: int
    seed: int

    def measure(self, model: LogicNetwork, eps: Sequence[float]) -> _Gradients:
        """Return the gradients of a network."""
        noise_free = None
        if model.relaxation.noisy:
            soft = copy.deepcopy(model)
            soft.relaxation = Soft()
            noise_free = self._signals(soft, eps[:1])[eps[0]]["gradient_rms"]
        return _Gradients(self._signals(model, eps), noise_free)

    def layers(self, gradients: _Gradients, eps: float, draws: int) -> pd.DataFrame:
        """Return :attr:`Diagnosis.layers`, with so many draws a step."""
        found = gradients.by_eps[eps]
        share = pd.Series(1.0, found.index)
        if gradients.noise_free is not None:
            size = gradients.noise_free / found["gradient_rms"] * math.sqrt(draws)
            share = size.clip(upper=1.0)
        moved = self.lr * found["adam_share"] * share  # a step, at most
        fewest = (1 / moved.where(moved > 0)).fillna(math.inf)
        return found[["layer", "gradient_rms", "adam_share"]].assign(
            signal_share=share, fewest_steps=fewest, stands_still=fewest > self.steps
        )

    def row(self, change: str, model: LogicNetwork, layers: pd.DataFrame) -> dict[str, Any]:
        """Return the row of a change."""
        return {
            "change": change,
            "still_layers": int(layers["stands_still"].sum()),
            "unused": float(layers["stands_still"].mean()),
            "fewest_steps": float(layers["fewest_steps"].max()),
            "loss_floor": regime(model)["loss_floor"],
        }

    def _signals(self, model: LogicNetwork, eps: Sequence[float]) -> dict[float, pd.DataFrame]:
        found = measure_signals(
            model,
            self.data,
            batches=self.batches,
            batch_size=self.batch_size,
            draws=_DRAWS,
            eps=eps,
            lr=self.lr,
            seed=self.seed,
        )
        return {value: result.layers for value, result in found.items()}


def _smaller(eps: float) -> list[float]:
    """Return the ε that are tried instead of one."""
    return [small for small in SMALL_EPS if small < eps]


def _changes(
    model: LogicNetwork, layers: pd.DataFrame, eps: float, draws: int
) -> Iterator[tuple[str, LogicNetwork, float, int]]:
    """Yield single changes in words, with the changed network, Adam's ε and the draws a step."""
    for small in _smaller(eps):
        yield f"eps {small:g}", model, small, draws
    if model.relaxation.noisy:
        more = _MORE_DRAWS * draws
        yield f"draws_per_step {more}", model, eps, more
    rms = layers["gradient_rms"].to_numpy()
    if model.depth > 1 and rms[0] > 0:
        factor = (rms[-1] / rms[0]) ** (1 / (model.depth - 1))
        if factor > _UNEVEN:
            even = float(f"{model.layers[0].grad_factor * factor:.2g}")
            changed = copy.deepcopy(model)
            for layer in changed.layers:
                layer.grad_factor = even
            yield f"grad_factor {even:g}", changed, eps, draws
    found = regime(model)
    if found["loss_floor"] > LOW_LOSS:
        needed = math.log((model.n_classes - 1) / math.expm1(LOW_LOSS))
        group_tau = float(f"{model.group_sum.group_tau * found['R'] / needed:.2g}")
        changed = copy.deepcopy(model)
        changed.group_sum.group_tau = group_tau
        yield f"group_tau {group_tau:g}", changed, eps, draws
    if not is_as_drawn(model):
        return
    if model.config["init"] != "residual":
        yield "init residual", _drawn_anew(model, init="residual"), eps, draws
    if model.relaxation.noisy:
        yield "relaxation soft", _drawn_anew(model, relaxation="soft"), eps, draws
    moving = model.depth - int(layers["stands_still"].sum())
    if 0 < moving < model.depth:
        yield f"depth {moving}", _drawn_anew(model, depth=moving), eps, draws


def _drawn_anew(model: LogicNetwork, **changes: Any) -> LogicNetwork:
    fresh = LogicNetwork.from_config({**model.config, **changes})
    return fresh.to(device=model.device, dtype=model.dtype)
