"""The hard lemma: exact expectations by enumeration, second derivatives by plain autograd."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from tests.hessian.cases import bits
from tests.oracles import REAL, softmax


def tiny(*, width=2, depth=2, n_classes=2, group_tau=0.7, sharpness=2.0, relaxation=None):
    model = lgn.LogicNetwork(
        4, width, depth, n_classes, group_tau, relaxation=relaxation, seed=3, dtype=torch.float64
    )
    with torch.no_grad():
        for layer in model.layers:
            layer.logits *= sharpness
    return model


def parts(model):
    probabilities = [softmax(layer.logits.detach().numpy()) for layer in model.layers]
    return probabilities, [layer.wiring.numpy() for layer in model.layers]


def choices(model, x, y):
    """Return the probability and the loss of every choice of gates, by going through them all."""
    probabilities, wirings = parts(model)
    width = model.width
    states = [(1.0, np.asarray(x, dtype=float))]
    for p, (first, second) in zip(probabilities, wirings, strict=True):
        following = []
        for weight, values in states:
            h = [gate(values[:, first], values[:, second]) for gate in REAL]
            for chosen in itertools.product(range(16), repeat=width):
                chance = math.prod(p[gate, k] for gate, k in enumerate(chosen))
                out = np.stack([h[k][:, gate] for gate, k in enumerate(chosen)], axis=1)
                following.append((weight * chance, out))
        states = following
    outputs = torch.from_numpy(np.stack([out for _, out in states]))
    sums = outputs.unflatten(-1, (model.n_classes, -1)).sum(-1) / model.group_sum.group_tau
    n, batch, _ = sums.shape
    losses = functional.cross_entropy(sums.flatten(0, 1), y.repeat(n), reduction="none").view(
        n, batch
    )
    return np.array([weight for weight, _ in states]), losses.mean(1).numpy()


def soft_loss_and_prediction(model, x, y):
    """Return L and ``½ Σ_n Σ_i Var_p(h_n(i)) ∂²L/∂y_n(i)²``, the second derivative dense."""
    probabilities, wirings = parts(model)
    shape = (model.depth, model.width, len(y))

    def forward(offsets):
        values, variances = x.double().T, []
        for p, (first, second), offset in zip(probabilities, wirings, offsets, strict=True):
            h = torch.stack([gate(values[first], values[second]) for gate in REAL], dim=1)
            p = torch.from_numpy(p).unsqueeze(-1)
            values = (p * h).sum(1)
            variances.append((p * (h - values.unsqueeze(1)).square()).sum(1))
            values = values + offset
        outputs = values.T.unflatten(-1, (model.n_classes, -1)).sum(-1)
        loss = functional.cross_entropy(outputs / model.group_sum.group_tau, y)
        return loss, torch.stack(variances)

    zero = torch.zeros(shape, dtype=torch.float64)
    n = zero.numel()
    dense = torch.autograd.functional.hessian(
        lambda flat: forward(flat.view(shape))[0], zero.view(-1)
    )
    loss, variances = forward(zero)
    return float(loss), float((dense.view(n, n).diagonal() * variances.view(-1)).sum() / 2)


def test_the_gain_is_that_of_all_choices_of_gates():
    model, (x, y) = tiny(), bits(6, 4, 2)
    chance, losses = choices(model, x, y)
    assert chance.sum() == pytest.approx(1)
    soft, _ = soft_loss_and_prediction(model, x, y)
    row = lgn.hard_lemma(model, (x, y), draws=2000, n_probes=2).iloc[0]
    assert row["soft_loss"] == pytest.approx(soft, rel=1e-12)
    exact = float(chance @ losses) - soft
    assert abs(row["gain"] - exact) < 5 * row["gain_stderr"]  # false-alarm rate 6e-7
    assert row["gain_stderr"] < 0.1 * abs(exact)
    assert row["gain_low"] < row["gain"] < row["gain_high"]


@pytest.mark.parametrize("batch_size", [None, 4])
def test_the_prediction_is_that_of_the_dense_second_derivative(batch_size):
    model, (x, y) = tiny(width=6, depth=3, n_classes=3, sharpness=1.0), bits(11, 4, 3)
    soft, exact = soft_loss_and_prediction(model, x, y)
    row = lgn.hard_lemma(model, (x, y), draws=2, n_probes=3000, batch_size=batch_size).iloc[0]
    assert row["soft_loss"] == pytest.approx(soft, rel=1e-12)
    assert abs(row["prediction"] - exact) < 5 * row["prediction_stderr"]  # false-alarm rate 6e-7
    assert row["prediction_stderr"] < 0.02 * abs(exact)


def test_the_ratio_is_one_where_the_loss_is_nearly_quadratic():
    # One layer moves the outputs by at most 1/group_tau, of which the third derivative sees the cube.
    model, (x, y) = tiny(width=3, depth=1, n_classes=3, group_tau=50.0), bits(8, 4, 3)
    chance, losses = choices(model, x, y)
    soft, prediction = soft_loss_and_prediction(model, x, y)
    assert float(chance @ losses) - soft == pytest.approx(prediction, rel=0.01)
    row = lgn.hard_lemma(model, (x, y), draws=2000, n_probes=400).iloc[0]
    assert row["control"] == "gradient"
    assert row["ratio_high"] - row["ratio_low"] < 0.3
    assert row["ratio_low"] - 0.01 < 1 < row["ratio_high"] + 0.01


@pytest.mark.parametrize("relaxation", [lgn.Soft(2.0), lgn.GumbelST(0.3), lgn.CAGE()])
def test_neither_relaxation_nor_tau_has_a_part_in_it(relaxation):
    (wanted,) = lgn.hard_lemma(tiny(), bits(9, 4, 2), draws=20, n_probes=4).to_dict("records")
    model = tiny(relaxation=relaxation)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    (got,) = lgn.hard_lemma(model, bits(9, 4, 2), draws=20, n_probes=4).to_dict("records")
    assert got == wanted
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_frozen_layers_choose_gates_too():
    model = tiny()
    wanted = lgn.hard_lemma(model, bits(9, 4, 2), draws=20, n_probes=4)
    model.layers[0].logits.requires_grad_(False)
    assert lgn.hard_lemma(model, bits(9, 4, 2), draws=20, n_probes=4).equals(wanted)


def test_class_weights_and_pieces_make_one_mean():
    model, (x, y) = tiny(n_classes=2), bits(9, 4, 2)
    loss = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0]).double())
    frames = [
        lgn.hard_lemma(model, (x, y), draws=5, n_probes=2, loss_fn=loss, batch_size=size)
        for size in (None, 4)
    ]
    for name in ("soft_loss", "gain"):
        assert frames[0][name][0] == pytest.approx(frames[1][name][0], rel=1e-12)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidInputError, match="at least 2 draws, got 1"):
        lgn.hard_lemma(tiny(), bits(5, 4, 2), draws=1)
    ranked = lambda o, y: (o - o.mean(0)).square().mean()  # noqa: E731
    with pytest.raises(InvalidInputError, match="contributes by itself"):
        lgn.hard_lemma(tiny(), bits(5, 4, 2), loss_fn=ranked)
