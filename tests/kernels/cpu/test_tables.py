"""Gates of four numbers in the kernels, against the reference: forward, every gradient, steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lgn_analysis.base.errors import NotDifferentiableError
from lgn_analysis.gates.noise import NoiseKey, Purpose, philox_words
from lgn_analysis.gates.noise import logistic as logistic_of_key
from lgn_analysis.gates.parametrisations import PARAMETRISATIONS
from lgn_analysis.gates.relaxations import GumbelSoft, GumbelST, HardST, Relaxation, Soft
from lgn_analysis.kernels import cpu, reference
from lgn_analysis.kernels.cpu.noise import logistic
from lgn_analysis.kernels.cpu.runtime.compiling import entry
from lgn_analysis.kernels.cpu.simd import load, store
from lgn_analysis.kernels.cpu.tables import sine_and_cosine
from lgn_analysis.kernels.interface import AdamRule
from tests.kernels.cpu.conftest import Case, make_case
from tests.kernels.cpu.test_network import compare, inputs_of
from tests.kernels.cpu.test_run import Trained, in_plain_torch, orders

TABLES = [name for name, law in PARAMETRISATIONS.items() if law.n_parameters == 4]
KINDS = (Soft, HardST, GumbelSoft, GumbelST)
LR = 0.05


@entry
def write_logistic(words, values):
    for start in range(0, len(words), 64):
        store(values, start, logistic(load(words, start, 64)))


@entry
def write_sine_and_cosine(x, sines, cosines):
    for start in range(0, len(x), 4):
        sine, cosine = sine_and_cosine(load(x, start, 4))
        store(sines, start, sine)
        store(cosines, start, cosine)


@pytest.fixture(params=[(name, kind) for name in TABLES for kind in KINDS], ids=str)
def table_case(request: pytest.FixtureRequest) -> Case:
    name, kind = request.param
    return case_of(name, kind)


def case_of(name: str, kind: type[Relaxation], **overrides: object) -> Case:
    return make_case(kind(1.0 if name == "light" else 0.7), parametrisation=name, **overrides)


def test_sine_and_cosine_keep_their_bound() -> None:
    generator = np.random.default_rng(0)
    edges = np.pi / 2 * np.arange(-600, 600)
    x = np.concatenate(
        [generator.uniform(-4, 4, 2**16), generator.uniform(-1e3, 1e3, 2**16), edges]
    )
    x = x.astype(np.float32)
    sines, cosines = np.full_like(x, np.nan), np.full_like(x, np.nan)
    write_sine_and_cosine(x, sines, cosines)
    exact = x.astype(np.float64)
    assert np.abs(sines - np.sin(exact)).max() < 2e-7
    assert np.abs(cosines - np.cos(exact)).max() < 2e-7
    write_sine_and_cosine(np.full(4, np.nan, dtype=np.float32), sines, cosines)
    assert np.isnan(sines[:4]).all()
    assert np.isnan(cosines[:4]).all()


def test_logistic_noise_keeps_its_bound_and_is_that_of_the_key() -> None:
    key = NoiseKey(7, Purpose.EVALUATION, 2**40)
    words = philox_words(key, 3, 2**17, n_options=4).reshape(-1).numpy()
    words[:8] = [0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1, 2**30]
    values = np.full(len(words), np.nan, dtype=np.float32)
    write_logistic(words.astype(np.uint32).view(np.int32), values)
    u = (words.astype(np.float64) + 0.5) / 2**32
    exact = np.log(u) - np.log1p(-u)
    assert (np.abs(values - exact) <= 4 * 2.0**-23 * np.maximum(1.0, np.abs(exact))).all()
    of_key = logistic_of_key(key, 3, 2**17, dtype=torch.float64).reshape(-1).numpy()
    np.testing.assert_allclose(of_key[8:], exact[8:], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 64, 130])
def test_forward_and_every_gradient_are_the_references(table_case: Case, batch: int) -> None:
    for kind in ("bool", "bits", "values"):
        compare(table_case, inputs_of(kind, table_case, batch))


@pytest.mark.parametrize("name", TABLES)
def test_numbers_far_out_are_no_trouble(name: str) -> None:
    """Entries of exactly 0 and 1, and slopes that all but vanish."""
    for kind in KINDS:
        case = case_of(name, kind)
        with torch.no_grad():
            for z in case.logits:
                z.mul_(30.0 if name == "light" else 60.0)
                z[0] = torch.tensor([np.pi / 2, -np.pi / 2, 0.0, 1e-20])
        x = case.bits(70)
        outputs = cpu.training_forward(case.network, case.logits, x, case.key)
        expected = case.model(x, draw=case.key)
        torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4)
        for gradient in torch.autograd.grad(outputs.sum(), case.logits):
            assert bool(gradient.isfinite().all())


def test_a_slope_of_log_odds_far_out_keeps_its_relative_accuracy() -> None:
    """Against float64: in float32 ``s (1 - s)`` is 0 long before the slope is."""
    case = case_of("light-sigmoid", Soft, depth=1)
    with torch.no_grad():
        case.logits[0].mul_(6.0)
    x, apart = case.bits(64), torch.ne(*case.model.layers[0].wiring)
    grads = []
    for forward, dtype in (
        (cpu.training_forward, torch.float32),
        (reference.training_forward, torch.float64),
    ):
        z = case.logits[0].detach().to(dtype).requires_grad_()
        outputs = forward(case.network, [z], x, None)
        grads.append(torch.autograd.grad(outputs.sum(), z)[0][apart].double())
    assert float(grads[1].abs().min()) < 1e-8
    torch.testing.assert_close(*grads, rtol=1e-3, atol=0)


def test_steps_are_those_of_plain_torch(table_case: Case) -> None:
    order = orders(4, 130)
    # By a small ε Adam takes whole steps by the sign of a gradient that is rounding alone.
    trained = Trained.of(table_case, AdamRule(LR, eps=1e-3))
    losses = trained.steps(order)
    expected, expected_losses = in_plain_torch(table_case, order, eps=1e-3)
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    for got, wanted in zip(trained.logits, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TABLES)
def test_draws_of_a_step_are_averaged(name: str) -> None:
    case, order = case_of(name, GumbelST), orders(2, 70)
    of_three = Trained.of(case, draws=3)
    of_three.steps(order)
    gradients: list[Tensor] = []
    x = case.bits(1100)
    y = (x[:, :5].sum(-1) % case.model.n_classes).long()
    for draw in range(3):
        key = NoiseKey(9, Purpose.TRAINING, draw)
        outputs = case.model(x[order[0]], draw=key)
        loss = torch.nn.functional.cross_entropy(outputs, y[order[0]]) / 3
        gradients.append(torch.autograd.grad(loss, case.logits)[0])
    one = Trained.of(case, draws=3)
    one.steps(order[:1])
    torch.testing.assert_close(one.moments[0].mean, 0.1 * sum(gradients), rtol=1e-3, atol=1e-8)


def test_the_number_of_threads_changes_no_bit_of_a_run(table_case: Case) -> None:
    before, results = torch.get_num_threads(), []
    for n in (1, 3):
        torch.set_num_threads(n)
        trained = Trained.of(table_case)
        trained.steps(orders(3, 130))
        results.append(trained.everything())
    torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("name", TABLES)
def test_the_discrete_network_is_the_references(name: str) -> None:
    case = case_of(name, Soft)
    for batch in (1, 65, 1000):
        bits = case.bits(batch)
        for function in ("discrete_forward", "discrete_activity"):
            found, expected = (
                getattr(backend, function)(case.network, case.logits, bits)
                for backend in (cpu, reference)
            )
            assert torch.equal(found, expected)


@pytest.mark.parametrize("name", TABLES)
def test_second_derivatives_are_the_references_or_refused(name: str) -> None:
    case = case_of(name, Soft)
    x, first, second = case.bits(20), [], []
    for forward in (cpu.training_forward, reference.training_forward):
        outputs = forward(case.network, case.logits, x, None)
        first.append(torch.autograd.grad(outputs.pow(2).sum(), case.logits, create_graph=True))
        norm = sum(g.square().sum() for g in first[-1])
        second.append(torch.autograd.grad(norm, case.logits))
    for got, wanted in zip(*second, strict=True):
        scale = wanted.abs().max()
        torch.testing.assert_close(got / scale, wanted / scale, rtol=1e-4, atol=1e-5)
    hard = case_of(name, HardST)
    outputs = cpu.training_forward(hard.network, hard.logits, x, None)
    gradient = torch.autograd.grad(outputs.pow(2).sum(), hard.logits, create_graph=True)
    with pytest.raises(NotDifferentiableError):
        torch.autograd.grad(gradient[0].sum(), hard.logits)
