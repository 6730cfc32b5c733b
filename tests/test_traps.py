"""One test for each trap that implementations of logic gate networks are known to have fallen into.

An index to read: each test makes the essential check itself, in a few lines, and where it can shows the
wrong way beside it. The modules' own tests go deeper.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.base.errors import NotDifferentiableError
from lgn_analysis.gates.noise import NoiseKey, Purpose, gumbel_from_words
from lgn_analysis.hessian import DenseOperator, hutchinson_trace, lanczos, top_eigenpairs
from lgn_analysis.kernels import select_backend
from lgn_analysis.kernels.cpu.noise import gumbel
from lgn_analysis.kernels.cpu.runtime.compiling import entry
from lgn_analysis.kernels.cpu.simd import load, store
from tests.oracles import discrete_outputs
from tests.tiny import random_bits

CPU = torch.device("cpu")
KEY = NoiseKey(3, Purpose.TRAINING, 1)

BACKENDS = pytest.mark.parametrize("backend", ["cpu", "reference"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def network(backend: str | None = None, **overrides: Any) -> lgn.LogicNetwork:
    arguments: dict[str, Any] = {"width": 12, "depth": 2, "n_classes": 3, "group_tau": 2.0}
    return lgn.LogicNetwork(9, **arguments | {"seed": 4, "backend": backend} | overrides)


def labelled(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return random_bits(n, 9, seed=seed), torch.arange(n) % 3


def symmetric(eigenvalues: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    """A matrix with these eigenvalues and a random eigenbasis."""
    values = torch.as_tensor(np.asarray(eigenvalues), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(gaussian)
    return (basis * values @ basis.T).to(dtype)


@entry
def write_gumbel(words, values):
    for start in range(0, len(words), 64):
        store(values, start, gumbel(load(words, start, 64)))


def test_trap_01_uniforms_lie_strictly_inside_the_unit_interval() -> None:
    """A float32 uniform rounds to 1 for the largest words, and the noise to infinity."""
    words = torch.tensor([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]).repeat_interleave(64)
    naive = -torch.log(-torch.log((words.float() + 0.5) / 2**32))
    assert naive.isinf().any()
    exact = gumbel_from_words(words, torch.float64)
    assert math.isclose(exact.max(), 32 * math.log(2) + math.log(2), rel_tol=1e-9)
    compiled = np.full(len(words), np.nan, dtype=np.float32)
    write_gumbel(words.numpy().astype(np.uint32).view(np.int32), compiled)
    for noise in (gumbel_from_words(words, torch.float32), torch.from_numpy(compiled)):
        assert torch.allclose(noise.double(), exact, rtol=1e-6, atol=1e-6)


def test_trap_02_wiring_is_in_the_state_dict_and_in_the_file(tmp_path: Path) -> None:
    """A network reloaded with another wiring is another network, and nothing says so."""
    model, x = network().eval(), random_bits(40, 9)
    lgn.save(model, tmp_path / "model.safetensors")
    other = network(seed=5).eval()
    assert not torch.equal(other(x), model(x))
    assert torch.equal(lgn.load(tmp_path / "model.safetensors").eval()(x), model(x))
    state = model.state_dict()
    other.load_state_dict(state)
    assert torch.equal(other(x), model(x))
    with pytest.raises(RuntimeError, match=r"Missing key.*wiring"):
        other.load_state_dict({name: z for name, z in state.items() if "wiring" not in name})


class RawKernels(torch.autograd.Function):
    """tanh, whose backward hands its slope over as bare numbers: right once, wrong twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.slope = 1 - x.detach().tanh() ** 2
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.slope


class OnceOnly(RawKernels):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.slope


class Layered(nn.Module):
    """Two linear layers with a nonlinearity between them."""

    def __init__(self, activation: Any) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(9, 5).double(), nn.Linear(5, 3).double()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(generator=generator)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.activation(self.first(x)))


def test_trap_03_a_wrong_hessian_can_be_symmetric_and_finite_differences_see_it() -> None:
    x, y = labelled(20)
    data = x.double(), y
    true = lgn.HessianProbe(Layered(torch.tanh), data).dense()
    unchecked = lgn.HessianProbe(Layered(RawKernels.apply), data, check=False)
    wrong = unchecked @ torch.eye(len(true), dtype=torch.float64)
    assert torch.allclose(wrong, wrong.T, atol=1e-14)
    assert (wrong - true).norm() > 0.1 * true.norm()
    for refused in (unchecked.check, lambda: lgn.HessianProbe(Layered(RawKernels.apply), data)):
        with pytest.raises(NotDifferentiableError, match="H v is wrong against finite differences"):
            refused()
    lgn.HessianProbe(Layered(torch.tanh), data).check()


def test_trap_03_what_cannot_be_differentiated_twice_refuses() -> None:
    """Torch skips the error that ``once_differentiable`` planted, where the leaves lie elsewhere."""
    x, y = labelled(20)
    with pytest.raises(NotDifferentiableError, match="H v is wrong against finite differences"):
        lgn.HessianProbe(Layered(OnceOnly.apply), (x.double(), y))
    for relaxation in (lgn.GumbelST(), lgn.HardST(), lgn.CAGE()):
        model = network("cpu", relaxation=relaxation).train()
        logits = [layer.logits for layer in model.layers]
        loss = functional.cross_entropy(model(x, draw=KEY), y)
        gradient = torch.autograd.grad(loss, logits, create_graph=True)
        with pytest.raises(NotDifferentiableError, match="straight-through gradient"):
            torch.autograd.grad(gradient[0].sum(), logits)


@BACKENDS
@pytest.mark.parametrize("relaxation", [lgn.Soft(), lgn.GumbelSoft(), lgn.GumbelST(), lgn.HardST()])
def test_trap_04_a_gate_that_reads_one_input_twice_adds_both_slopes(
    relaxation: lgn.Relaxation, backend: str
) -> None:
    """XNOR(a, a) = 1 − 2a + 2a² has the slope 4a − 2, and one input alone gives half of it."""
    layer = lgn.LogicLayer(
        1, 1, wiring=torch.zeros(2, 1, dtype=torch.int64), relaxation=relaxation, backend=backend
    )
    with torch.no_grad():
        layer.logits.copy_(80 * functional.one_hot(torch.tensor([9]), 16))  # beyond all noise
    a = torch.tensor([[0.0], [1.0], [1.0]], requires_grad=True)
    layer.train()(a, draw=KEY).sum().backward()
    assert torch.allclose(a.grad, 4 * a.detach() - 2, atol=1e-6)


RAGGED = pytest.mark.parametrize("batch", [1, 63, 64, 65, 127, 200, 513])


@BACKENDS
@RAGGED
def test_trap_05_packed_paths_take_batches_of_any_size(batch: int, backend: str) -> None:
    """Words hold 64 samples, and the kernels take 512 at once: what lies beyond must not count."""
    kernels, bits = select_backend(CPU, backend), random_bits(9, batch, seed=batch)
    words = kernels.pack_bits(bits)
    assert words.shape == (9, -(-batch // 64))
    assert torch.equal(kernels.unpack_bits(words, batch), bits)

    model, x = network(backend, relaxation=lgn.HardST()), bits.T
    layers = [(layer.gates.numpy(), layer.wiring.numpy()) for layer in model.layers]
    outputs = torch.tensor(discrete_outputs(x.tolist(), layers))
    *_, last = model.packed_activations(x)
    assert torch.equal(kernels.unpack_bits(last, batch).T, outputs.bool())
    expected = outputs.reshape(batch, 3, 4).sum(-1) / 2.0
    assert torch.equal(model.eval()(x), expected)
    assert torch.equal(model.train()(x).detach(), expected)  # hard gates: bits in training too
    y = torch.arange(batch) % 3
    assert lgn.evaluate(model, (x, y)).discrete_accuracy == float(
        (expected.argmax(-1) == y).double().mean()
    )
    constant = (outputs == outputs[0]).all(0).double().mean()
    assert lgn.gate_usage(model, x)["constant"].iloc[-1] == pytest.approx(float(constant))


@RAGGED
def test_trap_05_gradients_and_training_steps_take_batches_of_any_size(batch: int) -> None:
    x, y = labelled(batch, seed=batch)
    data = lgn.Dataset.from_arrays(x, y, *labelled(3), *labelled(3), name="ragged")
    found = []
    for backend in ("cpu", "reference"):
        model = network(backend, relaxation=lgn.HardST()).train()
        functional.cross_entropy(model(x), y).backward()
        gradient = torch.stack([layer.logits.grad for layer in model.layers])
        lgn.train(model, data, steps=2, batch_size=batch, progress=False)
        found.append((gradient, torch.stack([layer.logits.detach() for layer in model.layers])))
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_trap_06_a_short_last_batch_counts_by_its_samples() -> None:
    """A mean over batches gives the last sample of 65 the weight of 64 others."""
    model, (x, y) = network(), labelled(65)
    right = model.eval()(x).argmax(-1) == y
    y[-1] = (y[-1] + (1 if right[-1] else 0)) % 3  # the last one is wrong
    hits = [
        float((model(x[i]).argmax(-1) == y[i]).double().mean()) for i in (slice(64), slice(64, 65))
    ]
    whole = int((model(x).argmax(-1) == y).sum()) / 65
    assert abs(sum(hits) / 2 - whole) > 0.1
    for batch_size in (1, 64, 65):
        assert lgn.evaluate(model, (x, y), batch_size=batch_size).discrete_accuracy == whole


def test_trap_07_a_probe_in_eval_mode_is_refused_or_made_soft() -> None:
    """An argmax has no gradient. A network is probed in soft mode; what wraps one is refused."""
    model, (x, y) = network(relaxation=lgn.Soft()), labelled(20)
    trained = lgn.HessianProbe(model.train(), (x, y)).dense()
    assert torch.equal(lgn.HessianProbe(model.eval(), (x, y)).dense(), trained)
    assert trained.norm() > 0
    wrapped = nn.Sequential(model).eval()
    with pytest.raises(NotDifferentiableError, match=r"call model\.train\(\), or give the Logic"):
        lgn.HessianProbe(wrapped, (x, y))
    in_train_mode = lgn.HessianProbe(wrapped.train(), (x, y), check=False).dense()
    assert torch.allclose(in_train_mode, trained, atol=1e-5 * float(trained.abs().max()))


def naive_ritz_values(matrix: Tensor, steps: int) -> Any:
    """Lanczos with one Gram–Schmidt pass against the last two vectors, in the matrix's dtype."""
    q = [torch.ones(len(matrix), dtype=matrix.dtype) / math.sqrt(len(matrix))]
    alpha, beta = [], []
    for _ in range(steps):
        w = matrix @ q[-1]
        alpha.append(float(q[-1] @ w))
        w = w - alpha[-1] * q[-1] - (beta[-1] * q[-2] if beta else 0)
        beta.append(float(w.norm()))
        q.append(w / beta[-1])
    return np.linalg.eigvalsh(np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1))


@DTYPES
def test_trap_08_lanczos_has_no_ghosts(dtype: torch.dtype) -> None:
    """An eigenvalue that has converged comes back where orthogonality to its vector is lost."""
    matrix = symmetric([1000.0, *np.linspace(0, 1, 199)], dtype)
    assert (naive_ritz_values(matrix, 120) > 500).sum() > 1
    krylov = lanczos(DenseOperator(matrix), torch.ones(200, dtype=dtype), 120)
    assert (np.linalg.eigvalsh(krylov.tridiagonal) > 500).sum() == 1
    pairs = top_eigenpairs(DenseOperator(matrix), k=3, which="LA", tol=1e-5, method="lanczos")
    assert (pairs.values > 500).sum() == 1


@DTYPES
@pytest.mark.parametrize("scale", [1.0, 1e-12, 0.0])
def test_trap_08_the_identity_the_zero_and_a_tiny_operator_work(
    scale: float, dtype: torch.dtype
) -> None:
    """A breakdown test that is absolute takes a tiny operator for zero, or the identity for none."""
    operator = DenseOperator(scale * torch.eye(60, dtype=dtype))
    pairs = top_eigenpairs(operator, k=4, method="lanczos")
    assert pairs.converged
    assert pairs.values == pytest.approx([scale] * 4, rel=1e-6)
    density = lgn.hessian.spectral_density(operator, n_probes=2, steps=10, method="lanczos")
    assert density.wasserstein(scale) <= 1e-6 * scale
    spread = DenseOperator(max(scale, 1e-12) * symmetric(np.linspace(1, 2, 60), dtype))
    krylov = lanczos(spread, torch.ones(60, dtype=dtype), 8)
    assert len(krylov.alpha) == 8  # no breakdown


@DTYPES
def test_trap_08_every_copy_of_a_multiple_eigenvalue_is_found(dtype: torch.dtype) -> None:
    values = [3.0] * 4 + [2.0, 2.0 - 1e-3, 2.0 - 2e-3] + [*np.linspace(-0.5, 0.5, 120)] + [-4.0] * 3
    pairs = top_eigenpairs(
        DenseOperator(symmetric(values, dtype)), k=10, tol=1e-4, method="lanczos"
    )
    assert pairs.converged
    expected = sorted(values)[::-1]
    assert np.allclose(pairs.values, [*expected[:5], *expected[-5:]], atol=1e-3)


def test_trap_09_a_rule_on_the_drift_of_a_mean_is_unsound_and_intervals_cover() -> None:
    """Hutchinson's running mean drifts by its error over m at probe m: it looks settled at once."""
    matrix = symmetric([(-1) ** i * 2.0 ** (-i / 6) + 0.02 for i in range(60)])
    trace, tol, runs = float(matrix.trace()), 1e-3, 100
    generator = torch.Generator().manual_seed(1)
    signs = 2.0 * torch.randint(0, 2, (runs, 600, 60), generator=generator).double() - 1
    forms = torch.einsum("rmi,ij,rmj->rm", signs, matrix, signs)
    means = forms.cumsum(1) / torch.arange(1, 601)
    drift = (means[:, 1:] - means[:, :-1]).abs() <= tol * means[:, 1:].abs()
    stops = drift.int().argmax(1) + 1
    errors = (means.gather(1, stops[:, None])[:, 0] - trace).abs() / abs(trace)
    assert errors.median() > 50 * tol

    covered, narrow = 0, 0
    for seed in range(runs):
        result = hutchinson_trace(DenseOperator(matrix), rtol=0.2, seed=seed)
        covered += result.ci[0] <= trace <= result.ci[1]
        narrow += result.converged and result.ci[1] - result.ci[0] <= 0.4001 * abs(result.estimate)
    assert narrow == runs
    # Of 100 intervals that cover 95 % fewer than 86 cover with a probability of 1e-4; seeds are fixed.
    assert covered >= 86


def test_trap_10_a_trace_that_cancels_is_reported_and_other_tolerances_reach_it() -> None:
    operator = DenseOperator(symmetric([1.0, -1.0] * 30))
    norm = math.sqrt(60)
    relative = hutchinson_trace(operator, rtol=0.01, max_matvecs=200)
    assert not relative.converged
    assert relative.n_matvecs == 200
    assert "stopped at max_matvecs=200" in relative.reason
    assert "rtol asks" in relative.reason
    for option, reach in ({"atol": 1.0}, 1.0), ({"ftol": 0.1}, 0.1 * norm):
        result = hutchinson_trace(operator, rtol=0.01, max_matvecs=2000, **option)
        assert result.converged
        assert f"converged ({next(iter(option))})" in result.reason
        half = (result.ci[1] - result.ci[0]) / 2
        assert half <= 1.2 * reach  # ‖H‖_F is estimated from the same probes
        assert abs(result.estimate) <= half
    probe = lgn.HessianProbe(network(), labelled(30))
    for option in ({"atol": 1e-3}, {"ftol": 0.5}):
        assert probe.trace(rtol=None, **option).converged


@BACKENDS
@DTYPES
def test_trap_11_the_hessian_in_z_does_not_see_a_shift_common_to_a_gate(
    backend: str, dtype: torch.dtype
) -> None:
    model = network(backend, dtype=dtype)
    for noise in (None, lgn.GumbelNoise(draws=2)):
        probe = lgn.HessianProbe(model, labelled(30), noise=noise)
        shift = torch.randn(probe.shape[0] // 16, 3, generator=torch.Generator().manual_seed(0))
        v = shift.repeat_interleave(16, 0).to(dtype)
        generator = torch.Generator().manual_seed(1)
        other = torch.randn(v.shape, generator=generator, dtype=torch.float64).to(dtype)
        rounding = 100 * torch.finfo(dtype).eps
        assert (probe @ v).norm() <= rounding * (probe @ other).norm()
