"""Mean-field theory against closed forms, sampled logits and measured networks."""

import importlib
import math

import numpy as np
import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.moments import gate_moments
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.softmax_moments import SoftmaxMoments
from lgn_analysis.theory.mean_field import _chi, _form, _of_two_inputs
from lgn_analysis.theory.output_gradients import gradient_products
from lgn_analysis.theory.signal_propagation import _Subject
from tests.tiny import random_bits

signals = importlib.import_module(
    "lgn_analysis.theory.signal_propagation"
)  # its name is the function's


def network(relaxation, **overrides):
    arguments = {"width": 2000, "depth": 6, "n_classes": 10, "group_tau": 100.0}
    return lgn.LogicNetwork(960, relaxation=relaxation, **arguments | overrides)


@pytest.fixture(scope="module")
def digits():
    return lgn.load_dataset("digits")


def test_soft_gates_divide_a_gradient_by_five_a_layer():
    # At inputs ½, χ = ½ · 16/15 · (E Σ p² - 1/16) in closed form; activations of gates spread a little.
    squares, _ = SoftmaxMoments("normal", 1.0, noisy=False).squares()
    closed = 0.5 * 16 / 15 * (squares.trace() - 1 / 16)
    chi = _chi(gate_moments("normal", lgn.Soft()).coefficients)
    at_half = torch.tensor([1, 0.5, 0.5, 0.25], dtype=torch.float64)
    assert float(chi @ at_half) == pytest.approx(closed, rel=1e-12)
    assert closed == pytest.approx(0.0375, rel=0.01)
    factors = lgn.mean_field(network(lgn.Soft(), depth=12)).layers["gradient_factor"][3:]
    assert (1 / factors).tolist() == pytest.approx([5.17] * 9, rel=0.01)


@pytest.mark.parametrize("relaxation", [lgn.GumbelST(0.7), lgn.HardST(), lgn.CAGE()])
def test_hard_gates_drawn_evenly_are_critical(relaxation):
    layers = lgn.mean_field(network(relaxation)).layers
    assert layers["chi"].tolist() == pytest.approx([1.0] * 6)
    assert layers["gradient_factor"].tolist() == pytest.approx([math.sqrt(2000 / 960)] + [1.0] * 5)
    assert layers["mean"].tolist() == pytest.approx([0.5] * 6)


def test_residual_gates_pass_gradients():
    layers = lgn.mean_field(network(lgn.Soft(), init="residual")).layers
    # Over all gates c1, c2 and c3 sum to 0, so that c1 = w_A - w_other, and c2 = c3 = 0.
    c1 = (math.exp(5) - 1) / (math.exp(5) + 15)
    assert layers["chi"].tolist() == pytest.approx([c1**2] * 6, rel=1e-12)
    # Hard gates A copy their input: moments stay.
    copies = lgn.mean_field(network(lgn.HardST(), init="residual")).layers
    assert copies["overlap"].tolist() == pytest.approx([0.25] * 6, rel=1e-12)
    assert copies["chi"].tolist() == pytest.approx([1.0] * 6, rel=1e-12)


def test_forms_are_means_over_independent_inputs():
    """φ φ'^T averaged over all pairs of two lists of inputs, exactly."""
    generator = torch.Generator().manual_seed(2)
    x, other = torch.rand(2, 50, generator=generator, dtype=torch.float64)  # of two samples
    moments = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    one = torch.ones_like(x)

    def features(values):
        a, b = (v.reshape(-1) for v in torch.meshgrid(values, values, indexing="ij"))
        return torch.stack([torch.ones_like(a), a, b, a * b], 1)

    wanted = ((features(x) @ moments) * features(other)).sum(1).mean()
    entries = torch.stack([one.mean(), other.mean(), x.mean(), (x * other).mean()])
    assert float(_form(_of_two_inputs(moments), entries[None])) == pytest.approx(float(wanted))
    by_a = [torch.stack([one, v], 1) for v in (x, other)]
    wanted = ((by_a[0] @ moments[[1, 3]][:, [1, 3]]) * by_a[1]).sum(1).mean()
    wanted += ((by_a[0] @ moments[[2, 3]][:, [2, 3]]) * by_a[1]).sum(1).mean()
    assert float(entries @ _chi(moments)) == pytest.approx(float(wanted))


def test_output_gradients_of_even_logits_are_exact():
    assert gradient_products(0.0, 0.0, 10, same_class=True) == pytest.approx(0.09)
    assert gradient_products(0.0, 0.0, 10, same_class=False) == pytest.approx(-0.01)


@pytest.mark.parametrize("share", [-0.5, 0.0, 0.8, 1.0])
def test_output_gradients_are_those_of_sampled_logits(share):
    """Within 5 standard errors and 1 % of the quadrature: false-alarm rate below 1e-6."""
    generator, n, k, variance = torch.Generator().manual_seed(1), 200_000, 4, 1.7
    own, other = torch.randn(2, n, k, generator=generator, dtype=torch.float64) * variance**0.5
    second = share * own + math.sqrt(1 - share**2) * other
    for same in (True, False):
        first_delta, second_delta = own.softmax(1), second.softmax(1)
        first_delta[:, 0] -= 1
        second_delta[:, 0 if same else 1] -= 1
        products = (first_delta * second_delta).mean(1)
        got = gradient_products(variance, share * variance, k, same_class=same)
        error = abs(got - float(products.mean()))
        assert error < 5 * float(products.std()) / n**0.5 + 0.01 * abs(got)


CASES = [
    *((r, "normal") for r in (lgn.Soft(), lgn.Soft(0.5), lgn.GumbelST(), lgn.HardST(2.0))),
    *((r, "residual") for r in (lgn.Soft(), lgn.GumbelST(0.5), lgn.GumbelSoft(), lgn.CAGE())),
    (lgn.GumbelSoft(), "normal"),
]


@pytest.mark.parametrize("wiring", ["random", "unique"])
@pytest.mark.parametrize(("relaxation", "init"), CASES)
def test_a_wide_random_network_does_what_is_predicted(digits, relaxation, init, wiring):
    # Of single networks of this size, the rms scatters by some 5 % (soft, normal) and 2 % (else).
    model = network(relaxation, init=init, wiring=wiring, depth=4)
    layers = lgn.signal_propagation(model, digits, batches=8, draws=4).layers
    assert layers["predicted_rms"].to_numpy() == pytest.approx(layers["gradient_rms"], rel=0.2)
    predicted = lgn.mean_field(model, data=digits).layers
    for name in ("mean", "second_moment", "overlap"):
        assert predicted[name].to_numpy() == pytest.approx(layers[name], rel=0.08)
    assert np.array_equal(layers["predicted_overlap"], predicted["overlap"])


def test_the_mean_over_draws_is_predicted(digits):
    """Products of two draws' gradients under the same batch; they scatter by some 2 %."""
    model, (x, y) = network(lgn.GumbelST(), init="residual", depth=3), digits.split("train")
    subject, squares = _Subject(model, [1e-8]), []
    for block in range(6):
        rows = torch.randperm(len(y), generator=torch.Generator().manual_seed(block))[:256]
        pair = [(x[half], y[half]) for half in rows.split(128)]
        keys = [NoiseKey(block, Purpose.PROBE, draw) for draw in range(24)]
        squares.append(subject.gradients(pair, keys)[0]["same_batch"])
    measured = torch.stack(squares).mean(0).sqrt()
    predicted = lgn.mean_field(model, data=digits).layers
    assert predicted["mean_gradient_rms"].tolist() == pytest.approx(measured.tolist(), rel=0.15)
    assert (predicted["mean_gradient_rms"] < 0.6 * predicted["gradient_rms"]).all()


def test_what_theory_does_not_know_is_measured_without_a_prediction(digits, monkeypatch):
    monkeypatch.setattr(signals, "has_moments", lambda init, relaxation, parametrisation: False)
    model = network(lgn.Soft(), depth=1, width=500)
    layers = lgn.signal_propagation(model, digits, batches=6, batch_size=16).layers
    assert layers[["predicted_rms", "predicted_overlap"]].isna().all().all()
    assert layers["gradient_rms"].notna().all()


def test_grad_factor_multiplies_at_every_layers_input():
    plain, scaled = (lgn.mean_field(network(lgn.Soft(), grad_factor=f)).layers for f in (1.0, -2.0))
    powers = 2.0 ** np.arange(5, -1, -1)
    assert scaled["gradient_rms"].to_numpy() == pytest.approx(plain["gradient_rms"] * powers)
    assert scaled["gradient_factor"].to_numpy() == pytest.approx(2 * plain["gradient_factor"])
    assert scaled["overlap"].equals(plain["overlap"])


def test_labels_matter_only_where_they_follow_the_input():
    """Of samples without labels, and of random bits, the terms of two samples cancel over even classes."""
    x = random_bits(400, 960)
    model = network(lgn.GumbelST())
    without, fair = (lgn.mean_field(model, data=d).layers["gradient_rms"] for d in (x, None))
    assert without.to_numpy() == pytest.approx(fair, rel=0.02)
    y = torch.arange(400) % 10
    copies = x[y]  # ten different samples, one a class
    followed = lgn.mean_field(model, data=(copies, y)).layers["gradient_rms"]
    assert (followed > 1.5 * fair).all()


def test_it_leaves_the_random_state_alone_and_says_what_it_holds(digits):
    model = network(lgn.GumbelST(0.5), depth=2)
    state = torch.random.get_rng_state()
    first, second = (lgn.mean_field(model, data=digits) for _ in range(2))
    assert first.layers.equals(second.layers)
    assert torch.equal(torch.random.get_rng_state(), state)
    frame = first.to_frame()
    columns = [
        "layer",
        "mean",
        "second_moment",
        "overlap",
        "chi",
        "gradient_factor",
        "gradient_rms",
    ]
    assert frame.columns[:7].tolist() == columns
    assert frame["relaxation"].tolist() == ["gumbel-st"] * 2
    assert first.taus == (0.5, 0.5)
    assert "gumbel-st, normal initialisation, 2 layers, batches of 128" in repr(first)
    assert "<table" in first._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"n_classes": 4}, "n_classes must"),
        ({"data": random_bits(9)}, "shape"),
        ({"data": random_bits(1, 9)}, "two or more"),
        ({"data": random_bits(5, 8)}, "8"),
        ({"data": (random_bits(5, 9), torch.arange(5))}, "0..2"),
    ],
)
def test_what_does_not_fit_is_refused(make_network, options, message):
    with pytest.raises(InvalidInputError, match=message):
        lgn.mean_field(make_network(), **options)


@pytest.mark.parametrize(
    ("name", "init", "relaxation"),
    [
        ("light", "normal", lgn.Soft()),
        ("light", "residual", lgn.Soft()),
        ("light", "normal", lgn.GumbelSoft()),
        ("light-sigmoid", "normal", lgn.GumbelST(0.5)),
        ("walsh", "normal", lgn.HardST(2.0)),
    ],
    ids=str,
)
def test_a_wide_network_of_truth_tables_does_what_is_predicted(digits, name, init, relaxation):
    # As above; the rms of one network of this size scatters by some 5 %.
    model = network(relaxation, init=init, depth=4, parametrisation=name)
    layers = lgn.signal_propagation(model, digits, batches=6, draws=3).layers
    assert layers["predicted_rms"].to_numpy() == pytest.approx(layers["gradient_rms"], rel=0.2)
    predicted = layers["predicted_overlap"].to_numpy()
    assert predicted == pytest.approx(layers["overlap"], abs=0.02)
