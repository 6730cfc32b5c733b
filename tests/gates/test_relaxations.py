"""Gate weights in training, their straight-through gradient, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.gates.relaxations import (
    CAGE,
    RELAXATIONS,
    GumbelSoft,
    GumbelST,
    HardST,
    Relaxation,
    Soft,
    make_relaxation,
    one_hot_argmax,
    relaxation_config,
    relaxation_from,
    soft_weights,
)

NOISY = pytest.mark.parametrize("kind", [GumbelSoft, GumbelST])
HARD = pytest.mark.parametrize("kind", [GumbelST, HardST, CAGE])
Loss = Callable[[type[Relaxation], Tensor], Tensor]
TAUS = pytest.mark.parametrize("tau", [0.3, 1.0, 2.5])


def normal(*shape: int, seed: int = 0) -> Tensor:
    # NumPy's generator, since torch's are refused inside torch.func.vmap.
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def weights(relaxation: Relaxation, z: Tensor) -> Tensor:
    """The training weights, under one fixed noise where there is any."""
    return relaxation.training_weights(z, normal(*z.shape, seed=9) if relaxation.noisy else None)


@TAUS
def test_soft_weights_are_the_softmax_at_tau(tau: float) -> None:
    z = normal(3, 16)
    expected = (z / tau).exp() / (z / tau).exp().sum(-1, keepdim=True)
    torch.testing.assert_close(soft_weights(z, tau), expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(Soft(tau).training_weights(z), expected, rtol=1e-14, atol=0)


@TAUS
def test_gumbel_soft_weights_are_the_softmax_of_the_noisy_logits(tau: float) -> None:
    z, g = normal(3, 16), normal(3, 16, seed=1)
    expected = ((z + g) / tau).exp() / ((z + g) / tau).exp().sum(-1, keepdim=True)
    weights = GumbelSoft(tau).training_weights(z, g)
    torch.testing.assert_close(weights, expected, rtol=1e-14, atol=0)


@HARD
@TAUS
def test_hard_weights_select_the_largest_logit(kind: type[Relaxation], tau: float) -> None:
    z = normal(50, 16)
    selected = weights(kind(tau), z)
    noise = normal(50, 16, seed=9) if kind.noisy else 0 * z
    assert torch.equal(selected, torch.eye(16, dtype=torch.float64)[(z + noise).argmax(-1)])


@HARD
@TAUS
@pytest.mark.parametrize("given", [None, 0.6])
def test_straight_through_gradient_follows_its_written_rule(
    kind: type[Relaxation], tau: float, given: float | None
) -> None:
    z, dw = normal(7, 16).requires_grad_(), normal(7, 16, seed=2)
    noise = normal(7, 16, seed=9) if kind.noisy else None
    chosen = kind(tau).training_weights(z, noise, tau=given)
    (dz,) = torch.autograd.grad(chosen, z, dw)
    perturbed = z.detach() + (0 if noise is None else noise)
    if given is not None:
        tau = given
    elif kind is CAGE:
        tau = by_hand((z.detach() / tau).softmax(-1))
    s = (perturbed / tau).softmax(-1)
    expected = s * (dw - (s * dw).sum(-1, keepdim=True)) / tau
    torch.testing.assert_close(dz, expected, rtol=1e-12, atol=1e-15)


def by_hand(p: Tensor) -> float:
    """CAGE's temperature for gate weights p [n, 16] without a past, in Python numbers."""
    c = sum(max(row) for row in p.tolist()) / len(p)
    return 3.0 - 2.5 * min(max((c - 1 / 16) / (15 / 16), 0.0), 1.0)


def test_of_equal_logits_the_first_is_selected() -> None:
    z = torch.zeros(2, 16)
    z[1, [4, 9]] = 1.0
    assert one_hot_argmax(z).argmax(-1).tolist() == [0, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_keep_the_dtype(relaxation: Relaxation, dtype: torch.dtype) -> None:
    z = normal(2, 16).to(dtype)
    assert relaxation.training_weights(z, z if relaxation.noisy else None).dtype == dtype


def test_noise_is_given_exactly_where_it_is_drawn(relaxation: Relaxation) -> None:
    z = normal(2, 16)
    wanted = "needs noise" if relaxation.noisy else "takes no noise"
    with pytest.raises(InvalidInputError, match=wanted):
        relaxation.training_weights(z, None if relaxation.noisy else z)


def linear_loss(kind: type[Relaxation], z: Tensor) -> Tensor:
    """A loss whose gradient in the weights is constant: only the softmax's curvature is left."""
    return (weights(kind(), z) * normal(*z.shape, seed=3)).sum()


def curved_loss(kind: type[Relaxation], z: Tensor) -> Tensor:
    return (weights(kind(), z) @ normal(16, 3, seed=4)).logsumexp(-1).sum()


LOSSES = pytest.mark.parametrize("loss", [linear_loss, curved_loss])


@HARD
@LOSSES
def test_a_second_reverse_derivative_is_refused(kind: type[Relaxation], loss: Loss) -> None:
    """Trap 3: what is no Hessian must not look like one."""
    z = normal(4, 16).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(kind, z), z, create_graph=True)
    with pytest.raises(NotDifferentiableError, match=r'differentiate .* mode="soft"'):
        torch.autograd.grad(gradient.sum(), z)


@HARD
@LOSSES
def test_functional_second_derivatives_are_refused(kind: type[Relaxation], loss: Loss) -> None:
    with pytest.raises(NotDifferentiableError):
        torch.func.hessian(partial(loss, kind))(normal(2, 16))
    with pytest.raises(NotDifferentiableError):
        torch.func.jacrev(torch.func.grad(partial(loss, kind)))(normal(2, 16))


@HARD
@LOSSES
def test_forward_over_reverse_is_refused(kind: type[Relaxation], loss: Loss) -> None:
    gradient = torch.func.grad(partial(loss, kind))
    with pytest.raises(NotDifferentiableError):
        torch.func.jvp(gradient, (normal(2, 16),), (normal(2, 16, seed=8),))


@HARD
def test_a_forward_derivative_is_refused(kind: type[Relaxation]) -> None:
    with pytest.raises(NotDifferentiableError):
        torch.func.jvp(lambda z: weights(kind(), z), (normal(2, 16),), (normal(2, 16),))


@HARD
@LOSSES
def test_a_first_derivative_is_the_same_under_functional_transforms(
    kind: type[Relaxation], loss: Loss
) -> None:
    z = normal(4, 16).requires_grad_()
    (expected,) = torch.autograd.grad(loss(kind, z), z)
    assert torch.equal(torch.func.grad(partial(loss, kind))(z.detach()), expected)


@HARD
def test_straight_through_gradients_go_through_vmap(kind: type[Relaxation]) -> None:
    relaxation, noise = kind(), normal(4, 16, seed=9) if kind.noisy else None
    dw = normal(5, 4, 16, seed=2)

    def gradient(z: Tensor, dw: Tensor) -> Tensor:
        return torch.func.grad(lambda z: (relaxation.training_weights(z, noise) * dw).sum())(z)

    z = normal(4, 16)
    together = torch.func.vmap(gradient, in_dims=(None, 0))(z, dw)
    torch.testing.assert_close(together, torch.stack([gradient(z, row) for row in dw]))


@pytest.mark.parametrize("kind", [Soft, GumbelSoft])
def test_soft_weights_are_twice_differentiable(kind: type[Relaxation]) -> None:
    assert torch.autograd.gradgradcheck(
        lambda z: weights(kind(0.7), z), normal(2, 16).requires_grad_()
    )


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_none_is_refused(relaxation: Relaxation, tau: float) -> None:
    with pytest.raises(InvalidInputError, match=f"tau must be finite and above zero, got {tau}"):
        type(relaxation)(tau)


def test_a_relaxation_is_found_by_its_name() -> None:
    assert [*RELAXATIONS] == ["soft", "gumbel-soft", "gumbel-st", "hard-st", "cage"]
    for name, kind in RELAXATIONS.items():
        assert make_relaxation(name, 0.5) == kind(0.5)
    with pytest.raises(InvalidInputError, match="unknown relaxation 'gumbel'; use one of soft,"):
        make_relaxation("gumbel")


def test_options_go_to_the_relaxation_that_has_them() -> None:
    assert make_relaxation("cage", 0.5, decay=0.9) == CAGE(0.5, decay=0.9)
    with pytest.raises(InvalidInputError, match="'soft' has no option 'decay', none beside tau"):
        make_relaxation("soft", decay=0.9)
    with pytest.raises(InvalidInputError, match="no option 'rate', only tau_max, tau_min, decay"):
        make_relaxation("cage", rate=0.9)


@pytest.mark.parametrize(
    "relaxation", [*(kind(0.3) for kind in RELAXATIONS.values()), CAGE(2.0, tau_max=4, decay=0)]
)
def test_a_configuration_says_which_relaxation_it_is(relaxation: Relaxation) -> None:
    config = {"depth": 3, **relaxation_config(relaxation)}
    assert all(isinstance(value, str | float) for value in config.values() if value != 3)
    assert relaxation_from(config) == relaxation
    assert config == {"depth": 3}


def test_a_configuration_with_an_option_of_another_relaxation_is_refused() -> None:
    assert relaxation_from({"relaxation": "soft", "tau": 1.0, "cage_decay": None}) == Soft()
    with pytest.raises(InvalidInputError, match="cage_decay is an option of relaxation 'cage'"):
        relaxation_from({"relaxation": "soft", "tau": 1.0, "cage_decay": 0.9})


def test_the_temperature_of_cage_falls_from_no_confidence_to_full() -> None:
    cage = CAGE(tau_max=2.0, tau_min=1.0)
    points = [0.0, 1 / 16, 17 / 32, 1.0, 1.5]
    assert [cage.backward_tau(c) for c in points] == [2.0, 2.0, 1.5, 1.0, 1.0]
    tensor = cage.backward_tau(torch.tensor(points, dtype=torch.float64))
    assert tensor.tolist() == [2.0, 2.0, 1.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau_min": 0.0}, "0 < tau_min <= tau_max"),
        ({"tau_min": 4.0}, "got tau_min=4.0, tau_max=3.0"),
        ({"tau_max": math.inf}, "both finite"),
        ({"tau_max": math.nan}, "both finite"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), got 1.0"),
        ({"decay": -0.1}, "decay must lie in"),
    ],
)
def test_options_of_cage_that_make_no_sense_are_refused(
    options: dict[str, float], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        CAGE(**options)


def test_the_base_class_is_no_relaxation() -> None:
    with pytest.raises(InvalidInputError, match="choose a relaxation: soft, gumbel-soft"):
        Relaxation()


def test_relaxations_compare_by_kind_and_temperature() -> None:
    assert GumbelST(1) == GumbelST(1.0)
    assert GumbelST() != HardST()
    assert GumbelST(1.0) != GumbelST(2.0)
    assert repr(GumbelST(2)) == "GumbelST(tau=2.0)"
