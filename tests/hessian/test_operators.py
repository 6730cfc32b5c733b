"""The two Hessians: the same products, whatever is kept, split or chosen."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.hessian import ModuleHessian, NetworkHessian
from lgn_analysis.hessian.operators.module import METHODS
from tests.hessian.cases import bits, network, perceptron


def float_data(n=24):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, torch.arange(n) % 3


def general(probe, data):
    """The operator of any module, on the network's soft mode."""

    class Plain(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.layers = inner.layers
            self.inner = [inner]

        def forward(self, x):
            return self.inner[0](x, mode="soft")

    return lgn.HessianProbe(Plain(probe.model), data, loss_fn=probe.loss_fn)


@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("max_bytes", [2**30, 40_000, 1])
def test_a_network_has_the_same_products_whatever_is_kept(batch_size, max_bytes):
    data = bits(40)
    probe = lgn.HessianProbe(network(), data, batch_size=batch_size, max_bytes=max_bytes)
    plain = general(probe, data)
    assert isinstance(probe.operator, NetworkHessian)
    assert isinstance(plain.operator, ModuleHessian)
    v = torch.randn(probe.shape[0], 3, dtype=torch.float64)
    for _ in range(2):  # the second time from what was kept
        assert torch.allclose(probe @ v, plain @ v, atol=1e-15)
    assert torch.allclose(probe.grad(), plain.grad(), atol=1e-16)
    assert probe.loss() == pytest.approx(plain.loss(), rel=1e-14)


def test_memory_for_what_is_kept_is_bounded():
    model = network()
    model.backend = "reference"
    whole = lgn.HessianProbe(model, bits(400)).operator._bytes * 400
    for share in (1.0, 0.6, 0.3):
        model_bytes = int(share * whole)
        operator = lgn.HessianProbe(model, bits(400), max_bytes=model_bytes).operator
        operator.row_products(torch.ones(1, operator.shape[0], dtype=torch.float64))
        taken = operator._bytes * sum(
            len(curvature._deltas[0][0]) for curvature in operator._kept.values()
        )
        assert 0.5 * model_bytes < taken <= model_bytes


def ranking(outputs, y):
    """A loss of pairs of neighbours: no sum over samples."""
    return functional.cross_entropy(outputs, y) + (outputs * outputs.roll(1, 0)).mean()


def test_a_loss_that_couples_samples_is_differentiated_all_the_same():
    model, data = network(), bits(20)
    probe = lgn.HessianProbe(model, data, loss_fn=ranking)
    plain = general(probe, data)
    v = torch.randn(probe.shape[0], dtype=torch.float64)
    assert probe.operator.couples
    assert torch.allclose(probe @ v, plain @ v, atol=1e-15)
    with pytest.raises(InvalidInputError, match="by itself"):
        probe.trace(method="activation", n_probes=2)
    assert probe.trace(n_probes=4).n_matvecs == 4


def test_class_weights_are_one_batch_of_a_network():
    weight = torch.tensor([1.0, 5.0, 9.0], dtype=torch.float64)
    loss_fn = nn.CrossEntropyLoss(weight=weight)
    probe = lgn.HessianProbe(network(), bits(20), loss_fn=loss_fn, max_bytes=1)
    v = torch.randn(probe.shape[0], dtype=torch.float64)
    assert torch.allclose(probe @ v, general(probe, bits(20)) @ v, atol=1e-15)


def test_a_probe_shows_the_point_at_which_it_was_made():
    for model, data in ((network(), bits()), (perceptron(), float_data())):
        probe = lgn.HessianProbe(model, data)
        v = torch.randn(probe.shape[0], dtype=torch.float64)
        before, loss = probe @ v, probe.loss()
        with torch.no_grad():
            for value in model.parameters():
                value += torch.randn_like(value)
        assert torch.equal(probe @ v, before)
        assert probe.loss() == loss
        assert not torch.allclose(lgn.HessianProbe(model, data) @ v, before)


def test_a_displaced_operator_is_that_of_a_moved_model():
    for model, data in ((network(), bits()), (perceptron(), float_data())):
        probe = lgn.HessianProbe(model, data)
        step = torch.randn(probe.shape[0], dtype=torch.float64)
        moved = probe.operator.displaced(step)
        before = probe.loss()
        with torch.no_grad():
            nn.utils.vector_to_parameters(
                nn.utils.parameters_to_vector(model.parameters()) + step, model.parameters()
            )
        again = lgn.HessianProbe(model, data)
        assert moved.loss() == pytest.approx(again.loss(), rel=1e-14)
        assert torch.allclose(moved.matvec(step), again @ step, atol=1e-14)
        assert probe.loss() == before


@pytest.mark.parametrize("max_bytes", [2**30, 1])
@pytest.mark.parametrize("method", list(METHODS))
def test_kept_graphs_and_new_ones_give_the_same_products(max_bytes, method):
    probe = lgn.HessianProbe(perceptron(), float_data(), batch_size=7, max_bytes=max_bytes)
    exact = probe.dense()
    assert probe.operator.keeps_graphs == (
        max_bytes > 1 and probe.operator.method == "double-backward"
    )
    probe.operator.method, probe.operator.keeps_graphs = method, False
    v = torch.randn(probe.shape[0], 2, dtype=torch.float64)
    assert torch.allclose(probe @ v, exact @ v, atol=1e-14)


def test_a_network_changed_by_hand_is_probed_like_any_module():
    class Louder(lgn.LogicNetwork):
        def forward(self, x, **options):
            return 2 * super().forward(x, **options)

    model = Louder(8, 12, 2, 3, 2.0, relaxation=lgn.Soft(), dtype=torch.float64)
    probe = lgn.HessianProbe(model, bits())
    assert isinstance(probe.operator, ModuleHessian)
    hooked = network()
    hooked.layers[0].register_forward_hook(lambda *_: None)
    assert isinstance(lgn.HessianProbe(hooked, bits()).operator, ModuleHessian)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("noise", [None, lgn.GumbelNoise(draws=2)])
def test_a_check_measures_every_error(dtype, noise):
    report = lgn.HessianProbe(network(dtype=dtype), bits(), noise=noise).check()
    table = report.to_frame()
    names = ["determinism", "symmetry", "finite differences", "kernels"]
    assert set(names) <= set(table["check"])
    assert (table["error"] <= table["allowed"]).all()
    assert "all passed" in repr(report)


def test_a_check_of_wrong_kernels_raises(monkeypatch):
    probe = lgn.HessianProbe(network(), bits())
    kind = type(probe.operator.first_piece(*bits()))
    right = kind.products
    # Twice the Hessian is deterministic and symmetric, and wrong.
    monkeypatch.setattr(kind, "products", lambda self, rows: 2 * right(self, rows))
    with pytest.raises(NotDifferentiableError, match="differs from automatic differentiation"):
        probe.check()


def test_a_check_of_products_that_are_not_symmetric_or_not_the_same_raises(monkeypatch):
    probe = lgn.HessianProbe(perceptron(), float_data())
    right = probe.operator.row_products
    monkeypatch.setattr(probe.operator, "row_products", lambda rows: right(rows).cumsum(1))
    with pytest.raises(NotDifferentiableError, match="not symmetric"):
        probe.check()
    monkeypatch.setattr(
        probe.operator, "row_products", lambda rows: right(rows) + torch.rand_like(rows)
    )
    with pytest.raises(NotDifferentiableError, match="not deterministic"):
        probe.check()
