"""Moments of truth tables at initialisation, against sampled gates and autograd, and in closed form."""

import math

import numpy as np
import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.gates import entry_moments
from lgn_analysis.gates.initialisation import INITIALISATIONS
from lgn_analysis.gates.moments import gate_moments
from lgn_analysis.gates.parametrisations import PARAMETRISATIONS, get_parametrisation
from lgn_analysis.gates.table import COEFFICIENTS

N = 20_000
RELAXATIONS = (lgn.Soft, lgn.HardST, lgn.GumbelSoft, lgn.GumbelST)
CASES = [
    ("light", 1.0),
    *((name, tau) for name in ("light-sigmoid", "walsh") for tau in (0.3, 2.5)),
]


def sampled(law, theta, relaxation, generator):
    """Return c [n, 4] and its gradients [n, 4, 4] of one draw, by autograd."""
    theta, noise = theta.clone().requires_grad_(), None
    if relaxation.noisy:
        noise = torch.logit(torch.rand(theta.shape, generator=generator, dtype=theta.dtype))
    c = law.training_coefficients(theta, relaxation, noise)
    columns = [torch.autograd.grad(c[:, i].sum(), theta, retain_graph=True)[0] for i in range(4)]
    return c.detach(), torch.stack(columns, 1)


@pytest.mark.parametrize(("name", "tau"), CASES)
@pytest.mark.parametrize("kind", RELAXATIONS)
@pytest.mark.parametrize("init", INITIALISATIONS)
def test_moments_are_those_of_sampled_gates(init, kind, name, tau):
    """Within 6 standard errors in each of some 3000 entries: false-alarm rate below 1e-5."""
    law, relaxation = get_parametrisation(name), kind(tau)
    got = gate_moments(init, relaxation, name)
    generator = torch.Generator().manual_seed(3)
    theta = law.initial(init, N, generator=generator, dtype=torch.float64)
    (c, g), (other_c, other_g) = (sampled(law, theta, relaxation, generator) for _ in range(2))
    samples = {
        "mean": c,
        "coefficients": torch.einsum("ni,nj->nij", c, c),
        "coefficients_between": torch.einsum("ni,nj->nij", c, other_c),
        "gradient": torch.einsum("nik,njk->nij", g, g),
        "gradient_between": torch.einsum("nik,njk->nij", g, other_g),
    }
    for key, values in samples.items():
        error = (getattr(got, key) - values.mean(0)).abs()
        # A hard residual gate is A but for some one in a million draws.
        bound = 6 * (values.std(0) / N**0.5).clamp(min=1e-6) + 1e-9
        assert bool((error <= bound).all()), (key, error / bound)


def test_a_sine_of_normal_angles_has_closed_forms():
    # E sin²θ = (1 - e^-2)/2 and E cos²θ = (1 + e^-2)/2 for θ ~ N(0, 1).
    to_entries = torch.tensor([[1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]).double()
    got = gate_moments("normal", lgn.Soft(), "light")
    table = to_entries @ got.coefficients @ to_entries.T
    variance = (1 - math.exp(-2)) / 8
    torch.testing.assert_close(table, torch.full((4, 4), 0.25).double() + variance * torch.eye(4))
    slopes = to_entries @ got.gradient @ to_entries.T
    torch.testing.assert_close(slopes, (1 + math.exp(-2)) / 8 * torch.eye(4).double())


@pytest.mark.parametrize(
    "name", [name for name, law in PARAMETRISATIONS.items() if law.n_parameters == 4]
)
def test_hard_tables_drawn_evenly_are_hard_gates_drawn_evenly(name):
    even = COEFFICIENTS.double().T @ COEFFICIENTS.double() / 16
    for relaxation in (lgn.HardST(), lgn.GumbelST()):
        torch.testing.assert_close(gate_moments("normal", relaxation, name).coefficients, even)


@pytest.mark.parametrize(("name", "tau"), CASES)
def test_the_quadrature_has_converged(monkeypatch, name, tau):
    law = get_parametrisation(name)
    coarse = entry_moments.entry_moments(law, "normal", lgn.GumbelSoft(tau))
    monkeypatch.setattr(entry_moments, "_STEPS", 7)
    monkeypatch.setattr(entry_moments, "_SINGULAR_STEPS", 347)
    fine = entry_moments.entry_moments(law, "normal", lgn.GumbelSoft(tau))
    for a, b in zip(coarse, fine, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6 if name == "light" else 1e-10, atol=1e-12)
