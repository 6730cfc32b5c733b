"""Networks of gates that are parametrised otherwise: every mode, gradient, file and fast path."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.checkpoints import load, save
from lgn_analysis.data import Dataset
from lgn_analysis.gates.noise import NoiseKey, Purpose, logistic
from lgn_analysis.gates.parametrisations import PARAMETRISATIONS, get_parametrisation
from lgn_analysis.gates.relaxations import GumbelSoft, GumbelST, HardST, Relaxation, Soft
from lgn_analysis.metrics import gate_usage
from lgn_analysis.metrics.usage import UNUSED_ENTROPIES
from lgn_analysis.network import LogicNetwork, specify
from lgn_analysis.training.config import RunConfig
from lgn_analysis.training.stepper import Steps
from tests.tiny import NetworkFactory, assert_same_weights, random_bits, random_reals

TABLES = [name for name, law in PARAMETRISATIONS.items() if law.n_parameters == 4]
EVERY_TABLE = pytest.mark.parametrize("name", TABLES)
RELAXATIONS = (Soft(), GumbelSoft(), GumbelST(), HardST())
EVERY_RELAXATION = pytest.mark.parametrize("relaxation", RELAXATIONS, ids=lambda r: r.name)
KEY = NoiseKey(11, Purpose.TRAINING, 2)


def entries(name: str, theta: np.ndarray, noise: np.ndarray | float = 0.0) -> np.ndarray:
    """Entries of truth tables [n, 4], at temperature 1."""
    if name == "light":
        log_odds = np.log((1 + np.sin(theta)) / (1 - np.sin(theta)))
    elif name == "walsh":
        signs = [[(-1) ** (s & corner).bit_count() for s in range(4)] for corner in range(4)]
        log_odds = -theta @ np.array(signs).T
    else:
        log_odds = theta
    return 1 / (1 + np.exp(-(log_odds + noise)))


def outputs_by_numpy(model: LogicNetwork, x: Tensor, *, noisy: bool, hard: bool) -> np.ndarray:
    """Class logits, gate by gate as a mean over the four corners."""
    values = x.double().numpy()
    for index, layer in enumerate(model.layers):
        noise: np.ndarray | float = 0.0
        if noisy:
            noise = logistic(KEY, index, layer.n_out, dtype=torch.float64).numpy()
        table = entries(layer.parametrisation, layer.logits.detach().double().numpy(), noise)
        table = (table > 0.5).astype(float) if hard else table
        a, b = values[:, layer.wiring[0].numpy()], values[:, layer.wiring[1].numpy()]
        chances = ((1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b)
        values = sum(table[:, corner] * chance for corner, chance in enumerate(chances))
    group = model.group_sum
    return values.reshape(len(x), group.n_groups, -1).sum(-1) / group.group_tau


@EVERY_TABLE
@EVERY_RELAXATION
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_mode_is_what_numpy_computes(
    make_network: NetworkFactory, name: str, relaxation: Relaxation, dtype: torch.dtype
) -> None:
    model = make_network(parametrisation=name, relaxation=relaxation, dtype=dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {}
    bits, reals = random_bits(70, 9), random_reals(5, 9)
    noisy, hard = relaxation.noisy, relaxation.hard
    for x in (bits, reals):
        expected = outputs_by_numpy(model, x, noisy=noisy, hard=hard)
        found = model(x, draw=KEY)
        assert found.dtype == dtype
        np.testing.assert_allclose(
            found.detach().numpy(), expected, **({"rtol": 1e-10} | tolerance)
        )
        expected = outputs_by_numpy(model, x, noisy=False, hard=False)
        soft = model(x, mode="soft").detach().numpy()
        np.testing.assert_allclose(soft, expected, **({"rtol": 1e-10} | tolerance))
    discrete = model.eval()(bits).numpy()
    expected = outputs_by_numpy(model, bits, noisy=False, hard=True)
    np.testing.assert_allclose(discrete, expected, rtol=1e-6)


@EVERY_TABLE
def test_sixteen_logits_that_mean_the_same_give_the_same_network(
    make_network: NetworkFactory, name: str
) -> None:
    model, other = make_network(parametrisation=name), make_network()
    law = get_parametrisation(name)
    with torch.no_grad():
        for mine, theirs in zip(model.layers, other.layers, strict=True):
            theirs.logits.copy_(law.gate_logits(mine.logits))
            assert torch.equal(mine.gates, theirs.gates)
            assert torch.equal(mine.wiring, theirs.wiring)
    x = random_bits(70, 9)
    torch.testing.assert_close(model(x, mode="soft"), other(x, mode="soft"))
    assert torch.equal(model(x, mode="discrete"), other(x, mode="discrete"))
    usage = [gate_usage(network, x) for network in (model, other)]
    same = usage[0].columns.drop("unused").tolist()
    np.testing.assert_allclose(usage[0][same], usage[1][same], rtol=1e-12)


@EVERY_TABLE
def test_unused_is_what_exceeds_the_lower_edge_at_the_start(name: str) -> None:
    """Binomial of 40 000 gates, 6 standard errors: false-alarm rate 2e-9."""
    model = LogicNetwork(100, 4000, 10, 10, 10.0, parametrisation=name, seed=3)
    unused = gate_usage(model)["unused"]
    assert float(unused.mean()) == pytest.approx(0.975, abs=6 * math.sqrt(0.025 * 0.975 / 40_000))
    p = entries(name, model.layers[1].logits.detach().double().numpy())
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(1)
    assert unused[1] == pytest.approx((entropy > UNUSED_ENTROPIES[name]).mean(), abs=1e-3)


@EVERY_TABLE
def test_gradients_are_finite_differences(make_network: NetworkFactory, name: str) -> None:
    model = make_network(parametrisation=name, relaxation=GumbelSoft())
    x = random_reals(4, 9).requires_grad_()
    names = [key for key, _ in model.named_parameters()]

    def outputs(x: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(model, given, (x,), {"draw": KEY})

    assert torch.autograd.gradcheck(outputs, (x, *model.parameters()))


@EVERY_TABLE
def test_no_kernel_of_sixteen_logits_is_given_four_numbers(
    make_network: NetworkFactory, name: str
) -> None:
    model = make_network(parametrisation=name, dtype=torch.float32)
    spec = specify(model).network
    assert spec is not None
    assert spec.parametrisation == name
    for mode in ("train", "soft", "noisy", "discrete"):
        backend = model.backend_for(mode)
        assert backend is None or name in backend.PARAMETRISATIONS
    model.layers[1].logits = torch.nn.Parameter(torch.zeros(12, 16))
    with pytest.raises(InvalidInputError, match=r"given logits of shape \(12, 16\)"):
        model(random_bits(3, 9), mode="soft")


@EVERY_TABLE
@EVERY_RELAXATION
def test_steps_are_those_of_a_loop_by_hand(
    name: str, relaxation: Relaxation, separable_data: Dataset
) -> None:
    def make(backend: str | None) -> LogicNetwork:
        return LogicNetwork(
            *(12, 30, 2, 3, 2.0),
            relaxation=relaxation,
            parametrisation=name,
            seed=1,
            backend=backend,
        )

    model, expected = make(None), make("reference")
    x, y = separable_data.x_train, separable_data.y_train
    # By a small ε Adam takes whole steps by the sign of a gradient that is rounding alone.
    steps = Steps(model, x, y, batch_size=20, lr=0.02, seed=7, eps=1e-3)
    optimiser = torch.optim.Adam(expected.parameters(), lr=0.02, eps=1e-3)
    losses = []
    for step in range(5):
        chosen = steps._batch(step)
        loss = functional.cross_entropy(
            expected(x[chosen], draw=NoiseKey(7, Purpose.TRAINING, step)), y[chosen]
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert steps.advance(0, 5, lambda n: None) == pytest.approx(losses, rel=1e-5)
    for mine, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-6)


@EVERY_TABLE
def test_training_learns_and_its_file_holds_the_network(
    name: str, separable_data: Dataset, tmp_path: Path
) -> None:
    model = LogicNetwork(12, 60, 2, 3, 4.0, relaxation=Soft(), parametrisation=name, seed=1)
    lgn.train(model, separable_data, steps=150, batch_size=20, lr=0.05, progress=False)
    assert lgn.evaluate(model, separable_data).discrete_accuracy > 0.8
    save(model, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.config == model.config
    assert loaded.parametrisation == name
    assert_same_weights(loaded, model)


def test_a_configuration_from_before_has_sixteen_logits(make_network: NetworkFactory) -> None:
    config = make_network().config
    assert config.pop("parametrisation") == "gates16"
    assert LogicNetwork.from_config(config).n_parameters == 16


def test_a_file_names_the_parametrisation(separable_data: Dataset) -> None:
    config = RunConfig.from_dict({"network": {"parametrisation": "light", "width": 30}})
    assert config.network.build(separable_data).layers[0].logits.shape == (30, 4)
    assert RunConfig.from_dict(config.to_dict()) == config
    for wrong in ({"parametrisation": "raw"}, {"parametrisation": "light", "tau": 0.5}):
        with pytest.raises(InvalidInputError, match=r"unknown parametrisation|tau must stay 1"):
            RunConfig.from_dict({"network": wrong})


@EVERY_TABLE
def test_hessian_products_are_those_of_the_loss_written_by_hand(
    make_network: NetworkFactory, name: str
) -> None:
    model = make_network(parametrisation=name, width=6, depth=2, relaxation=Soft())
    x, y = random_bits(17, 9), torch.arange(17) % 3
    probe = lgn.HessianProbe(model, (x, y))

    def loss(flat: Tensor) -> Tensor:
        values = x.double()
        for layer, theta in zip(model.layers, flat.split(24), strict=True):
            theta = theta.view(6, 4)
            if name == "light":
                table = (1 + torch.sin(theta)) / 2
            else:
                signs = [[(-1) ** (s & c).bit_count() for s in range(4)] for c in range(4)]
                z = theta if name == "light-sigmoid" else -theta @ torch.tensor(signs).double()
                table = 1 / (1 + torch.exp(-z))
            a, b = values[:, layer.wiring[0]], values[:, layer.wiring[1]]
            corners = torch.stack([(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b])
            values = (table.T.unsqueeze(1) * corners).sum(0)
        return functional.cross_entropy(values.view(17, 3, 2).sum(-1) / 1.5, y)

    flat = torch.cat([layer.logits.detach().reshape(-1) for layer in model.layers])
    assert probe.loss() == pytest.approx(float(loss(flat)), rel=1e-12)
    torch.testing.assert_close(probe.grad(), torch.func.grad(loss)(flat))
    expected = torch.func.hessian(loss)(flat)
    torch.testing.assert_close(probe.dense(), expected, rtol=1e-9, atol=1e-12)
    assert probe.trace(n_probes=400).ci[0] <= float(expected.trace()) <= probe.trace().ci[1]


def test_what_is_about_sixteen_logits_is_refused(make_network: NetworkFactory) -> None:
    model = make_network(parametrisation="light-sigmoid", relaxation=GumbelST())
    data = random_bits(20, 9), torch.arange(20) % 3
    calls = {
        "Lemma 1": lambda: lgn.lemma1(model, data),
        "a gap anatomy": lambda: lgn.gap_anatomy(model, data),
        "a landscape": lambda: lgn.landscape(model, data),
        "the hard lemma": lambda: lgn.hard_lemma(model, data),
        "a probe with noise": lambda: lgn.HessianProbe(model, data, noise=lgn.GumbelNoise()),
        "of its own": lambda: lgn.HessianProbe(model, data, tau=0.5),
    }
    for what, call in calls.items():
        with pytest.raises(InvalidInputError, match=f"{what}.* is about the sixteen logits"):
            call()


def test_light_has_no_temperature(make_network: NetworkFactory, separable_data: Dataset) -> None:
    with pytest.raises(InvalidInputError, match="tau must stay 1"):
        make_network(parametrisation="light", relaxation=Soft(0.5))
    model = LogicNetwork(12, 30, 2, 3, 2.0, relaxation=Soft(), parametrisation="light")
    for move in (lambda: model.set_tau(0.5), lambda: setattr(model, "relaxation", Soft(2.0))):
        with pytest.raises(InvalidInputError, match="tau must stay 1"):
            move()
    with pytest.raises(InvalidInputError, match="tau must stay 1, got 0"):
        lgn.train(
            *(model, separable_data), steps=2, batch_size=20, tau_schedule="linear", tau_end=0.1
        )
    with pytest.raises(InvalidInputError, match="CAGE is defined for the sixteen logits"):
        model.relaxation = lgn.CAGE()


def test_layers_of_different_parametrisations_are_computed_as_they_are(
    make_network: NetworkFactory,
) -> None:
    model, x = make_network(parametrisation="light", relaxation=Soft()), random_bits(70, 9)
    for layer, name in zip(model.layers, itertools.cycle(TABLES)):
        layer.parametrisation = name
    assert specify(model).network is None
    expected = outputs_by_numpy(model, x, noisy=False, hard=False)
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-12)
    discrete = outputs_by_numpy(model, x, noisy=False, hard=True)
    np.testing.assert_allclose(model.eval()(x).numpy(), discrete, rtol=1e-12)
    with pytest.raises(InvalidInputError, match="the layers differ in parametrisation"):
        _ = model.config
