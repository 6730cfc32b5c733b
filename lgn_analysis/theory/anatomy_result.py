"""The states between the soft and the discrete network, and what was found in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FROM_INPUT: Final = "from input"
FROM_OUTPUT: Final = "from output"
ALONE: Final = "alone"


def discrete_sets(depth: int) -> Iterator[tuple[str, int, range]]:
    """Yield (scheme, layer, discrete layers) in the order of :attr:`AnatomyResult.states`.

    >>> [(scheme, layer, [*discrete]) for scheme, layer, discrete in discrete_sets(1)]
    [('from input', -1, []), ('from input', 0, [0]),
     ('from output', 1, []), ('from output', 0, [0]), ('alone', 0, [0])]
    """
    for layer in range(-1, depth):
        yield FROM_INPUT, layer, range(layer + 1)
    for layer in range(depth, -1, -1):
        yield FROM_OUTPUT, layer, range(layer, depth)
    for layer in range(depth):
        yield ALONE, layer, range(layer, layer + 1)


@dataclass(frozen=True)
class AnatomyResult:
    """The way from the soft network to the discrete one; losses are means over samples, in nats.

    Attributes:
        split: which split, or a label.
        n: samples.
        tau: gate temperature of the soft network.
        states: a row a set of discrete layers, the others soft. ``scheme`` and ``layer`` name the
            set: ``"from input"`` layers 0..layer (−1: none), ``"from output"`` layers layer..depth−1
            (depth: none), ``"alone"`` only that layer; ``n_discrete`` is its size. Then ``accuracy``,
            ``loss``, ``delta_loss`` and ``flips`` (predictions that differ) against the all-soft
            network, and the expansion of ``delta_loss``: ``first_order``, ``second_order`` and
            ``prediction``, their sum.
        layers: a row a layer. ``bit_flips``: share of (gate, sample) where the soft network's
            activation, rounded (½ to 1), is not the discrete network's bit; ``own_bit_flips``: the
            same where the soft layer is given the discrete network's inputs, so that only this layer
            rounds; ``distance`` and ``own_distance``: mean |activation − bit| in the two cases.
        interactions: [depth, depth], the second-order term by pairs of layers, symmetric; the sum of
            all is that of the whole network.
    """

    split: str
    n: int
    tau: float
    states: pd.DataFrame
    layers: pd.DataFrame
    interactions: NDArray[np.float64]

    @property
    def whole(self) -> pd.Series:
        """The row of ``states`` in which every layer is discrete."""
        states = self.states
        return states[states["scheme"] == FROM_INPUT].iloc[-1]

    @property
    def delta_loss(self) -> float:
        """Loss of the discrete network minus that of the soft one."""
        return float(self.whole["delta_loss"])

    @property
    def prediction(self) -> float:
        """The expansion of ``delta_loss`` to second order."""
        return float(self.whole["prediction"])

    @property
    def cross_layer(self) -> float:
        """The second-order term of the whole less those of the layers alone."""
        return float(self.interactions.sum() - np.trace(self.interactions))

    def to_frame(self) -> pd.DataFrame:
        """Return ``states``."""
        return self.states

    def __repr__(self) -> str:
        whole = self.whole
        alone = self.states[self.states["scheme"] == ALONE]
        largest = alone.iloc[int(alone["delta_loss"].abs().argmax())]
        return (
            f"AnatomyResult({self.split}, n={self.n}, {len(self.layers)} layers: loss "
            f"{whole['delta_loss']:+.4g} nats from soft to discrete, to second order "
            f"{whole['prediction']:+.4g} (first {whole['first_order']:+.4g}, second "
            f"{whole['second_order']:+.4g}, of it {self.cross_layer:+.4g} between layers), "
            f"{whole['flips']:.0f} flips; largest alone: layer {largest['layer']:.0f} with "
            f"{largest['delta_loss']:+.4g})"
        )

    def _repr_html_(self) -> str:
        states, layers = self.states.to_html(index=False), self.layers.to_html(index=False)
        return f"{states}{layers}"
