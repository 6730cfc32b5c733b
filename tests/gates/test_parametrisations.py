"""Parametrisations of gates: against the table, autograd, NumPy, and what torchlogix returned."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch.func import vmap

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.gates.initialisation import INITIALISATIONS
from lgn_analysis.gates.noise import NoiseKey, Purpose, gumbel, logistic
from lgn_analysis.gates.parametrisations import PARAMETRISATIONS, get_parametrisation
from lgn_analysis.gates.relaxations import Relaxation
from lgn_analysis.gates.table import TRUTH_TABLE, entry_coefficients, gate_coefficients

TABLES = [name for name, law in PARAMETRISATIONS.items() if law.n_parameters == 4]
EVERY_TABLE = pytest.mark.parametrize("name", TABLES)
CORNERS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
KEY = NoiseKey(3, Purpose.TRAINING, 2)
# torchlogix 0.2.2, "soft" at temperature 0.8, of two gates; its outputs on (0,0), (0,1), (1,0), (1,1) and
# the numbers of its discrete gates.
THETA = torch.tensor([[0.3, -1.2, 2.0, -0.4], [1.5, 0.2, -0.7, -2.2]], dtype=torch.float64)
TORCHLOGIX = {
    "light-sigmoid": (
        [[0.592667, 0.867036], [0.182426, 0.562177], [0.924142, 0.294215], [0.377541, 0.060087]],
        [10, 12],
    ),
    "walsh": (
        [[0.294215, 0.817574], [0.007577, 0.029312], [0.957912, 0.003173], [0.754915, 0.562177]],
        [3, 9],
    ),
}
BETWEEN = torch.tensor([[0.25, 0.5], [0.9, 0.1]], dtype=torch.float64)


def values(coefficients, inputs):
    """Return c·(1, a, b, ab), [inputs, gates]."""
    a, b = inputs.unbind(1)
    return torch.stack([torch.ones_like(a), a, b, a * b], 1) @ coefficients.T


def parameters(name, n=64, seed=0):
    law = get_parametrisation(name)
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(n, law.n_parameters, generator=generator, dtype=torch.float64)


def by_numpy(name, theta, tau, noise=0.0):
    """Entries of the truth table, written out once more."""
    if name == "light":
        log_odds = np.log((1 + np.sin(theta)) / (1 - np.sin(theta)))
    elif name == "light-sigmoid":
        log_odds = theta
    else:
        corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
        log_odds = -np.stack(
            [
                sum(
                    theta[:, 2 * s_a + s_b] * (1 - 2 * a) ** s_a * (1 - 2 * b) ** s_b
                    for s_a in (0, 1)
                    for s_b in (0, 1)
                )
                for a, b in corners
            ],
            axis=1,
        )
    return expit((log_odds + noise) / tau)


@pytest.mark.parametrize("name", TORCHLOGIX)
def test_gates_are_those_of_torchlogix(name):
    outputs, gates = TORCHLOGIX[name]
    law = get_parametrisation(name)
    c = law.soft_coefficients(THETA, 0.8)
    expected = torch.tensor(outputs, dtype=torch.float64)
    torch.testing.assert_close(values(c, CORNERS), expected, rtol=0, atol=1e-6)
    if name == "light-sigmoid":  # there its Walsh basis is not multilinear, and this is
        between = torch.tensor([[0.45337, 0.580242], [0.837698, 0.327377]], dtype=torch.float64)
        torch.testing.assert_close(values(c, BETWEEN), between, rtol=0, atol=1e-6)
    assert law.gates(THETA).tolist() == gates


@EVERY_TABLE
@pytest.mark.parametrize("noisy", [False, True])
def test_entries_are_what_numpy_computes(name, noisy):
    law, theta = get_parametrisation(name), parameters(name)
    tau = 1.0 if name == "light" else 0.6
    noise = logistic(KEY, 0, len(theta), dtype=torch.float64) if noisy else None
    expected = by_numpy(name, theta.numpy(), tau, 0.0 if noise is None else noise.numpy())
    relaxation = lgn.GumbelSoft(tau) if noisy else lgn.Soft(tau)
    c = law.training_coefficients(theta, relaxation, noise)
    torch.testing.assert_close(values(c, CORNERS).T, torch.from_numpy(expected))


@EVERY_TABLE
@pytest.mark.parametrize("kind", [lgn.HardST, lgn.GumbelST])
def test_a_hard_gate_is_in_the_table_and_has_the_gradient_of_the_soft_one(name, kind):
    law, theta = get_parametrisation(name), parameters(name).requires_grad_()
    noise = logistic(KEY, 0, len(theta), dtype=torch.float64) if kind.noisy else None
    hard = law.training_coefficients(theta, kind(), noise)
    soft_kind = lgn.GumbelSoft() if kind.noisy else lgn.Soft()
    soft = law.training_coefficients(theta, soft_kind, noise)
    expected = torch.from_numpy(
        by_numpy(name, theta.detach().numpy(), 1.0, 0.0 if noise is None else noise.numpy()) > 0.5
    )
    torch.testing.assert_close(hard.detach(), entry_coefficients(expected.double()))
    weight = torch.randn(hard.shape, generator=torch.Generator().manual_seed(1)).double()
    (of_hard,) = torch.autograd.grad((hard * weight).sum(), theta, create_graph=True)
    (of_soft,) = torch.autograd.grad((soft * weight).sum(), theta)
    torch.testing.assert_close(of_hard.detach(), of_soft)
    with pytest.raises(NotDifferentiableError):
        torch.autograd.grad(of_hard.sum(), theta)


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_soft_coefficients_have_derivatives_of_any_order(name):
    law, theta = get_parametrisation(name), parameters(name, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: law.soft_coefficients(t, 1.0), theta)
    assert torch.autograd.gradgradcheck(lambda t: law.soft_coefficients(t, 1.0), theta)


@EVERY_TABLE
def test_sixteen_logits_say_the_same_gates(name):
    """The mean over gates under the distribution that is meant, of which discrete takes the likeliest."""
    law, theta = get_parametrisation(name), parameters(name)
    logits = law.gate_logits(theta)
    torch.testing.assert_close(logits.logsumexp(-1), torch.zeros(len(theta)).double())
    expected = gate_coefficients(torch.softmax(logits, -1))
    torch.testing.assert_close(law.soft_coefficients(theta, 1.0), expected)
    assert torch.equal(law.gates(theta), logits.argmax(-1))
    assert torch.equal(law.gates(theta), law.gates(theta.float()))


def test_a_gate_that_is_certain_has_no_nan():
    """sin reaches 0 and 1 exactly, where logits are infinite."""
    law = get_parametrisation("light")
    theta = torch.tensor([[math.pi / 2, -math.pi / 2, math.pi / 2, -math.pi / 2]])
    for noise in (logistic(KEY, 0, 1), torch.full((1, 4), 22.8), torch.full((1, 4), -22.8)):
        leaf = theta.clone().requires_grad_()
        c = law.training_coefficients(leaf, lgn.GumbelST(), noise)
        torch.testing.assert_close(c.detach(), entry_coefficients(torch.tensor([[1.0, 0, 1, 0]])))
        (gradient,) = torch.autograd.grad(c.sum(), leaf)
        assert bool(gradient.isfinite().all())
    assert law.gates(theta).tolist() == [10]


@EVERY_TABLE
def test_what_is_drawn_is_one_with_the_probability_of_the_soft_entry(name):
    """Binomial, 6 standard errors at each of four entries: false-alarm rate below 1e-8."""
    law, n = get_parametrisation(name), 50_000
    theta = parameters(name, 1, seed=4).expand(n, 4)
    noise = logistic(KEY, 5, n, dtype=torch.float64)
    tau = 1.0 if name == "light" else 0.3  # whatever it is
    drawn = law.training_coefficients(theta, lgn.GumbelST(tau), noise)
    chance = values(law.soft_coefficients(theta[:1], 1.0), CORNERS).squeeze(1)
    bound = 6 * (chance * (1 - chance) / n).sqrt()
    assert bool(((values(drawn, CORNERS).mean(1) - chance).abs() < bound).all())


def test_logistic_noise_is_logistic():
    """Quantiles within 6 standard errors: false-alarm rate below 1e-7; and its words are those of Philox."""
    n = 50_000
    noise = logistic(KEY, torch.tensor([0, 7]), n, dtype=torch.float64)
    assert noise.shape == (2, n, 4)
    uniform = np.sort(expit(noise.numpy().reshape(-1)))
    for share in (0.001, 0.05, 0.3, 0.5, 0.9, 0.999):
        error = (uniform < share).mean() - share
        assert abs(error) < 6 * math.sqrt(share * (1 - share) / len(uniform))
    assert torch.equal(noise[1], logistic(KEY, 7, n, dtype=torch.float64))
    single = logistic(KEY, 7, n)
    assert bool(((single - noise[1]).abs() <= 4 * 2.0**-23 * noise[1].abs().clamp(min=1)).all())
    # Its words are among those of the Gumbel noise: u of the same word.
    g = gumbel(KEY, 7, n // 4, dtype=torch.float64).reshape(-1)
    u = torch.exp(-torch.exp(-g))
    torch.testing.assert_close(torch.sigmoid(noise[1].reshape(-1)[: len(u)]), u)
    with pytest.raises(InvalidInputError, match="logistic noise is float32 or float64"):
        logistic(KEY, 0, 2, dtype=torch.bfloat16)


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_residual_gates_start_at_a(name):
    law = get_parametrisation(name)
    generator = torch.Generator().manual_seed(0)
    theta = law.initial("residual", 2000, generator=generator, dtype=torch.float64)
    assert law.gates(theta).tolist() == [3] * 2000
    mean = law.soft_coefficients(theta, 1.0).mean(0)
    assert mean[1] > 0.85
    assert abs(mean[2]) < 0.05
    assert abs(mean[3]) < 0.05


@pytest.mark.parametrize("name", PARAMETRISATIONS)
@pytest.mark.parametrize("init", INITIALISATIONS)
def test_initial_numbers_are_the_same_in_any_dtype(name, init):
    law = get_parametrisation(name)
    wide, narrow = (
        law.initial(init, 9, generator=torch.Generator().manual_seed(2), dtype=dtype)
        for dtype in (torch.float64, torch.float32)
    )
    assert wide.shape == (9, law.n_parameters)
    assert torch.equal(wide.float(), narrow)
    with pytest.raises(InvalidInputError, match="unknown init 'uniform'"):
        law.initial("uniform", 9, generator=torch.Generator())


@EVERY_TABLE
def test_many_networks_at_once(name):
    law, theta = get_parametrisation(name), parameters(name, 6).reshape(2, 3, 4)
    found = vmap(lambda t: law.soft_coefficients(t, 1.0))(theta)
    torch.testing.assert_close(found, law.soft_coefficients(theta, 1.0))


def test_what_is_not_known_is_refused():
    class Other(Relaxation):
        name, noisy, hard = "other", False, False

    with pytest.raises(
        InvalidInputError, match="unknown parametrisation 'raw'; use one of gates16"
    ):
        get_parametrisation("raw")
    with pytest.raises(InvalidInputError, match="WARP's forward is not of the form"):
        get_parametrisation("warp")
    for name in TABLES:
        law = get_parametrisation(name)
        for relaxation in (lgn.CAGE(), Other()):
            with pytest.raises(InvalidInputError, match="is defined for the sixteen logits"):
                law.training_coefficients(torch.zeros(2, 4), relaxation)
        with pytest.raises(InvalidInputError, match="GumbelST needs noise"):
            law.training_coefficients(torch.zeros(2, 4), lgn.GumbelST())
        with pytest.raises(InvalidInputError, match="Soft takes no noise"):
            law.training_coefficients(torch.zeros(2, 4), lgn.Soft(), torch.zeros(2, 4))
    with pytest.raises(InvalidInputError, match=r"tau must stay 1, got 0\.5; use 'light-sigmoid'"):
        get_parametrisation("light").check(lgn.Soft(0.5))


def test_the_walsh_basis_is_another_one_of_the_log_odds():
    theta = parameters("walsh")
    entries = values(get_parametrisation("walsh").soft_coefficients(theta, 0.7), CORNERS).T
    log_odds = 0.7 * torch.logit(entries)
    other = get_parametrisation("light-sigmoid").soft_coefficients(log_odds, 0.7)
    torch.testing.assert_close(values(other, CORNERS).T, entries)
    # Walsh's transform is its own inverse, but for a factor 4.
    signs = torch.tensor([[(-1) ** (i & j).bit_count() for j in range(4)] for i in range(4)])
    torch.testing.assert_close(-(log_odds @ signs.double()) / 4, theta)
    assert TRUTH_TABLE[3].tolist() == [0, 0, 1, 1]
