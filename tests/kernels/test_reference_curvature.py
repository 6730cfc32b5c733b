"""The reference curvature: the derivatives of the loss as plain automatic differentiation has them."""

import pytest
import torch
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.gates.noise import NoiseKey, Purpose, random_signs
from lgn_analysis.gates.table import COEFFICIENTS, gate_coefficients
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.interface import loss_derivatives

TAU = 0.7


def problem(batch=9, layers=(0, 1), seed=0):
    model = lgn.LogicNetwork(8, 12, 2, 3, 2.0, seed=seed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 2, (batch, 8), generator=generator).bool()
    y = torch.randint(0, 3, (batch,), generator=generator)
    logits = [layer.logits.detach() for layer in model.layers]
    curvature = reference.Curvature(
        model.as_spec("soft"),
        logits,
        x,
        lambda outputs: functional.cross_entropy(outputs, y),
        tau=TAU,
        layers=layers,
    )
    return model, logits, x, y, curvature


def forward(model, coefficients, x, offsets=None):
    features = x.double().T
    for index, layer in enumerate(model.layers):
        a, b = features[layer.wiring[0]], features[layer.wiring[1]]
        c = coefficients[index].unsqueeze(-1)
        features = c[:, 0] + c[:, 1] * a + c[:, 2] * b + c[:, 3] * a * b
        if offsets is not None:
            features = features + offsets[index]
    return model.group_sum(features.T)


def in_logits(model, x, y):
    def loss(flat):
        parts = flat.reshape(2, 12, 16)
        c = [gate_coefficients(torch.softmax(z / TAU, -1)) for z in parts]
        return functional.cross_entropy(forward(model, c, x), y)

    return loss


@pytest.mark.parametrize("layers", [(0, 1), (0,), (1,)])
def test_products_are_blocks_of_the_dense_hessian(layers):
    model, logits, x, y, curvature = problem(layers=layers)
    dense = torch.autograd.functional.hessian(
        in_logits(model, x, y), torch.cat([z.reshape(-1) for z in logits])
    ).reshape(2, 192, 2, 192)
    block = dense[list(layers)][:, :, list(layers)].reshape(192 * len(layers), -1)
    rows = torch.randn(3, len(block), dtype=torch.float64)
    assert torch.allclose(curvature.products(rows), rows @ block, atol=1e-14)
    assert curvature.products(rows).dtype == torch.float64


def test_loss_and_slopes_are_those_of_the_four_coefficients():
    model, logits, x, y, curvature = problem()
    c = torch.stack([gate_coefficients(torch.softmax(z / TAU, -1)) for z in logits])
    c.requires_grad_()
    loss = functional.cross_entropy(forward(model, c, x), y)
    (slopes,) = torch.autograd.grad(loss, c)
    assert curvature.loss == pytest.approx(float(loss.detach()), rel=1e-14)
    assert torch.allclose(curvature.slopes, slopes, atol=1e-15)


@pytest.mark.parametrize("weight", ["softmax", "variance"])
@pytest.mark.parametrize("layers", [(0, 1), (0,), (1,)])
def test_activation_products_are_quadratic_forms_sample_by_sample(layers, weight):
    model, logits, x, y, curvature = problem(layers=layers)
    p = [torch.softmax(z / TAU, -1) for z in logits]
    c = [gate_coefficients(shard) for shard in p]

    def loss(offsets):
        return functional.cross_entropy(forward(model, c, x, offsets), y)

    dense = torch.autograd.functional.hessian(loss, torch.zeros(2, 12, 9, dtype=torch.float64))
    u, features = torch.zeros(2, 12, 9, dtype=torch.float64), x.double().T
    for index, layer in enumerate(model.layers):
        a, b = features[layer.wiring[0]], features[layer.wiring[1]]
        h = torch.einsum(
            "kj,jni->nki", COEFFICIENTS.double(), torch.stack([a * 0 + 1, a, b, a * b])
        )
        mean = torch.einsum("nk,nki->ni", p[index], h)
        q = (p[index].unsqueeze(-1) * (h - mean.unsqueeze(1)) / TAU).square().sum(1)
        if weight == "variance":
            q = torch.einsum("nk,nki->ni", p[index], h.square()) - mean.square()
        signs = random_signs(NoiseKey(5, Purpose.SIGNS, 3), index, 12, 9, dtype=torch.float64)
        if index in layers:
            u[index] = signs * q.sqrt()
        features = mean
    product = torch.einsum("lnimjk,mjk->lni", dense, u)
    d = (u * product)[list(layers)]
    forms, squares = curvature.activation_products(5, 3, 1, weight=weight)
    assert torch.allclose(forms[0], d.sum(1), atol=1e-15)
    assert torch.allclose(squares[0], d.square().sum((0, 1)), atol=1e-15)


def test_a_loss_without_curvature_has_none_of_its_own():
    outputs = torch.randn(4, 3, dtype=torch.float64)
    value, gradient, hessian = loss_derivatives(lambda o: (2 * o).mean(), outputs)
    assert value == pytest.approx(2 * float(outputs.mean()))
    assert torch.equal(gradient, torch.full_like(outputs, 2 / 12))
    assert not hessian.any()


def test_the_hessian_of_a_loss_is_taken_sample_by_sample():
    outputs, y = torch.randn(5, 4, dtype=torch.float64), torch.arange(5) % 4
    _, gradient, hessian = loss_derivatives(lambda o: functional.cross_entropy(o, y), outputs)
    p = torch.softmax(outputs, -1)
    assert torch.allclose(gradient, (p - functional.one_hot(y, 4)) / 5)
    assert torch.allclose(hessian, (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) / 5)
