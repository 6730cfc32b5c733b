"""Gumbel noise in the logits: the smoothed loss that a probe differentiates."""

from __future__ import annotations

from dataclasses import dataclass

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import positive, seed_number, shown, whole
from lgn_analysis.gates.noise import NoiseKey, Purpose, gumbel
from lgn_analysis.hessian.operators.linear import Params
from lgn_analysis.network import LogicNetwork


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


def given_tau(tau: float | None, noise: GumbelNoise | None) -> float | None:
    """Return the gate temperature that is asked for, by itself or with the noise; None if neither is."""
    tau = None if tau is None else positive("tau", tau)
    of_noise = noise.tau if noise else None
    if tau is not None and of_noise is not None and tau != of_noise:
        raise InvalidInputError(f"tau is {tau} and noise.tau {of_noise}; give one")
    return of_noise if tau is None else tau


def noisy_logits(
    params: Params, noise: GumbelNoise | None, draw: int | None, scale: float = 1.0
) -> Params:
    """Return logits z + s·g, g one draw of the noise; without noise z."""
    if noise is None or draw is None:
        return dict(params)
    key = NoiseKey(noise.seed, Purpose.PROBE, draw)
    moved = {}
    for name, z in params.items():
        layer = int(name.split(".")[1])
        g = gumbel(key, layer, len(z), dtype=z.dtype, device=z.device)
        moved[name] = z + scale * g
    return moved


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
    moved = noisy_logits(params, noise, draw, scale)
    tau = tau or (noise.tau if noise else None)
    if tau is None or tau == model.relaxation.tau:
        return moved
    return {name: z * (model.relaxation.tau / tau) for name, z in moved.items()}
