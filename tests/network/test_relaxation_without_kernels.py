"""A relaxation that the kernels do not compute: the same network in plain PyTorch, nothing refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.gates import relaxations
from lgn_analysis.network import specify


@pytest.fixture(params=["soft", "gumbel-st"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> lgn.LogicNetwork:
    monkeypatch.delitem(relaxations.FUSED, request.param)
    relaxation = relaxations.RELAXATIONS[request.param](0.7)
    return lgn.LogicNetwork(17, 20, 2, 2, 2.0, relaxation=relaxation, dtype=torch.float32)


def test_no_kernel_is_called_for_its_training_forward(model: lgn.LogicNetwork) -> None:
    specified = specify(model)
    assert specified.network is None
    assert specified.reason == f"no kernel computes {type(model.relaxation).__name__}"
    assert model.network_backend is None
    assert specify(model, "soft").network is not None
    assert model.backend_for("discrete") is not None


def test_outputs_are_those_of_the_reference(model: lgn.LogicNetwork) -> None:
    x = torch.randint(2, (9, 17), generator=torch.Generator().manual_seed(0)).bool()
    key = lgn.NoiseKey(0, lgn.Purpose.TRAINING)
    layer = model.layers[0]
    found = model(x, draw=key), layer(x.float(), draw=key)
    model.set_backend("reference")
    torch.testing.assert_close(found, (model(x, draw=key), layer(x.float(), draw=key)))


def test_its_soft_loss_is_probed_by_kernels_all_the_same(model: lgn.LogicNetwork) -> None:
    x = torch.randint(2, (9, 17), generator=torch.Generator().manual_seed(0)).bool()
    kind = lgn.GumbelST if isinstance(model.relaxation, lgn.Soft) else lgn.Soft
    twin = lgn.LogicNetwork(17, 20, 2, 2, 2.0, relaxation=kind(0.7), dtype=torch.float32)
    probes = [lgn.HessianProbe(m, (x, torch.arange(9) % 2)) for m in (model, twin)]
    v = torch.linspace(-1, 1, probes[0].shape[0])
    assert probes[0].operator.method == probes[1].operator.method == "cpu kernels"
    assert torch.equal(probes[0] @ v, probes[1] @ v)


def test_it_is_trained_saved_and_resumed(model: lgn.LogicNetwork, tmp_path: Path) -> None:
    data = lgn.load_dataset("monk1")
    lgn.train(model, data, steps=4, batch_size=32, out=tmp_path / "run", progress=False)
    again, result = lgn.resume(tmp_path / "run", steps=6, progress=False)
    assert result.config.training.steps == 6
    assert again.relaxation == model.relaxation
    lgn.save(again, tmp_path / "model.safetensors")
    assert lgn.evaluate(lgn.load(tmp_path / "model.safetensors"), data).n == 432
