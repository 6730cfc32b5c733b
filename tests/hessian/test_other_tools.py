"""The tools from outside, which know no logic gates, agree wherever they can look."""

import pytest
import torch
from curvlinops import HessianLinearOperator
from hessian_eigenthings import HessianOperator, hutchinson, supervised_loss
from hessian_eigenthings import lanczos as their_lanczos
from hessian_eigenthings import spectral_density as their_density
from scipy.sparse.linalg import eigsh
from torch import nn

import lgn_analysis as lgn
from tests.hessian.cases import bits, network


class Soft(nn.Module):
    """The soft network in plain PyTorch, as their users would write it."""

    def __init__(self, model):
        super().__init__()
        self.logits = nn.ParameterList([layer.logits.detach().clone() for layer in model.layers])
        self.wirings = [layer.wiring for layer in model.layers]
        self.tau, self.group_sum = model.relaxation.tau, model.group_sum

    def forward(self, x):
        for z, wiring in zip(self.logits, self.wirings, strict=True):
            p = torch.softmax(z / self.tau, -1)
            c = p @ lgn.gates.COEFFICIENTS.to(p)
            a, b = x[:, wiring[0]], x[:, wiring[1]]
            x = c[:, 0] + c[:, 1] * a + c[:, 2] * b + c[:, 3] * a * b
        return self.group_sum(x)


@pytest.fixture
def sides():
    model, (x, y) = network(tau=0.8), bits(40)
    plain, batch = Soft(model), (x.double(), y)
    theirs = HessianOperator(plain, [batch], supervised_loss(nn.CrossEntropyLoss()))
    return lgn.HessianProbe(model, (x, y)), plain, batch, theirs


def test_products_agree(sides):
    probe, plain, batch, theirs = sides
    v = torch.randn(probe.shape[0], dtype=torch.float64)
    curv = HessianLinearOperator(plain, nn.CrossEntropyLoss(), list(plain.parameters()), [batch])
    assert torch.allclose(probe @ v, theirs.matvec(v), atol=1e-15)
    assert torch.allclose(probe @ v, curv @ v, atol=1e-15)


def test_eigenvalues_agree(sides):
    probe, _, _, theirs = sides
    ours = probe.eigs(k=6, which="LA", tol=1e-8)
    expected = eigsh(probe.to_scipy(), k=6, which="LA", return_eigenvectors=False)
    assert ours.values == pytest.approx(sorted(expected, reverse=True), rel=1e-7)
    found = their_lanczos(theirs, k=3, which="LA", max_iter=60, reorthogonalize=True)
    assert sorted(found.eigenvalues.tolist(), reverse=True) == pytest.approx(
        ours.values[:3], rel=1e-5
    )


def test_traces_agree(sides):
    probe, _, _, theirs = sides
    ours = probe.trace(rtol=0.01)
    general = hutchinson(theirs, num_samples=600, seed=0)
    # 5 standard errors of theirs, the larger one: false-alarm rate 6e-7.
    assert abs(general.estimate - ours.estimate) < 5 * (general.stderr + ours.stderr)


def test_densities_agree_in_their_mean(sides):
    probe, _, _, theirs = sides
    exact = torch.linalg.eigvalsh(probe.dense())
    ours = probe.density(n_probes=4, steps=30, method="lanczos", deflate=0)
    grid = torch.linspace(float(exact[0]) * 1.1, float(exact[-1]) * 1.1, 400, dtype=torch.float64)
    result = their_density(theirs, num_runs=4, lanczos_steps=30, seed=0)
    shares = [((exact <= cut).double().mean().item(), float(cut)) for cut in grid[::80]]
    for share, cut in shares:
        assert float(ours.cdf(cut)[0]) == pytest.approx(share, abs=0.15)
    theirs_mean = float((torch.as_tensor(result.grid) * torch.as_tensor(result.density)).sum())
    theirs_mean /= float(torch.as_tensor(result.density).sum())
    spread = float(exact.abs().max())
    assert ours.moment(1)[0] == pytest.approx(float(exact.mean()), abs=0.05 * spread)
    assert theirs_mean == pytest.approx(float(exact.mean()), abs=0.05 * spread)
