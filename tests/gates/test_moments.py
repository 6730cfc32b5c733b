"""Moments of gates at initialisation, against sampled gates and autograd, and in closed form."""

import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates import softmax_moments
from lgn_analysis.gates.initialisation import INITIALISATIONS, initial_logits
from lgn_analysis.gates.moments import gate_moments
from lgn_analysis.gates.noise import gumbel_from_words
from lgn_analysis.gates.relaxations import RELAXATIONS, Relaxation
from lgn_analysis.gates.softmax_moments import SoftmaxMoments
from lgn_analysis.gates.table import COEFFICIENTS, gate_coefficients

N = 40_000
TAUS = (0.3, 1.0, 2.5)


def sampled(z, relaxation, tau, generator):
    """Return c [n, 4] and J G [n, 4, 16] of one draw, by autograd."""
    z = z.clone().requires_grad_()
    noise = None
    if relaxation.noisy:
        noise = gumbel_from_words(torch.randint(2**32, z.shape, generator=generator), z.dtype)
    c = gate_coefficients(relaxation.training_weights(z, noise, tau=tau))
    columns = [torch.autograd.grad(c[:, i].sum(), z, retain_graph=True)[0] for i in range(4)]
    return c.detach(), torch.stack(columns, 1)


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("name", RELAXATIONS)
@pytest.mark.parametrize("init", INITIALISATIONS)
def test_moments_are_those_of_sampled_gates(init, name, tau):
    """Within 6 standard errors in each of some 2000 entries: false-alarm rate below 1e-5."""
    relaxation = RELAXATIONS[name](tau)
    got = gate_moments(init, relaxation)
    generator = torch.Generator().manual_seed(3)
    z = initial_logits(init, N, generator=generator, dtype=torch.float64)
    (c, g), (other_c, other_g) = (sampled(z, relaxation, got.tau, generator) for _ in range(2))
    samples = {
        "mean": c,
        "coefficients": torch.einsum("ni,nj->nij", c, c),
        "coefficients_between": torch.einsum("ni,nj->nij", c, other_c),
        "gradient": torch.einsum("nik,njk->nij", g, g),
        "gradient_between": torch.einsum("nik,njk->nij", g, other_g),
    }
    for key, values in samples.items():
        error = (getattr(got, key) - values.mean(0)).abs()
        bound = 6 * values.std(0) / N**0.5 + 1e-9
        assert bool((error <= bound).all()), (key, error / bound)


def test_hard_gates_drawn_evenly_have_even_weights_whatever_tau_is():
    even = COEFFICIENTS.double().T @ COEFFICIENTS.double() / 16
    for relaxation in (lgn.HardST(0.3), lgn.GumbelST(2.0), lgn.CAGE()):
        torch.testing.assert_close(gate_moments("normal", relaxation).coefficients, even)


def test_the_mean_of_hard_noisy_gates_is_soft_at_temperature_one():
    for init in INITIALISATIONS:
        hard, soft = gate_moments(init, lgn.GumbelST(0.4)), gate_moments(init, lgn.Soft(1.0))
        torch.testing.assert_close(hard.coefficients_between, soft.coefficients)
        torch.testing.assert_close(hard.mean, soft.mean)


def test_the_weights_of_soft_normal_gates_are_nearly_even():
    squares, _ = SoftmaxMoments("normal", 1.0, noisy=False).squares()
    assert squares.trace() == pytest.approx(0.1325, rel=1e-3)
    assert squares.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("tau", [0.02, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("noisy", [False, True])
def test_the_quadrature_has_converged(monkeypatch, tau, noisy):
    coarse = [f(SoftmaxMoments("normal", tau, noisy=noisy)) for f in BOTH]
    monkeypatch.setattr(softmax_moments, "_STEPS", 7)
    fine = [f(SoftmaxMoments("normal", tau, noisy=noisy)) for f in BOTH]
    for one, other in zip(coarse, fine, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a == pytest.approx(b, rel=1e-9)


BOTH = (SoftmaxMoments.squares, SoftmaxMoments.jacobian_squares)


def test_cage_has_the_temperature_of_its_first_step():
    layer = lgn.LogicLayer(64, 20_000, relaxation=lgn.CAGE(decay=0.5), seed=1)
    layer.adapt()
    tau = float(layer.relaxation.backward_tau(layer.confidence))
    # A mean over 20 000 gates has a standard error of 6e-4 here, and half of it reaches tau 2.7-fold.
    assert gate_moments("normal", layer.relaxation).tau == pytest.approx(tau, abs=6e-3)


def test_what_is_not_known_is_refused():
    class Other(Relaxation):
        name, noisy, hard = "other", False, False

    with pytest.raises(InvalidInputError, match="not for 'uniform' with a Soft"):
        gate_moments("uniform", lgn.Soft())
    with pytest.raises(InvalidInputError, match="not for 'normal' with a Other"):
        gate_moments("normal", Other())
