"""The table of modifications: what a network changed by hand computes is what PyTorch computes with it.

Every entry of :mod:`tests.network.modifications` against every function with a fast path. Expected is the same
modification of a network on the reference kernels, called module by module; or a refusal by name.
"""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import typing
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.base.errors import LGNError
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import CAGE, GumbelST, Relaxation, Soft
from lgn_analysis.hessian.operators.forward_context import differentiable_forward
from lgn_analysis.kernels.reference import unpack_bits
from lgn_analysis.network import GroupSum, LogicLayer, LogicNetwork, specify
from lgn_analysis.training.stepper import Steps
from tests.network.modifications import MODIFICATIONS, Modification
from tests.tiny import random_bits

N_FEATURES = 9
LR = 0.05
KEY = NoiseKey(1, Purpose.TRAINING, 3)
X = random_bits(70, N_FEATURES)
Y = torch.arange(70) % 3
FEW = X[:20, :6]

TABLE = pytest.mark.parametrize("modification", MODIFICATIONS, ids=lambda m: m.name)
RELAXATION = pytest.mark.parametrize("relaxation", [GumbelST(), Soft()], ids=lambda r: r.name)


def make(backend: str | None, **options: Any) -> LogicNetwork:
    arguments: dict[str, Any] = {"relaxation": GumbelST(), "dtype": torch.float32} | options
    n_features, width = arguments.pop("n_features", N_FEATURES), arguments.pop("width", 12)
    return LogicNetwork(n_features, width, 3, 3, 1.5, seed=5, backend=backend, **arguments)


def outcome(function: Any) -> Any:
    """Return a function's result, or the sentence with which it refuses."""
    try:
        return function()
    except LGNError as error:
        return str(error)


def assert_same(found: Any, expected: Any, **tolerance: float) -> None:
    if isinstance(expected, str) or isinstance(found, str):
        assert found == expected
    else:
        torch.testing.assert_close(found, expected, **tolerance)


def test_the_table_has_modifications_enough() -> None:
    assert len({m.name for m in MODIFICATIONS}) == len(MODIFICATIONS) >= 25


@TABLE
def test_a_modification_that_matters_changes_the_outputs(modification: Modification) -> None:
    before = make(None)(X, mode="soft")
    with modification.on(make(None)) as network:
        after = outcome(lambda: network(X, mode="soft"))
    if isinstance(after, Tensor):
        same = after.shape == before.shape and torch.allclose(after, before, atol=1e-6)
        assert same is not modification.changes
    else:
        assert modification.changes


@TABLE
@RELAXATION
@pytest.mark.parametrize("mode", ["train", "eval", "soft", "noisy", "discrete"])
def test_forward(modification: Modification, relaxation: Relaxation, mode: str) -> None:
    results = []
    for backend in (None, "reference"):
        with modification.on(make(backend, relaxation=relaxation)) as network:
            if mode == "eval":
                network.eval()
            which = None if mode in ("train", "eval") else mode
            results.append(outcome(lambda n=network, m=which: n(X, mode=m, draw=KEY).detach()))
    assert_same(results[0], results[1], rtol=1e-5, atol=1e-5)


def taken_by_hand(network: LogicNetwork, order: list[Tensor], seed: int) -> None:
    """Two steps of a loop that anybody would write."""
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=LR)
    for step, chosen in enumerate(order):
        outputs = network(X[chosen], draw=NoiseKey(seed, Purpose.TRAINING, step))
        optimiser.zero_grad()
        functional.cross_entropy(outputs, Y[chosen]).backward()
        optimiser.step()


@TABLE
@RELAXATION
def test_training_steps(modification: Modification, relaxation: Relaxation) -> None:
    with (
        modification.on(make(None, relaxation=relaxation)) as network,
        modification.on(make("reference", relaxation=relaxation)) as expected,
    ):
        made = outcome(lambda: Steps(network, X, Y, batch_size=32, lr=LR, seed=2))
        if isinstance(made, str):
            assert any(refused == "training" for refused, _ in modification.refuses)
            return
        order = [made._batch(step) for step in range(2)]
        said = outcome(lambda: taken_by_hand(expected, order, 2))
        assert outcome(lambda: len(made.advance(0, 2, lambda n: None)) and None) == said
        pairs = zip(network.parameters(), expected.parameters(), strict=True)
        for mine, theirs in pairs:
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0.05 * LR)


def scores(outputs: Tensor) -> tuple[float, float]:
    loss = functional.cross_entropy(outputs.double(), Y)
    return float((outputs.argmax(-1) == Y).double().mean()), float(loss)


@TABLE
def test_evaluate(modification: Modification) -> None:
    with modification.on(make(None)) as network, modification.on(make("reference")) as plain:
        found = outcome(lambda: lgn.evaluate(network, (X, Y), noise_draws=2))
        with torch.no_grad():
            soft = outcome(lambda: scores(plain(X, mode="soft")))
            discrete = outcome(lambda: scores(plain(X, mode="discrete")))
            noisy = outcome(lambda: [scores(plain(X, mode="noisy", draw=d)) for d in range(2)])
    if isinstance(found, str):
        refusals = [text for column, text in modification.refuses if column == "evaluate"]
        assert found in (soft, discrete, noisy) or any(text in found for text in refusals)
        return
    assert (found.soft_accuracy, found.soft_loss) == pytest.approx(soft, rel=1e-5)
    assert (found.discrete_accuracy, found.discrete_loss) == pytest.approx(discrete, rel=1e-6)
    mean = torch.tensor(noisy).mean(0).tolist()
    assert [found.noisy_accuracy, found.noisy_loss] == pytest.approx(mean, rel=1e-5)


def outputs_of_layers(network: LogicNetwork) -> list[Tensor]:
    outputs: list[Tensor] = []
    handles = [
        layer.register_forward_hook(lambda m, i, o: outputs.append(o))
        for layer in dict.fromkeys(network.layers)
    ]
    network(X, mode="discrete")
    for handle in handles:
        handle.remove()
    return outputs


@TABLE
def test_usage(modification: Modification) -> None:
    with modification.on(make(None)) as network, modification.on(make("reference")) as plain:
        found = outcome(lambda: lgn.gate_usage(network, X))
        layers = [layer for layer in plain.layers if isinstance(layer, LogicLayer)]
        said = outcome(lambda: outputs_of_layers(plain))
        entropies = [
            torch.special.entr(z.logits.detach().double().softmax(-1)).sum(-1) for z in layers
        ]
        packed = outcome(lambda: [w.clone() for w in network.packed_activations(X)])
        known = specify(network, "discrete").network is not None
    if isinstance(found, str):
        refusals = [text for column, text in modification.refuses if column == "usage"]
        assert found == said or any(text in found for text in refusals)
        return
    constant = [float((o.amin(0) == o.amax(0)).double().mean()) for o in said]
    assert found["constant"].tolist() == pytest.approx(constant)
    assert found["entropy"].tolist() == pytest.approx([float(e.mean()) for e in entropies])
    assert len(packed) == len(said)
    for words, outputs in zip(packed, said, strict=True):
        bits = unpack_bits(words, len(X))
        assert torch.equal(bits.T, outputs == 1)
    assert found["unreachable"].isna().all() == (not known)


@TABLE
def test_a_file_is_the_network_or_is_refused(modification: Modification, tmp_path: Any) -> None:
    """Hooks apart, which no file holds: what is saved computes the same when it is loaded."""
    path = tmp_path / "model.safetensors"
    with modification.on(make(None)) as network:
        said = outcome(lambda: lgn.save(network, path))
        outputs = outcome(lambda: network(X, mode="soft").detach())
        hooks = "hook" in modification.name
    if said is not None:
        assert "needs a LogicNetwork that is what its class says" in said
        assert not path.exists()
        return
    again = lgn.load(path)(X, mode="soft")
    assert hooks or torch.equal(again, outputs)


def test_a_halved_group_sum_is_halved_everywhere() -> None:
    halved, whole = make(None), make(None)
    MODIFICATIONS[0].apply(halved)
    for mode in ("soft", "discrete"):
        torch.testing.assert_close(halved(X, mode=mode), whole(X, mode=mode) / 2)
    assert not math.isclose(
        lgn.evaluate(halved, (X, Y)).soft_loss, lgn.evaluate(whole, (X, Y)).soft_loss, rel_tol=1e-4
    )


def dense_hessian(network: LogicNetwork) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss, gradient and Hessian of the soft loss by double backward on the network itself."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    value = functional.cross_entropy(network(FEW, mode="soft"), Y[: len(FEW)])
    gradients = torch.autograd.grad(
        value, parameters, create_graph=True, materialize_grads=True, allow_unused=True
    )
    gradient = torch.cat([g.reshape(-1) for g in gradients])
    rows = [
        torch.cat(
            [
                g.reshape(-1)
                for g in torch.autograd.grad(
                    entry, parameters, retain_graph=True, materialize_grads=True, allow_unused=True
                )
            ]
        )
        if entry.requires_grad
        else torch.zeros_like(gradient)
        for entry in gradient
    ]
    return value.detach(), gradient.detach(), torch.stack(rows)


GRADIENT_HOOKS = {
    "hook on logits",
    "hook on accumulated gradients",
    "backward hook on a layer",
    "backward hook on the group sum",
}
"""They change what ``backward`` leaves in the gradients, and no loss."""


@TABLE
def test_probe(modification: Modification) -> None:
    def small(backend: str | None) -> LogicNetwork:
        return make(backend, n_features=6, width=6, dtype=torch.float64, relaxation=Soft(0.7))

    plain = small("reference")
    ignored = modification.name in GRADIENT_HOOKS
    with nullcontext() if ignored else modification.on(plain), differentiable_forward():
        expected = outcome(lambda: dense_hessian(plain))
    with modification.on(small(None)) as network:
        probe = outcome(lambda: lgn.HessianProbe(network, (FEW, Y[: len(FEW)])))
        if isinstance(probe, str):
            refusals = [text for column, text in modification.refuses if column == "probe"]
            assert any(text in probe for text in refusals), probe
            return
        value, gradient, hessian = expected
        assert probe.loss() == pytest.approx(float(value), rel=1e-12)
        torch.testing.assert_close(probe.grad(), gradient, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(probe.dense(), hessian, rtol=1e-9, atol=1e-12)
        v = torch.randn(len(gradient), generator=torch.Generator().manual_seed(0)).double()
        torch.testing.assert_close(probe @ v, hessian @ v, rtol=1e-9, atol=1e-12)
        trace = probe.trace(n_probes=64)  # false alarms: 6e-7 a modification, were it normal
        assert abs(trace.estimate - float(hessian.trace())) <= 5 * trace.stderr


class Modeless(LogicNetwork):
    """A network whose forward forgot about modes."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


def test_a_network_without_modes_is_refused_by_name() -> None:
    network = make(None)
    network.__class__ = Modeless
    for use in (
        lambda: lgn.evaluate(network, (X, Y)),
        lambda: lgn.gate_usage(network, X),
        lambda: Steps(network, X, Y, batch_size=32, lr=LR, seed=2).advance(0, 1, lambda n: None),
    ):
        with pytest.raises(LGNError, match="takes no mode and no draw"):
            use()


@pytest.mark.parametrize("relaxation", [GumbelST(), Soft(), CAGE()], ids=lambda r: r.name)
def test_an_unchanged_network_is_known(relaxation: Relaxation) -> None:
    """Nor is it unknown once Python has noted in its classes how to copy them, or their annotations."""
    network = make(None, relaxation=relaxation)
    assert specify(network, training=True).reason == ""
    copies = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    for kind in (LogicNetwork, LogicLayer, GroupSum, type(relaxation)):
        typing.get_type_hints(kind.__init__)
        inspect.signature(kind)
    for known in (network, *copies):
        assert specify(known, training=True).reason == ""


def test_layers_that_share_a_confidence_train_as_called() -> None:
    trained = []
    for backend in (None, "reference"):
        network = make(backend, relaxation=CAGE(decay=0.1))
        network.layers[1].confidence = network.layers[0].confidence
        Steps(network, X, Y, batch_size=32, lr=LR, seed=2).advance(0, 3, lambda n: None)
        trained.append(network.layers[0].confidence)
    torch.testing.assert_close(*trained)


CHANGES_OF_ADAM = {
    "lr": lambda o: o.param_groups[0].update(lr=0.5),
    "weight decay": lambda o: o.param_groups[0].update(weight_decay=3.0),
    "weight decay in the gradient": lambda o: o.param_groups[0].update(
        weight_decay=3.0, decoupled_weight_decay=False
    ),
    "epsilon": lambda o: o.param_groups[0].update(eps=0.1),
    "betas": lambda o: o.param_groups[0].update(betas=(0.2, 0.5)),
    "other moments": lambda o: o.state.clear(),
    "hook": lambda o: o.register_step_post_hook(
        lambda o, args, options: [p.data.mul_(1.5) for p in o.param_groups[0]["params"]] and None
    ),
}


@pytest.mark.parametrize("change", CHANGES_OF_ADAM.values(), ids=CHANGES_OF_ADAM)
def test_steps_take_up_what_became_of_the_optimiser(change: Any) -> None:
    trained = []
    for backend, changed in ((None, True), ("reference", True), (None, False)):
        network = make(backend)
        steps = Steps(network, X, Y, batch_size=32, lr=LR, seed=2)
        steps.advance(0, 2, lambda n: None)
        if changed:
            change(steps.optimiser)
        steps.advance(2, 4, lambda n: None)
        trained.append(torch.cat([p.detach() for p in network.parameters()]))
    torch.testing.assert_close(trained[0], trained[1], rtol=0, atol=0.05 * LR)
    assert not torch.allclose(trained[0], trained[2], rtol=0, atol=0.1 * LR)


@pytest.mark.parametrize(
    "change",
    [
        lambda n: setattr(n, "relaxation", Soft(0.7)),
        lambda n: n.layers[1].register_buffer("wiring", n.layers[1].wiring, persistent=False),
        lambda n: n.layers[1].register_state_dict_post_hook(
            lambda module, state, prefix, local: state.update(
                {prefix + "logits": 5 * state[prefix + "logits"]}
            )
        ),
        lambda n: setattr(n.layers[2], "wiring", n.layers[1].wiring),
    ],
    ids=["other relaxation", "wiring not persistent", "hook on the state", "shared wiring"],
)
def test_a_changed_network_is_stored_as_it_is(change: Any, tmp_path: Any) -> None:
    network = make(None, relaxation=CAGE())
    change(network)
    lgn.save(network, tmp_path / "model.safetensors")
    again = lgn.load(tmp_path / "model.safetensors")
    for mode in ("soft", "discrete"):
        assert torch.equal(again(X, mode=mode), network(X, mode=mode))
