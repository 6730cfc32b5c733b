"""Gradients, their noise, activations and sensitivity of a network, layer by layer: what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from lgn_analysis.hessian.results.table import Tabular


@dataclass(frozen=True)
class SignalResult(Tabular):
    """What :func:`lgn_analysis.signal_propagation` measured; intervals are of 95 %.

    Attributes:
        layers: a row a layer, 0 the first; each quantity with ``_low`` and ``_high`` beside it.

            - ``gradient_rms``: root of the mean over parameters of (∂L/∂z)², L the mean loss of a batch.
            - ``predicted_rms``, ``predicted_overlap``: :func:`lgn_analysis.mean_field`'s, which are of the
              initialisation: NaN where the logits are no longer those that the network's seed draws.
            - ``snr``: ``‖m‖ / √(V_B + V_D + V_E)``, signal to noise of a step of one batch and one draw.
            - ``snr_batches``: ``‖m‖ / √V_B``, what is left of the noise with draws without end.
            - ``snr_draws``: ``‖m‖ / √V_D``, with samples without end; NaN without noise.
            - ``below_eps``: share of the parameters whose gradient is smaller than ``eps``.
            - ``adam_share``: mean over parameters of ``|g| / (|g| + eps)``, the length of Adam's first
              step in units of lr; ``adam_step``: that times lr.
            - ``mean``, ``second_moment``, ``overlap``: E y, E y² and, for two samples under the same
              draw, E y y′ of the training forward's activations.
            - ``sensitivity``: share of the discrete network's gates that change where one random bit of
              the input is flipped.
        relaxation: name of the relaxation.
        batches, batch_size, draws: gradients were taken of so many batches, under so many draws each.
        eps, lr: Adam's.
        seed: of batches, draws and flipped bits.
    """

    layers: pd.DataFrame
    relaxation: str
    batches: int
    batch_size: int
    draws: int
    eps: float
    lr: float
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Return ``layers`` with the columns ``relaxation`` and ``eps``."""
        return self.layers.assign(relaxation=self.relaxation, eps=self.eps)

    def __repr__(self) -> str:
        rms, below = self.layers["gradient_rms"], self.layers["below_eps"]
        snr = self.layers["snr"]
        draws = f" under {self.draws} draws" if self.draws > 1 else ""
        return (
            f"SignalResult({self.relaxation}, {len(self.layers)} layers, {self.batches} batches of "
            f"{self.batch_size}{draws}: first to last layer gradient rms {rms.iloc[0]:.2g} to "
            f"{rms.iloc[-1]:.2g}, {below.iloc[0]:.0%} to {below.iloc[-1]:.0%} of it below "
            f"ε = {self.eps:g}, snr {snr.iloc[0]:.2g} to {snr.iloc[-1]:.2g})"
        )
