"""Gumbel noise in the logits: the smoothed loss that a probe differentiates."""

from __future__ import annotations

from dataclasses import dataclass

from lgn_analysis.arguments import positive, seed_number, shown, whole
from lgn_analysis.errors import InvalidInputError
from lgn_analysis.hessian.operators import Params
from lgn_analysis.network import LogicNetwork
from lgn_analysis.noise import NoiseKey, Purpose, gumbel


@dataclass(frozen=True)
class GumbelNoise:
    """Frozen draws of Gumbel noise on all logits, recomputed whenever they are needed.

    Attributes:
        tau: gate temperature of the smoothed loss; None is the model's.
        draws: how many draws the loss is a mean over.
        seed: names the draws; probing never uses those of training.
    """

    tau: float | None = None
    draws: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "draws", whole("draws", self.draws, least=1))
        object.__setattr__(self, "seed", seed_number(self.seed))
        if self.tau is not None:
            object.__setattr__(self, "tau", positive("tau", self.tau))


def check_noise(noise: object) -> None:
    """Raise unless ``noise`` is frozen noise, or None for none."""
    if noise is not None and not isinstance(noise, GumbelNoise):
        raise InvalidInputError(f"noise must be a GumbelNoise or None, got {shown(noise)}")


def perturbed_logits(
    params: Params,
    model: LogicNetwork,
    noise: GumbelNoise | None,
    draw: int | None,
    scale: float = 1.0,
    tau: float | None = None,
) -> Params:
    """Return logits whose soft mode is ``softmax((z + s·g)/tau)``; without noise ``softmax(z/tau)``.

    The model divides by its own tau, so the logits are scaled by ``tau_model / tau``; tau None is
    the noise's, or else the model's.
    """
    own = model.relaxation.tau
    tau = tau or (noise.tau if noise else None) or own
    perturbed = dict(params)
    for index, layer in enumerate(model.layers):
        name = f"layers.{index}.logits"
        if name in params:
            z = params[name]
            if noise is not None and draw is not None:
                key = NoiseKey(noise.seed, Purpose.PROBE, draw)
                z = z + scale * gumbel(key, index, layer.n_out, dtype=z.dtype, device=z.device)
            perturbed[name] = z if tau == own else z * (own / tau)
    return perturbed
