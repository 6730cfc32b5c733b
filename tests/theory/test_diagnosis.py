"""What is said of a network before it is trained: its regime, layers that stand still, and changes."""

import math

import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.theory.diagnosis import regime
from tests.tiny import random_bits


@pytest.fixture(scope="module")
def data():
    return random_bits(300, 24), torch.arange(300) % 3


def network(depth=12, relaxation=None, **options):
    options = {"group_tau": 5.0, **options}
    return lgn.LogicNetwork(24, 300, depth, 3, relaxation=relaxation or lgn.Soft(), **options)


@pytest.fixture(scope="module")
def deep(data):
    return lgn.diagnose(network(), data, steps=5000)


def test_the_regime_is_that_of_its_formulas():
    found = regime(network(group_tau=20.0))
    assert found["R"] == 100 / 20
    assert found["sigma"] == math.sqrt(100) / 2 / 20
    assert found["chance"] == math.log(3)
    # All gates of the right group are 1 and all others 0: no loss is lower.
    logits = torch.tensor([[5.0, 0.0, 0.0]], dtype=torch.float64)
    floor = torch.nn.functional.cross_entropy(logits, torch.tensor([0]))
    assert found["loss_floor"] == pytest.approx(float(floor), rel=1e-12)


def test_fewest_steps_follow_from_measured_gradients(data, deep):
    signal = lgn.signal_propagation(network(), data, batches=6).layers
    assert deep.layers["gradient_rms"].tolist() == signal["gradient_rms"].tolist()
    expected = 1 / (0.01 * signal["adam_share"])
    assert deep.layers["fewest_steps"].tolist() == pytest.approx(expected.tolist(), rel=1e-12)
    assert (deep.layers["stands_still"] == (deep.layers["fewest_steps"] > 5000)).all()


def test_the_lower_layers_of_a_deep_network_stand_still_at_the_default_epsilon(deep):
    still = deep.layers["stands_still"].tolist()
    n = sum(still)
    assert 0 < n < 12
    assert still == [True] * n + [False] * (12 - n)
    assert not deep.trains
    assert deep.changes["still_layers"].iloc[0] == n
    assert deep.changes["unused"].iloc[0] == n / 12
    assert f"{n} of 12 layers stand still" in str(deep)
    assert "does not train" in repr(deep)


def test_each_remedy_makes_every_layer_move(data, deep):
    remedies = deep.remedies.set_index("change")
    assert {"eps 1e-16", "init residual"} < set(remedies.index)
    (factor,) = (name for name in remedies.index if name.startswith("grad_factor"))
    assert (remedies["still_layers"] == 0).all()
    value = float(factor.split()[1])
    again = lgn.diagnose(network(grad_factor=value), data, steps=5000)
    assert again.trains
    assert again.changes["fewest_steps"].iloc[0] == remedies.loc[factor, "fewest_steps"]
    assert lgn.diagnose(network(), data, steps=5000, eps=1e-16).trains


@pytest.mark.parametrize("relaxation", [lgn.Soft(), lgn.GumbelST()], ids=lambda r: r.name)
def test_a_change_of_epsilon_or_draws_says_what_a_diagnosis_of_it_would(data, relaxation):
    model = network(depth=6, relaxation=relaxation)
    changes = lgn.diagnose(model, data).changes.set_index("change")
    others = {"eps 1e-16": {"eps": 1e-16}, "eps 1e-20": {"eps": 1e-20}}
    if relaxation.noisy:
        others["draws_per_step 16"] = {"draws_per_step": 16}
    for change, options in others.items():
        alone = lgn.diagnose(model, data, **options).changes.set_index("change").loc["as it is"]
        assert changes.loc[change].tolist() == alone.tolist()


def test_a_shallow_network_trains(data):
    found = lgn.diagnose(network(depth=2), data)
    assert found.trains
    assert found.remedies.empty
    assert "Every layer moves" in str(found)


def test_noise_drowns_the_gradients_of_deep_layers(data):
    """The signal is the soft network's gradient, which falls from the last layer to the first."""
    found = lgn.diagnose(network(depth=8, relaxation=lgn.GumbelST()), data)
    share = found.layers["signal_share"]
    assert share.iloc[0] < 1e-3 < 0.05 < share.iloc[-1] <= 1
    assert found.layers["adam_share"].min() > 0.5  # Adam moves every layer
    assert found.layers["stands_still"].iloc[0]
    assert "gradients are noise" in str(found)
    changes = found.changes.set_index("change")
    quarter = changes.loc["draws_per_step 16", "fewest_steps"]
    assert quarter == pytest.approx(changes.loc["as it is", "fewest_steps"] / 4, rel=1e-9)
    averaged = lgn.diagnose(network(depth=8, relaxation=lgn.GumbelST()), data, draws_per_step=16)
    assert averaged.changes["fewest_steps"].iloc[0] == quarter


def test_a_loss_that_cannot_fall_is_said_with_a_group_tau_that_lets_it(data):
    found = lgn.diagnose(network(depth=2, group_tau=400.0), data)
    assert not found.trains
    assert found.regime["loss_floor"] > math.log(3) / 2
    (change,) = found.remedies["change"]
    assert change.startswith("group_tau ")
    value = float(change.split()[1])
    assert lgn.diagnose(network(depth=2, group_tau=value), data).trains


def test_of_a_trained_network_only_what_keeps_its_logits_is_changed(data):
    model = network()
    with torch.no_grad():
        model.layers[0].logits += 0.1
    before = [layer.logits.clone() for layer in model.layers]
    found = lgn.diagnose(model, data)
    assert not any(name.startswith(("init", "depth")) for name in found.changes["change"])
    assert all(torch.equal(a, b.logits) for a, b in zip(before, model.layers, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be"),
        ({"lr": 0.0}, "lr must be"),
        ({"eps": 0.0}, "eps must be"),
        ({"batches": 5}, "even number"),
    ],
)
def test_numbers_out_of_range_are_refused(data, options, message):
    with pytest.raises(InvalidInputError, match=message):
        lgn.diagnose(network(depth=2), data, **options)


def test_one_sample_is_too_few():
    with pytest.raises(InvalidInputError, match="at least 2 samples"):
        lgn.diagnose(network(depth=2), (random_bits(1, 24), torch.zeros(1, dtype=torch.long)))


def test_a_network_changed_by_hand_is_refused(data):
    model = network(depth=2)
    model.layers[0].register_forward_hook(lambda *args: None)
    with pytest.raises(InvalidInputError, match="a diagnosis needs a LogicNetwork"):
        lgn.diagnose(model, data)


def test_of_another_module_it_is_said_how_to_make_a_network(data):
    message = r"a diagnosis needs a LogicNetwork, got Linear; lgn\.convert\(module\) makes one"
    with pytest.raises(InvalidInputError, match=message):
        lgn.diagnose(torch.nn.Linear(24, 3), data)
    with pytest.raises(InvalidInputError, match=r"a diagnosis needs a LogicNetwork, got int$"):
        lgn.diagnose(3, data)
