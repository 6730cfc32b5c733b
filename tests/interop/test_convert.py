"""Modules of other projects: converted to the same function in every mode, or refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError, MissingDependencyError
from lgn_analysis.interop import export
from tests.interop import standins
from tests.interop.standins import (
    CLASSES,
    GROUP_TAU,
    N_IN,
    WIDTH,
    GroupSum,
    LearnableDenseConnections,
    LogicDense,
    LogicLayer,
    logic_dense,
    logic_layers,
    tensors,
)

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text(encoding="utf-8"))
KINDS: list[tuple[str, Callable[[], nn.Sequential], lgn.Relaxation]] = [
    ("difflogic", lambda: logic_layers(grad_factor=2.0), lgn.Soft()),
    ("softmax", lambda: logic_layers(stochastic="softmax", gumbel_tau=0.3), lgn.Soft()),
    ("gumbel", lambda: logic_layers(stochastic="gumbel", gumbel_tau=0.3), lgn.GumbelST(0.3)),
    ("soft", lambda: logic_dense("soft", 0.7, 1.5), lgn.Soft(0.7)),
    ("hard", lambda: logic_dense("hard", 0.7), lgn.HardST(0.7)),
    ("gumbel_soft", lambda: logic_dense("gumbel_soft", 0.7), lgn.GumbelSoft(0.7)),
    ("gumbel_hard", lambda: logic_dense("gumbel_hard", 0.7), lgn.GumbelST(0.7)),
]


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda r: r["peer"])
def test_outputs_are_those_that_the_project_itself_gave(recorded: dict[str, Any]) -> None:
    """Recorded by benchmarks/interop.py --record; every one of the sixteen gates is chosen in it."""
    layers: list[nn.Module] = []
    for layer in recorded["layers"]:
        weights = torch.tensor(layer["weights"], dtype=torch.float64)
        wiring = torch.tensor(layer["wiring"])
        if recorded["peer"] == "torchlogix":
            raw = standins.RawLUTParametrization("soft", layer["temperature"])
            fixed = standins.FixedDenseConnections(wiring)
            layers.append(LogicDense(weights, fixed, layer["in_dim"], layer["grad_factor"], raw))
        else:
            layers.append(LogicLayer(weights, wiring, layer["in_dim"], layer["grad_factor"]))
    module = nn.Sequential(*layers, GroupSum(recorded["k"], recorded["tau"]))
    model = lgn.convert(module)
    model.set_backend("reference")  # nothing is compiled for it
    chosen = {int(gate) for layer in model.layers for gate in layer.gates}
    assert chosen == set(range(16))
    x = torch.tensor(recorded["x"], dtype=torch.float64)
    soft, discrete = model(x, mode="soft"), model((x < 0.5).double(), mode="discrete")
    torch.testing.assert_close(
        soft, torch.tensor(recorded["soft"], dtype=torch.float64), rtol=0, atol=1e-12
    )
    # The projects divide in float32.
    torch.testing.assert_close(
        discrete, torch.tensor(recorded["discrete"], dtype=torch.float64), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(("make", "relaxation"), [k[1:] for k in KINDS], ids=[k[0] for k in KINDS])
def test_a_module_becomes_the_network_of_its_relaxation(
    make: Callable[[], nn.Sequential], relaxation: lgn.Relaxation
) -> None:
    module = make().eval()
    model = lgn.convert(module)
    assert model.relaxation == relaxation
    assert not model.training
    assert lgn.convert(module.train()).training
    assert (model.n_features, model.width, model.depth) == (N_IN, WIDTH, 2)
    assert model.backend is None
    bits = (torch.rand(50, N_IN, generator=torch.Generator().manual_seed(3)) < 0.5).double()
    assert torch.equal(model(bits), module.eval()(bits))


@pytest.mark.parametrize("make", [KINDS[0][1], KINDS[3][1], KINDS[4][1]], ids=["1", "2", "3"])
def test_training_forwards_without_noise_have_equal_outputs_and_gradients(
    make: Callable[[], nn.Sequential],
) -> None:
    module = make().train()
    model = lgn.convert(module)
    model.set_backend("reference")
    x = torch.rand(20, N_IN, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    y = torch.arange(20) % CLASSES
    outputs, gradients = [], []
    for network in (module, model):
        inputs = x.clone().requires_grad_(True)
        outputs.append(network(inputs))
        loss = functional.cross_entropy(outputs[-1], y)
        gradients.append(torch.autograd.grad(loss, [inputs, *network.parameters()]))
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
    for theirs, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-15)


def test_a_converted_network_can_be_probed_diagnosed_evaluated_and_saved(tmp_path: Path) -> None:
    module = logic_layers()
    model = lgn.convert(module)
    model.set_backend("reference")  # nothing is compiled for it
    x = torch.rand(30, N_IN, generator=torch.Generator().manual_seed(5)) < 0.5
    y = torch.arange(30) % CLASSES
    probe = lgn.HessianProbe(model, (x, y))

    def loss(weights: Tensor) -> Tensor:
        first, second = (w.reshape(WIDTH, 16) for w in weights.chunk(2))
        h = x.double()
        for layer, z in zip((module[1], module[2]), (first, second), strict=True):
            a, b = layer.indices
            h = standins.mixture(h[:, a], h[:, b], functional.softmax(z, -1))
        return functional.cross_entropy(module[3](h), y)

    z = torch.cat([w.detach().reshape(-1) for w in module.parameters()])
    v = torch.rand(len(z), generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    expected = torch.autograd.functional.hvp(loss, z, v)[1]
    torch.testing.assert_close(torch.as_tensor(probe @ v), expected, rtol=1e-8, atol=1e-12)

    assert len(lgn.diagnose(model, (x, y), batch_size=30).to_frame()) > 0
    found = lgn.evaluate(model, (x, y))
    assert found.discrete_accuracy == float(
        (module.eval()(x.float()).argmax(-1) == y).double().mean()
    )
    lgn.save(model, tmp_path / "model.safetensors")
    assert torch.equal(lgn.load(tmp_path / "model.safetensors")(x), model.eval()(x))


def test_the_module_and_the_generator_are_left_as_they_were() -> None:
    module = logic_layers(stochastic="gumbel", gumbel_tau=1.0)
    module[1].eval()
    before = torch.random.get_rng_state()
    model = lgn.convert(module)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [part.training for part in module] == [True, False, True, True]
    with torch.no_grad():
        module[1].weights.zero_()
    assert model.layers[0].logits.abs().sum() > 0


def test_learnable_connections_become_the_choice_that_they_make() -> None:
    module = logic_dense()
    candidates = torch.randint(N_IN, (4, 2, WIDTH), generator=torch.Generator().manual_seed(1))
    scores = torch.rand(4, 2, WIDTH, generator=torch.Generator().manual_seed(2))
    module[0].connections = LearnableDenseConnections(candidates, scores)
    model = lgn.convert(module, freeze_connections=True)
    for row in range(2):
        for gate in range(WIDTH):
            best = int(scores[:, row, gate].argmax())
            assert model.layers[0].wiring[row, gate] == candidates[best, row, gate]
    with pytest.raises(InvalidInputError, match=r"module\[0\] has learnable connections"):
        lgn.convert(module)


def test_idle_groups_are_kept() -> None:
    model = lgn.convert(logic_layers(), n_classes=2)
    assert (model.n_classes, model.group_sum.n_groups) == (2, CLASSES)


def test_residual_logits_are_told_to_theory() -> None:
    module = logic_dense()
    assert lgn.convert(module).config["init"] == "normal"
    with torch.no_grad():
        for layer in (module[0], module[1]):
            layer.weight.zero_()
            layer.weight[:, 3] = 4.9989  # torchlogix, residual probability 0.951
    assert lgn.convert(module).config["init"] == "residual"


def swapped_inputs() -> nn.Sequential:
    """A fork that reads B as A and A as B, by the same names."""
    module = logic_layers()

    class Swapped(LogicLayer):
        def forward(self, x: Tensor) -> Tensor:
            self.indices = self.indices[::-1]
            try:
                return super().forward(x)
            finally:
                self.indices = self.indices[::-1]

    Swapped.__name__ = "LogicLayer"
    module[1] = Swapped(*tensors(0), N_IN)
    return module


def other_temperature() -> nn.Sequential:
    """A fork whose discrete network is the same, and whose softmax has a temperature."""
    module = logic_layers()

    class Tempered(LogicLayer):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                return super().forward(x)
            weights = functional.softmax(self.weights / 0.5, -1)
            return mixture_of(self, x, weights)

    def mixture_of(layer: LogicLayer, x: Tensor, weights: Tensor) -> Tensor:
        return standins.mixture(x[:, layer.indices[0]], x[:, layer.indices[1]], weights)

    Tempered.__name__ = "LogicLayer"
    module[2] = Tempered(*tensors(1, WIDTH), WIDTH)
    return module


def changed(change: Callable[[Any], object], module: nn.Sequential | None = None) -> nn.Sequential:
    module = logic_layers() if module is None else module
    change(module)
    return module


def replaced(index: int, part: nn.Module, module: nn.Sequential | None = None) -> nn.Sequential:
    return changed(lambda m: m.__setitem__(index, part), module)


def named(name: str) -> nn.Module:
    return type(name, (nn.Identity,), {})()


REFUSED: list[tuple[str, Callable[[], Any], str]] = [
    (
        "a linear network",
        lambda: nn.Linear(3, 2),
        "a network to convert is an nn.Sequential of logic layers and a group sum, and module is a Linear; "
        "give the nn.Sequential inside it",
    ),
    (
        "one of ours",
        lambda: lgn.LogicNetwork(8, 12, 1, 3, 1.0),
        "module is a LogicNetwork already; use it as it is",
    ),
    (
        "nothing in it",
        lambda: nn.Sequential(nn.Flatten()),
        "a network to convert has at least one logic layer and a GroupSum; this module has 0 parts beside "
        "Flatten",
    ),
    (
        "half recognised",
        lambda: changed(lambda m: delattr(m[1], "indices")),
        "module[1] is called LogicLayer and has no indices, so it is none of difflogic, gumbel-lgn or "
        "torchlogix 0.2.2; build it of lgn.LogicLayer instead",
    ),
    (
        "a wiring out of range",
        lambda: changed(lambda m: m[1].indices[0].__setitem__(0, 9)),
        "module[1]: wiring indices must lie in 0..8, got 0..9",
    ),
    (
        "no group sum",
        lambda: nn.Sequential(*list(logic_layers())[:-1]),
        "a network ends with a GroupSum, and module[2] is a LogicLayer; append the one that it was trained "
        "with",
    ),
    (
        "a bias in the group sum",
        lambda: replaced(3, GroupSum(CLASSES, GROUP_TAU, beta=0.5)),
        "module[3] adds beta=0.5 to every sum, and a LogicNetwork adds nothing; a constant in all class "
        "logits changes no prediction and no cross-entropy: set beta = 0.0",
    ),
    (
        "a binarization",
        lambda: nn.Sequential(named("FixedBinarization"), *logic_layers()),
        "module[0] is a FixedBinarization, and a LogicNetwork takes bits; convert what comes behind it, "
        "lgn.convert(nn.Sequential(*list(module)[1:])), and give that the bits which it makes",
    ),
    (
        "a convolution",
        lambda: nn.Sequential(named("LogicConv3d"), *logic_layers()),
        "module[0] is a LogicConv3d, and lgn.convert takes dense layers; convert those behind it",
    ),
    (
        "something else",
        lambda: replaced(2, nn.ReLU()),
        "module[2] is a ReLU, and a network to convert has Flatten, LogicLayer or LogicDense, and GroupSum; "
        "take it out, or convert the part that has only these",
    ),
    (
        "rank four",
        lambda: changed(lambda m: setattr(m[0], "lut_rank", 4), logic_dense()),
        "module[0] has gates of 4 inputs (lut_rank), and a LogicNetwork has two; train one with lut_rank=2",
    ),
    (
        "another parametrisation",
        lambda: changed(
            lambda m: setattr(
                m[0], "parametrization", standins.WarpLUTParametrization("soft", 1.0)
            ),
            logic_dense(),
        ),
        "module[0] has a WarpLUTParametrization, and only parametrization='raw', 16 logits a gate, can be "
        "converted",
    ),
    (
        "mixed relaxations",
        lambda: changed(lambda m: setattr(m[1].parametrization, "temperature", 0.5), logic_dense()),
        "module[0] has the relaxation Soft(tau=1.0) and module[1] has Soft(tau=0.5), and a LogicNetwork has "
        "one; make them equal",
    ),
    (
        "two widths",
        lambda: replaced(2, LogicLayer(*tensors(1, WIDTH, 15), WIDTH)),
        "module[2] has 15 gates and module[1] has 12, and a LogicNetwork has one width; build it of "
        "lgn.LogicLayer and lgn.GroupSum in an nn.Sequential instead",
    ),
    (
        "sizes that do not follow",
        lambda: replaced(2, LogicLayer(*tensors(1, 11), 11)),
        "module[2] reads 11 inputs, and what comes before it gives 12",
    ),
    (
        "shared weights",
        lambda: changed(lambda m: setattr(m[2], "weights", m[1].weights)),
        "two places of this module share their weights, and layers of a LogicNetwork have their own; copy "
        "them first, by copy.deepcopy",
    ),
    (
        "a hook",
        lambda: changed(lambda m: m[1].register_forward_hook(lambda *_: None)),
        "module[1] has a forward hook, which would not be converted; take it off first",
    ),
    (
        "half precision",
        lambda: logic_layers().half(),
        "module[1] has weights of float16; convert them first, by module.float()",
    ),
    (
        "a fork that swaps the inputs",
        swapped_inputs,
        "module[1] has the names of a layer that is known and computes something else: outputs on bits in "
        "eval() mode differ; it cannot be converted",
    ),
    (
        "a fork with a temperature",
        other_temperature,
        "module[2] has the names of a layer that is known and computes something else: outputs of the "
        "training forward differ; it cannot be converted",
    ),
]


@pytest.mark.parametrize(
    ("make", "sentence"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_what_cannot_be_converted_is_refused_in_one_sentence(
    make: Callable[[], Any], sentence: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        lgn.convert(make())
    assert str(caught.value) == sentence


@pytest.mark.parametrize("name", ["soft", "hard-st", "gumbel-soft", "gumbel-st"])
def test_the_way_to_torchlogix_and_back_is_the_identity(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dense(n_in: int, n_out: int, **options: Any) -> LogicDense:
        raw = standins.RawLUTParametrization(**options["parametrization_kwargs"])
        empty = standins.FixedDenseConnections(torch.zeros(2, n_out, dtype=torch.int64))
        return LogicDense(torch.zeros(n_out, 16), empty, n_in, options["grad_factor"], raw)

    layers = SimpleNamespace(LogicDense=dense, GroupSum=GroupSum)
    monkeypatch.setattr(export, "_import_layers", lambda: layers)
    model = lgn.convert(logic_dense(grad_factor=1.5))
    model.relaxation = {k.name: k for k in (lgn.Soft, lgn.HardST, lgn.GumbelSoft, lgn.GumbelST)}[
        name
    ](0.4)
    again = lgn.convert(lgn.to_torchlogix(model))
    assert again.config == model.config
    for one, other in zip(again.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_the_way_back_needs_torchlogix_and_a_relaxation_that_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = lgn.convert(logic_layers())
    monkeypatch.setitem(__import__("sys").modules, "torchlogix.layers", None)
    with pytest.raises(MissingDependencyError, match="pip install torchlogix"):
        lgn.to_torchlogix(model)
    other = lgn.LogicNetwork(9, 12, 1, 3, 1.0, relaxation=lgn.CAGE())
    with pytest.raises(InvalidInputError, match="torchlogix has no CAGE"):
        lgn.to_torchlogix(other)
