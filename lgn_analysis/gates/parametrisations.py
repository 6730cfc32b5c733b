"""Parametrisations of a gate: what its trainable numbers are, and the four coefficients they mean.

A layer evaluates ``c0 + c1·a + c2·b + c3·ab``; a parametrisation says where c comes from.

* ``gates16``: sixteen logits z. Gate weights ``w = softmax(z / tau)``, ``c = w G``.
* ``light``, ``light-sigmoid``, ``walsh``: four numbers θ, from which the four entries ω of the truth table
  come, each in [0, 1]; ``c = ω T``, linear. Discrete is ``ω > 1/2``.

  - ``light``: ``ω = 1/2 + 1/2 sin θ``. There is no temperature: tau is 1.
  - ``light-sigmoid``: ``ω = σ(θ / tau)``.
  - ``walsh``: ``ω(a, b) = σ(-z(a, b) / tau)``, ``z = Σ_S θ_S χ_S(1 - 2a, 1 - 2b)``, S in the order
    {}, {b}, {a}, {a, b}: ``light-sigmoid`` in another basis, in which Adam moves otherwise.

Entries are choices of their own. Noise is one logistic variable l an entry, the difference of two Gumbel
variables: ``s = σ((logit ω + l) / tau)`` is the relaxed entry and ``s > 1/2`` the drawn one, so that at
any temperature the mean of what is drawn is ω at tau 1 (Gumbel-max with two options).

WARP's own forward is none of these. It takes ``σ(-z(a, b) / tau)`` at real a and b, which on bits are the
entries of ``walsh``, and in between is not of the form ``c0 + c1·a + c2·b + c3·ab``; its noise is one draw
a sample. ``walsh`` is multilinear between the same four entries: the mean over independent bits of means a
and b, where WARP puts those means in. Discrete networks and hard forwards without noise are the same, soft
ones and gradients in the inputs are not.

Source: Rüttgers et al., *Light Differentiable Logic Gate Networks*, arXiv 2510.03250 (``light``,
``light-sigmoid``); Gerlach et al., *WARP Logic Neural Networks*, arXiv 2602.03527 (the Walsh basis).
"""

from __future__ import annotations

import math
from typing import ClassVar, Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import shown
from lgn_analysis.gates.initialisation import INITIALISATIONS, initial_logits
from lgn_analysis.gates.noise import NoiseKey, gumbel, logistic
from lgn_analysis.gates.relaxations import (
    GumbelSoft,
    GumbelST,
    HardST,
    Relaxation,
    Soft,
    soft_weights,
    straight_through,
)
from lgn_analysis.gates.table import (
    N_GATES,
    TRUTH_TABLE,
    entry_coefficients,
    gate_coefficients,
)

N_ENTRIES: Final = 4
GATES16: Final = "gates16"

_OF_ENTRIES: Final = (Soft, GumbelSoft, GumbelST, HardST)
WALSH_BASIS: Final = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
"""χ_S at (a, b) = (0,0), (0,1), (1,0), (1,1): a row an S; symmetric, its square is 4."""


class Parametrisation:
    """What the trainable numbers of a gate are; :data:`PARAMETRISATIONS` has them by name.

    Attributes:
        name: its name.
        n_parameters: numbers a gate.
    """

    name: ClassVar[str]
    n_parameters: ClassVar[int]

    def check(self, relaxation: Relaxation) -> None:
        """Raise unless gates of this parametrisation can be relaxed so."""
        raise NotImplementedError

    def soft_coefficients(self, parameters: Tensor, tau: float) -> Tensor:
        """Return c [..., 4] of soft mode for parameters [..., n_parameters]."""
        raise NotImplementedError

    def training_coefficients(
        self,
        parameters: Tensor,
        relaxation: Relaxation,
        noise: Tensor | None = None,
        *,
        tau: float | Tensor | None = None,
    ) -> Tensor:
        """Return c [..., 4] of the training forward.

        Args:
            parameters: [..., n_parameters].
            relaxation: how gates are relaxed.
            noise: from :meth:`draw_noise`, [..., n_parameters]; given exactly where it is noisy.
            tau: another temperature than the relaxation's, as :meth:`Relaxation.training_weights` has.
        """
        raise NotImplementedError

    def gates(self, parameters: Tensor) -> Tensor:
        """Return the discrete gates, int64 [...] in 0..15."""
        raise NotImplementedError

    def gate_logits(self, parameters: Tensor) -> Tensor:
        """Return logits [..., 16] whose softmax is the distribution over gates that is meant at tau 1.

        The mean of their coefficients under it is :meth:`soft_coefficients` at tau 1.
        """
        raise NotImplementedError

    def draw_noise(
        self,
        key: NoiseKey,
        layer: int,
        n_gates: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Return the noise of a layer, [n_gates, n_parameters]."""
        raise NotImplementedError

    def initial(
        self,
        kind: str,
        n_gates: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return the starting parameters [n_gates, n_parameters].

        ``normal`` is N(0, 1) for every parametrisation, ``residual`` what its source has: every gate
        nearly returns A.

        Raises:
            InvalidInputError: the kind is unknown.
        """
        raise NotImplementedError


class Gates16(Parametrisation):
    """Sixteen logits, ``c = softmax(z / tau) G``."""

    name = GATES16
    n_parameters = N_GATES

    def check(self, relaxation: Relaxation) -> None:
        pass

    def soft_coefficients(self, parameters: Tensor, tau: float) -> Tensor:
        return gate_coefficients(soft_weights(parameters, tau))

    def training_coefficients(
        self,
        parameters: Tensor,
        relaxation: Relaxation,
        noise: Tensor | None = None,
        *,
        tau: float | Tensor | None = None,
    ) -> Tensor:
        if tau is None:
            return gate_coefficients(relaxation.training_weights(parameters, noise))
        return gate_coefficients(relaxation.training_weights(parameters, noise, tau=tau))

    def gates(self, parameters: Tensor) -> Tensor:
        return parameters.detach().argmax(-1)

    def gate_logits(self, parameters: Tensor) -> Tensor:
        return parameters

    def draw_noise(
        self,
        key: NoiseKey,
        layer: int,
        n_gates: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        return gumbel(key, layer, n_gates, dtype=dtype, device=device)

    def initial(
        self,
        kind: str,
        n_gates: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        return initial_logits(kind, n_gates, generator=generator, dtype=dtype)


class TruthTable(Parametrisation):
    """Four numbers, from which the entries of the truth table come.

    Attributes:
        residual: mean [4] and standard deviation of the residual initialisation.
    """

    n_parameters = N_ENTRIES
    residual: ClassVar[tuple[tuple[float, float, float, float], float]]

    def check(self, relaxation: Relaxation) -> None:
        if type(relaxation) not in _OF_ENTRIES:
            known = ", ".join(kind.name for kind in _OF_ENTRIES)
            raise InvalidInputError(
                f"parametrisation {self.name!r} has the relaxations {known}, and "
                f"{type(relaxation).__name__} is defined for the sixteen logits of {GATES16!r}"
            )

    def entries(self, parameters: Tensor, tau: float, noise: Tensor | None = None) -> Tensor:
        """Return ω [..., 4], at (a, b) = (0,0), (0,1), (1,0), (1,1), or with noise the relaxed s.

        Args:
            parameters: θ [..., 4].
            tau: temperature.
            noise: logistic noise l [..., 4].
        """
        raise NotImplementedError

    def soft_coefficients(self, parameters: Tensor, tau: float) -> Tensor:
        return entry_coefficients(self.entries(parameters, tau))

    def training_coefficients(
        self,
        parameters: Tensor,
        relaxation: Relaxation,
        noise: Tensor | None = None,
        *,
        tau: float | Tensor | None = None,
    ) -> Tensor:
        self.check(relaxation)
        if relaxation.noisy != (noise is not None):
            raise InvalidInputError(
                f"{type(relaxation).__name__} {'needs' if relaxation.noisy else 'takes no'} noise"
            )
        soft = self.entries(parameters, relaxation.tau if tau is None else float(tau), noise)
        if not relaxation.hard:
            return entry_coefficients(soft)
        hard = (soft.detach() > 0.5).to(soft.dtype)
        return entry_coefficients(straight_through(hard, soft))

    def gates(self, parameters: Tensor) -> Tensor:
        ones = self.entries(parameters.detach(), 1.0) > 0.5
        return (ones.long() << torch.arange(3, -1, -1, device=ones.device)).sum(-1)

    def gate_logits(self, parameters: Tensor) -> Tensor:
        one = self.entries(parameters, 1.0).unsqueeze(-2)
        table = TRUTH_TABLE.to(one.device).bool()
        return torch.where(table, one, 1.0 - one).log().sum(-1)

    def draw_noise(
        self,
        key: NoiseKey,
        layer: int,
        n_gates: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        return logistic(key, layer, n_gates, dtype=dtype, device=device)

    def initial(
        self,
        kind: str,
        n_gates: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        if kind not in INITIALISATIONS:
            raise InvalidInputError(
                f"unknown init {kind!r}; use one of {', '.join(INITIALISATIONS)}"
            )
        mean, deviation = self.distribution(kind)
        # Drawn in float64 whatever the dtype, so that a float32 and a float64 network agree.
        normal = torch.randn(n_gates, N_ENTRIES, generator=generator, dtype=torch.float64)
        return (torch.tensor(mean, dtype=torch.float64) + deviation * normal).to(dtype)

    def distribution(self, kind: str) -> tuple[tuple[float, float, float, float], float]:
        """Return mean [4] and standard deviation of normal initial parameters."""
        return self.residual if kind == "residual" else ((0.0, 0.0, 0.0, 0.0), 1.0)


class Light(TruthTable):
    """``ω = 1/2 + 1/2 sin θ``, without a temperature."""

    name = "light"
    residual = ((-1.2, -1.2, 1.2, 1.2), 0.25)

    def check(self, relaxation: Relaxation) -> None:
        super().check(relaxation)
        self._check_tau(relaxation.tau)

    def _check_tau(self, tau: float) -> None:
        if tau != 1.0:
            raise InvalidInputError(
                f"parametrisation 'light' has entries 1/2 + 1/2 sin θ, which have no temperature: tau "
                f"must stay 1, got {tau:g}; use 'light-sigmoid'"
            )

    def entries(self, parameters: Tensor, tau: float, noise: Tensor | None = None) -> Tensor:
        self._check_tau(tau)
        one = 0.5 + 0.5 * parameters.sin()
        if noise is None:
            return one
        # σ(logit ω + l), without the logit, which is infinite at 0 and 1.
        raised = one * noise.exp()
        return raised / (raised + (1.0 - one))


class LightSigmoid(TruthTable):
    """``ω = σ(θ / tau)``."""

    name = "light-sigmoid"
    residual = ((-3.0, -3.0, 3.0, 3.0), 0.25)

    def entries(self, parameters: Tensor, tau: float, noise: Tensor | None = None) -> Tensor:
        return torch.sigmoid((parameters if noise is None else parameters + noise) / tau)


class Walsh(TruthTable):
    """``ω = σ(-H θ / tau)``, H the Walsh-Hadamard matrix."""

    name = "walsh"
    residual = ((0.0, 0.0, math.log(0.951 / 0.049), 0.0), 0.0)

    def entries(self, parameters: Tensor, tau: float, noise: Tensor | None = None) -> Tensor:
        log_odds = -(parameters @ WALSH_BASIS.to(parameters))
        return torch.sigmoid((log_odds if noise is None else log_odds + noise) / tau)


PARAMETRISATIONS: Final[dict[str, Parametrisation]] = {
    kind.name: kind for kind in (Gates16(), Light(), LightSigmoid(), Walsh())
}
"""All parametrisations by name."""


def get_parametrisation(name: str) -> Parametrisation:
    """Return the parametrisation called ``name``.

    >>> get_parametrisation("light").n_parameters
    4
    """
    found = PARAMETRISATIONS.get(name) if isinstance(name, str) else None
    if found is None:
        hint = ""
        if name == "warp":
            hint = (
                "; WARP's forward is not of the form c0 + c1·a + c2·b + c3·ab, 'walsh' is multilinear "
                "between its truth tables"
            )
        raise InvalidInputError(
            f"unknown parametrisation {shown(name)}; use one of {', '.join(PARAMETRISATIONS)}{hint}"
        )
    return found
