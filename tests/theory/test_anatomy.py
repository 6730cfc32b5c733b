"""The gap's anatomy: states are the networks they name, the expansion is Taylor's."""

import numpy as np
import pytest
import torch
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.table import COEFFICIENTS, TRUTH_TABLE
from tests.hessian.cases import bits

GATES = TRUTH_TABLE.double().reshape(16, 2, 2)


def network(depth=3, *, tau=1.0, dtype=torch.float64, **overrides):
    model = lgn.LogicNetwork(
        8, 12, depth, 3, 2.0, relaxation=lgn.Soft(tau), dtype=dtype, **overrides
    )
    with torch.no_grad():
        for layer in model.layers:
            layer.logits *= 2  # away from the flat start
    return model


def weights(model):
    """Soft and discrete gate weights, float64 [n_out, 16] of each layer."""
    soft = [(z.logits.detach().double() / model.relaxation.tau).softmax(-1) for z in model.layers]
    return soft, [functional.one_hot(z.gates, 16).double() for z in model.layers]


def outputs(model, x, p):
    """Class logits at gate weights p, sixteen gates one by one, by their truth tables."""
    values = x.double().T
    activations = []
    for layer, w in zip(model.layers, p, strict=True):
        a, b = values[layer.wiring[0]], values[layer.wiring[1]]
        corners = torch.stack([torch.stack([(1 - a) * (1 - b), (1 - a) * b]),
                               torch.stack([a * (1 - b), a * b])])  # fmt: skip
        values = torch.einsum("nk,kij,ijnb->nb", w, GATES, corners)
        activations.append(values)
    return values.T.unflatten(-1, (3, -1)).sum(-1) / 2.0, activations


def mixed(model, discrete):
    soft, hard = weights(model)
    return [hard[i] if i in discrete else soft[i] for i in range(model.depth)]


def sets(depth):
    return {
        ("from input", layer): range(layer + 1) for layer in range(-1, depth)
    } | {
        ("from output", layer): range(layer, depth) for layer in range(depth + 1)
    } | {("alone", layer): [layer] for layer in range(depth)}  # fmt: skip


def row(result, scheme, layer):
    states = result.states
    (found,) = states[(states["scheme"] == scheme) & (states["layer"] == layer)].to_dict("records")
    return found


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_every_state_is_the_network_of_its_gate_weights(tau):
    model, (x, y) = network(tau=tau), bits(200)
    result = lgn.gap_anatomy(model, (x, y))
    base, _ = outputs(model, x, mixed(model, []))
    assert len(result.states) == len(sets(3)) == 2 * 4 + 3
    for (scheme, layer), discrete in sets(3).items():
        found, (out, _) = row(result, scheme, layer), outputs(model, x, mixed(model, discrete))
        loss = float(functional.cross_entropy(out, y))
        assert found["n_discrete"] == len([*discrete])
        assert found["loss"] == pytest.approx(loss, rel=1e-12)
        change = loss - float(functional.cross_entropy(base, y))
        assert found["delta_loss"] == pytest.approx(change, abs=1e-13)
        assert found["accuracy"] == float((out.argmax(-1) == y).double().mean())
        assert found["flips"] == int((out.argmax(-1) != base.argmax(-1)).sum())
    assert result.states["flips"].max() > 0


@pytest.mark.parametrize("relaxation", [lgn.Soft, lgn.GumbelSoft, lgn.GumbelST, lgn.HardST])
def test_the_ends_are_the_evaluation_exactly(relaxation):
    model = lgn.LogicNetwork(8, 12, 3, 3, 1.7, relaxation=relaxation(0.7), dtype=torch.float64)
    data = bits(200)
    result, known = lgn.gap_anatomy(model.train(), data), lgn.evaluate(model, data)
    for scheme, layer in (("from input", 2), ("from output", 0)):
        end = row(result, scheme, layer)
        assert (end["loss"], end["accuracy"]) == (known.discrete_loss, known.discrete_accuracy)
        assert end["flips"] == known.flips
    for scheme, layer in (("from input", -1), ("from output", 3)):
        start = row(result, scheme, layer)
        assert start["loss"] == pytest.approx(known.soft_loss, rel=1e-13)
        assert start["accuracy"] == known.soft_accuracy
        assert start["delta_loss"] == start["flips"] == start["prediction"] == 0
    assert result.delta_loss == pytest.approx(known.gap_loss, rel=1e-9)
    assert model.training


def test_a_float32_network_predicts_as_it_does_in_discrete_mode():
    model, (x, y) = network(dtype=torch.float32), bits(300)
    whole, known = lgn.gap_anatomy(model, (x, y)).whole, lgn.evaluate(model, (x, y))
    assert whole["accuracy"] == known.discrete_accuracy
    assert whole["loss"] == pytest.approx(known.discrete_loss, rel=1e-6)


def test_tied_options_and_classes_go_to_the_first():
    model = network()
    with torch.no_grad():
        for layer in model.layers:
            layer.logits.zero_()
    x, y = bits(50)
    result = lgn.gap_anatomy(model, (x, y))  # all gates FALSE, all classes tied
    assert result.whole["accuracy"] == float((y == 0).double().mean())
    assert result.layers["bit_flips"].tolist() == [1.0] * 3  # ½ rounds to 1
    assert result.layers["distance"].tolist() == [0.5] * 3


def test_bits_flip_where_the_soft_activation_rounds_to_the_other_side():
    model, (x, y) = network(tau=1.5), bits(100)
    layers = lgn.gap_anatomy(model, (x, y)).layers
    (_, soft), (_, hard) = (outputs(model, x, p) for p in weights(model))
    inputs = [x.double().T, *hard]
    for index, module in enumerate(model.layers):
        c = weights(model)[0][index] @ COEFFICIENTS.double()
        a, b = inputs[index][module.wiring[0]], inputs[index][module.wiring[1]]
        own = c[:, :1] + c[:, 1:2] * a + c[:, 2:3] * b + c[:, 3:] * a * b
        for prefix, values in (("", soft[index]), ("own_", own)):
            flips = ((values >= 0.5) != hard[index].bool()).double().mean()
            assert layers[f"{prefix}bit_flips"][index] == pytest.approx(float(flips), abs=1e-15)
            distance = (values - hard[index]).abs().mean()
            assert layers[f"{prefix}distance"][index] == pytest.approx(float(distance), rel=1e-12)
    assert layers["bit_flips"][0] == layers["own_bit_flips"][0]
    assert layers["bit_flips"][2] != layers["own_bit_flips"][2]


def loss_of_weights(model, x, y):
    """The loss as a function of all gate weights in one vector."""

    def loss(flat):
        p = flat.reshape(model.depth, -1, 16)
        return functional.cross_entropy(outputs(model, x, p)[0], y)

    return loss  # fmt: skip


def test_the_expansion_is_that_of_the_dense_hessian_in_gate_weights():
    model, (x, y) = network(2), bits(40)
    result = lgn.gap_anatomy(model, (x, y))
    soft, hard = (torch.stack(p) for p in weights(model))
    loss, at = loss_of_weights(model, x, y), soft.reshape(-1)
    gradient, dense = torch.func.grad(loss)(at), torch.func.hessian(loss)(at)
    steps = torch.zeros(2, len(at), dtype=torch.float64)
    steps[0, : 12 * 16], steps[1, 12 * 16 :] = (hard - soft).reshape(2, -1)
    expected = (0.5 * steps @ dense @ steps.T).numpy()
    assert np.allclose(result.interactions, expected, rtol=1e-10, atol=1e-14)
    for (scheme, layer), discrete in sets(2).items():
        found, step = row(result, scheme, layer), steps[[*discrete]].sum(0)
        assert found["first_order"] == pytest.approx(float(gradient @ step), abs=1e-13)
        curvature = float(0.5 * step @ dense @ step)
        assert found["second_order"] == pytest.approx(curvature, abs=1e-13)
        assert found["prediction"] == found["first_order"] + found["second_order"]
    assert result.cross_layer == pytest.approx(2 * expected[0, 1], rel=1e-9)
    assert abs(result.cross_layer) > 1e-6


def test_the_expansion_is_the_derivatives_along_the_line_by_finite_differences():
    model, (x, y) = network(3), bits(60)
    result = lgn.gap_anatomy(model, (x, y))
    soft, hard = (torch.stack(p) for p in weights(model))
    loss = loss_of_weights(model, x, y)
    h = 1e-3
    for scheme, layer in (("from input", 2), ("alone", 0), ("alone", 2), ("from output", 1)):
        step = torch.zeros_like(soft)
        where = [*sets(3)[scheme, layer]]
        step[where] = (hard - soft)[where]
        low, mid, high = (float(loss((soft + t * step).reshape(-1))) for t in (-h, 0, h))
        found = row(result, scheme, layer)
        assert found["first_order"] == pytest.approx((high - low) / (2 * h), rel=1e-5, abs=1e-8)
        assert found["second_order"] == pytest.approx((high - 2 * mid + low) / h**2 / 2, rel=1e-4)


def linear_loss(output, y):
    """Mean over samples of one class's logit: no curvature of its own."""
    return output.gather(1, y[:, None]).mean()


def test_a_single_layer_with_a_linear_loss_has_no_second_order():
    # A gate is linear in its weights, so the first order is the whole change.
    result = lgn.gap_anatomy(network(1), bits(40), loss_fn=linear_loss)
    assert result.interactions.tolist() == [[0.0]]
    assert result.prediction == pytest.approx(result.delta_loss, rel=1e-12)
    assert abs(result.delta_loss) > 1e-3


def test_the_last_layer_alone_is_linear_and_two_layers_are_a_product():
    # y = c0 + c1 a + c2 b + c3 ab with a, b linear in t: cubic in t for both layers at once, at most
    # quadratic for the first one alone.
    result = lgn.gap_anatomy(network(2), bits(40), loss_fn=linear_loss)
    assert result.interactions[1, 1] == pytest.approx(0, abs=1e-15)
    for layer in (0, 1):
        found = row(result, "alone", layer)
        assert found["prediction"] == pytest.approx(found["delta_loss"], rel=1e-10)
    assert abs(result.prediction - result.delta_loss) > 1e-4


def test_a_network_of_near_one_hot_gates_has_no_gap():
    model = network()
    with torch.no_grad():
        for layer in model.layers:
            layer.logits += 60 * functional.one_hot(layer.gates, 16)
    result = lgn.gap_anatomy(model, bits(40))
    assert result.states["delta_loss"].abs().max() < 1e-12
    assert result.layers["bit_flips"].sum() == 0


def test_ragged_batches_weigh_by_their_samples():
    model, data = network(), bits(50)
    whole, parts = (lgn.gap_anatomy(model, data, batch_size=size) for size in (50, 7))
    assert np.allclose(whole.interactions, parts.interactions, rtol=1e-11, atol=1e-15)
    for frame in ("states", "layers"):
        first, second = (getattr(r, frame).select_dtypes("number") for r in (whole, parts))
        assert np.allclose(first, second, rtol=1e-10, atol=1e-14)


def test_a_data_set_is_read_by_its_split(separable_data):
    model = lgn.LogicNetwork(12, 12, 2, 3, 2.0)
    assert lgn.gap_anatomy(model, separable_data).n == 45
    assert lgn.gap_anatomy(model, separable_data, split="train").n == 90


def test_what_does_not_fit_is_refused():
    model, (x, y) = network(), bits(30)
    with pytest.raises(InvalidInputError, match="threshold them first"):
        lgn.gap_anatomy(model, (x.double() * 0.5, y))
    with pytest.raises(InvalidInputError, match=r"labels must lie in 0\.\.2"):
        lgn.gap_anatomy(model, (x, y + 1))
    with pytest.raises(InvalidInputError, match=r"expected inputs \[batch, 8\]"):
        lgn.gap_anatomy(model, (x[:, :5], y))

    def total(output, y):
        return functional.cross_entropy(output, y, reduction="sum")

    with pytest.raises(InvalidInputError, match="not the mean over its samples"):
        lgn.gap_anatomy(model, (x, y), loss_fn=total, batch_size=10)


def test_it_leaves_the_network_and_the_random_state_as_they_were():
    model, state = network().train(), torch.random.get_rng_state()
    before = [layer.logits.clone() for layer in model.layers]
    with torch.no_grad():
        result = lgn.gap_anatomy(model, bits(20))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b.logits) for a, b in zip(before, model.layers, strict=True))
    assert all(layer.logits.grad is None for layer in model.layers)
    assert "to second order" in repr(result)
    assert result._repr_html_().count("<table") == 2
    assert result.to_frame() is result.states
