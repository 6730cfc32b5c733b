"""Models on the CPU backend, as users run them, against the same models on the reference."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import GumbelSoft, GumbelST, Relaxation, Soft
from lgn_analysis.kernels import cpu, reference, select_backend
from lgn_analysis.network import GroupSum, LogicLayer, LogicNetwork

KEY = NoiseKey(3, Purpose.TRAINING, 8)


def make(relaxation: Relaxation, backend: str | None = None, **overrides: Any) -> LogicNetwork:
    arguments: dict[str, Any] = {"grad_factor": 1.25, "dtype": torch.float32, "seed": 2}
    return LogicNetwork(
        20, 48, 3, 6, 2.0, relaxation=relaxation, backend=backend, **arguments | overrides
    )


def on_reference(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if hasattr(module, "backend"):
            module.backend = reference.NAME
    return twin


def bits(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) < 0.5


def assert_same_gradients(model: nn.Module, twin: nn.Module) -> None:
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        scale = theirs.grad.abs().max()
        torch.testing.assert_close(mine.grad / scale, theirs.grad / scale, rtol=1e-4, atol=2e-6)


def test_it_is_what_a_model_on_the_cpu_runs_on() -> None:
    assert select_backend(torch.device("cpu")) is cpu


@pytest.mark.parametrize("shape", [(7, 20), (20,), (3, 5, 20), (2, 0, 20), (65, 20)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_every_mode_is_the_reference(
    relaxation: Relaxation, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    model = make(relaxation)
    twin, x = on_reference(model), bits(*shape).to(dtype)
    for mode in ("soft", "noisy", "discrete", None):
        if mode == "noisy" and not relaxation.noisy:
            continue
        for gradients in (True, False):
            with torch.set_grad_enabled(gradients):
                got, wanted = model(x, mode=mode, draw=KEY), twin(x, mode=mode, draw=KEY)
            assert got.requires_grad == wanted.requires_grad
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_a_plain_loop_with_any_optimiser_trains_alike(relaxation: Relaxation) -> None:
    model = make(relaxation).train()
    twin = on_reference(model)
    x, y = bits(40, 20), torch.arange(40) % 6
    optimisers = [torch.optim.SGD(m.parameters(), lr=2.0, momentum=0.5) for m in (model, twin)]
    for step in range(5):
        for module, optimiser in zip((model, twin), optimisers, strict=True):
            draw = NoiseKey(1, Purpose.TRAINING, step)
            loss = functional.cross_entropy(module(x, draw=draw), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("values", [False, True])
def test_layers_in_a_sequence_are_the_reference(relaxation: Relaxation, values: bool) -> None:
    model = nn.Sequential(
        LogicLayer(20, 33, relaxation=relaxation, seed=1, index=4, dtype=torch.float32),
        LogicLayer(33, 64, relaxation=relaxation, seed=1, index=5, grad_factor=0.5),
        LogicLayer(64, 40, relaxation=relaxation, seed=1, index=6),
        GroupSum(4, 3.0),
    ).train()
    twin = on_reference(model)
    x = bits(70, 20).float()
    if values:
        x = 0.8 * x + 0.1
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = []
    for module, x in zip((model, twin), inputs, strict=True):
        y = x
        for layer in module:  # type: ignore[attr-defined]
            y = layer(y, draw=KEY) if isinstance(layer, LogicLayer) else layer(y)
        outputs.append(y)
        (y**2).sum().backward()
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)
    assert_same_gradients(model, twin)
    mine, theirs = (x.grad for x in inputs)
    assert mine is not None
    assert theirs is not None
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


def test_a_layer_draws_its_own_noise() -> None:
    outputs = []
    for index in (0, 1):
        layer = LogicLayer(20, 40, relaxation=GumbelST(), seed=1, index=index).train()
        layer.logits.data.zero_()
        outputs.append(layer(bits(64, 20), draw=KEY))
    assert not torch.equal(*outputs)


def test_doubles_are_computed_in_double(relaxation: Relaxation) -> None:
    model = make(relaxation, dtype=torch.float64).train()
    twin, x = on_reference(model), bits(9, 20)
    got, wanted = model(x, draw=KEY), twin(x, draw=KEY)
    assert got.dtype == torch.float64
    assert torch.equal(got, wanted)
    assert torch.equal(model(x, mode="discrete"), twin(x, mode="discrete"))


def test_a_relaxation_of_ones_own_is_asked_for_its_weights() -> None:
    class Halved(Soft):
        def training_weights(self, logits: Tensor, noise: Tensor | None = None) -> Tensor:
            return 0.5 * super().training_weights(logits, noise)

    plain, halved = make(Soft()).train(), make(Halved()).train()
    first_layer_alone = bits(5, 20)
    assert not torch.allclose(plain(first_layer_alone), halved(first_layer_alone))


def flat_function(model: LogicNetwork, x: Tensor, mode: Any) -> Any:
    names = [name for name, _ in model.named_parameters()]

    def loss(*logits: Tensor) -> Tensor:
        parameters = dict(zip(names, logits, strict=True))
        outputs = torch.func.functional_call(model, parameters, (x,), {"mode": mode, "draw": KEY})
        return (outputs**2).mean()

    return loss


@pytest.mark.parametrize("relaxation", [Soft(), GumbelSoft(), GumbelST()], ids=lambda r: r.name)
@pytest.mark.parametrize("mode", ["soft", None])
def test_functional_gradients_are_the_reference(relaxation: Relaxation, mode: Any) -> None:
    model = make(relaxation).train()
    twin, x = on_reference(model), bits(9, 20)
    results = []
    for module in (model, twin):
        assert isinstance(module, LogicNetwork)
        loss = flat_function(module, x, mode)
        results.append(torch.func.grad(loss)(*module.parameters()))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("mode", ["soft", None])
def test_forward_mode_derivatives_are_not_lost(mode: Any, gradients: bool) -> None:
    model = make(GumbelSoft()).train()
    twin, x = on_reference(model), bits(9, 20)
    logits = tuple(p.detach() for p in model.parameters())
    tangents = tuple(torch.ones_like(z).cumsum(1) for z in logits)
    results = []
    with torch.set_grad_enabled(gradients):
        for module in (model, twin):
            assert isinstance(module, LogicNetwork)
            results.append(torch.func.jvp(flat_function(module, x, mode), logits, tangents)[1])
    assert results[0] != 0
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("gradients", [True, False])
def test_dual_numbers_pass_through(gradients: bool) -> None:
    model = make(Soft())
    forward_ad = torch.autograd.forward_ad
    x = bits(9, 20).float()
    tangents = []
    with torch.set_grad_enabled(gradients), forward_ad.dual_level():
        for module in (model, on_reference(model)):
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            tangents.append(forward_ad.unpack_dual(module(dual, mode="soft")).tangent)
    assert tangents[0] is not None
    torch.testing.assert_close(*tangents, rtol=1e-5, atol=1e-6)


def test_vmap_over_inputs_is_a_batch() -> None:
    model = make(Soft())
    x = bits(9, 20).float()
    with torch.no_grad():
        got = torch.func.vmap(lambda row: model(row[None], mode="soft")[0])(x)
        torch.testing.assert_close(got, model(x, mode="soft"))


def test_a_model_trained_on_a_copy_of_another_keeps_its_own_wires() -> None:
    model = make(GumbelST()).train()
    x = bits(9, 20)
    before = model(x, draw=KEY)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.layers[1].wiring.copy_(twin.layers[1].wiring.flip(1))
    assert not torch.equal(twin(x, draw=KEY), before)
    assert torch.equal(model(x, draw=KEY), before)


def test_torchs_default_dtype_does_not_matter(relaxation: Relaxation) -> None:
    model, layer = make(relaxation).train(), LogicLayer(20, 40, relaxation=relaxation, seed=1)
    layer = layer.float().train()
    x = bits(9, 20)
    expected = model(x, draw=KEY), layer(x, draw=KEY)
    torch.set_default_dtype(torch.float64)
    try:
        got = model(x, draw=KEY), layer(x, draw=KEY)
        (got[0].sum() + got[1].sum()).backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
