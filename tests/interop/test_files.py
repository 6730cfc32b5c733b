"""Files of other projects: read without running them; wirings used, given or confirmed, never guessed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import lgn_analysis as lgn
from lgn_analysis.base.errors import CheckpointError, DataError, LGNError
from lgn_analysis.cli import main
from lgn_analysis.interop.seeds import ordered_pairs
from tests.interop.standins import CLASSES, GROUP_TAU, N_IN, WIDTH, logic_dense, logic_layers

ARCHITECTURE = lgn.Architecture(N_IN, CLASSES, GROUP_TAU)
SEEDED = lgn.SeededWiring(3, kind="random", split=20, on_cpu=True)


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


def stored(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "model.pt"
    torch.save(content, path)
    return path


def dense_state() -> dict[str, Any]:
    return dict(logic_dense().state_dict())


def unwired_state() -> dict[str, Any]:
    return dict(logic_layers().state_dict())


def drawn_as_by_the_program() -> list[Tensor]:
    """The wirings of a program that splits 20 samples and makes two layers on a CPU, written out."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        torch.randperm(20)
        wirings = []
        for n_in in (N_IN, WIDTH):
            torch.randn(WIDTH, 16)
            slots = torch.randperm(2 * WIDTH) % n_in
            wirings.append(torch.randperm(n_in)[slots].reshape(2, WIDTH))
    return wirings


def labelled(wirings: list[Tensor]) -> tuple[lgn.LogicNetwork, tuple[Tensor, Tensor]]:
    """The network of these wirings, and bits with the classes that it gives them."""
    module = logic_layers()
    for layer, wiring in zip((module[1], module[2]), wirings, strict=True):
        layer.indices = wiring[0], wiring[1]
    model = lgn.convert(module).eval()
    x = torch.rand(400, N_IN, generator=torch.Generator().manual_seed(1)) < 0.5
    return model, (x, model(x).argmax(-1))


def test_a_wiring_in_the_file_is_used(tmp_path: Path) -> None:
    model = lgn.load_foreign(stored(tmp_path, dense_state()), architecture=ARCHITECTURE)
    expected = lgn.convert(logic_dense()).eval()
    for network in (model, expected):
        network.set_backend("reference")  # nothing is compiled for it
    assert not model.training
    assert model.config == expected.config
    x = torch.rand(20, N_IN, generator=torch.Generator().manual_seed(0)) < 0.5
    for mode in ("soft", "discrete"):
        assert torch.equal(model(x, mode=mode), expected(x, mode=mode))


def test_layers_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    state = dense_state()
    named = {name.replace("0.", "9.", 1): value for name, value in state.items() if name[0] == "0"}
    named |= {
        name.replace("1.", "10.", 1): value for name, value in state.items() if name[0] == "1"
    }
    model = lgn.load_foreign(
        stored(tmp_path, dict(reversed(named.items()))), architecture=ARCHITECTURE
    )
    assert torch.equal(model.layers[1].logits, state["1.weight"])


def test_wirings_are_drawn_again_and_confirmed(tmp_path: Path) -> None:
    wirings = drawn_as_by_the_program()
    expected, data = labelled(wirings)
    path = stored(tmp_path, unwired_state())
    found = lgn.load_foreign(
        path, architecture=ARCHITECTURE, wirings=SEEDED, data=data, accuracy=1.0
    )
    given = lgn.load_foreign(path, architecture=ARCHITECTURE, wirings=wirings)
    for layer, of_given, wiring in zip(found.layers, given.layers, wirings, strict=True):
        assert torch.equal(layer.wiring, wiring)
        assert torch.equal(of_given.wiring, wiring)
    assert torch.equal(found(data[0]), expected(data[0]))


@pytest.mark.parametrize("change", [{"seed": 4}, {"split": 0}, {"on_cpu": False}])
def test_another_order_of_draws_is_found_out(tmp_path: Path, change: dict[str, Any]) -> None:
    _, data = labelled(drawn_as_by_the_program())
    with pytest.raises(
        LGNError, match=r"and 1\.0000 was stated; the wirings or the data are others"
    ):
        lgn.load_foreign(
            stored(tmp_path, unwired_state()),
            architecture=ARCHITECTURE,
            wirings=replace(SEEDED, **change),
            data=data,
            accuracy=1.0,
        )


@pytest.mark.parametrize("n_in", [2, 3, 6, 7])
def test_unique_pairs_are_all_pairs_by_distance(n_in: int) -> None:
    n_out = n_in * (n_in - 1) // 2
    pairs = [tuple(pair) for pair in ordered_pairs(n_in, n_out).T.tolist()]
    assert sorted(pairs) == [(a, b) for a in range(n_in) for b in range(a + 1, n_in)]
    assert [b - a for a, b in pairs] == sorted(b - a for a, b in pairs)
    ones = [a for a, b in pairs if b - a == 1]
    assert ones == [*range(0, n_in - 1, 2), *range(1, n_in - 1, 2)]


def gumbel_lgn_file(tmp_path: Path, **config: Any) -> Path:
    values = {
        "dataset": "CIFAR10",
        "stochastic": "gumbel",
        "gumbel_tau": 0.5,
        "tau": 100,
        "seed": 42,
    }
    model_state = {"1.weights": torch.zeros(10, 16)}
    return stored(
        tmp_path,
        {"model_state": model_state, "optim_state": {}, "iteration": 1, "config": values | config},
    )


def test_a_checkpoint_of_gumbel_lgn_names_its_sizes_and_its_seed(tmp_path: Path) -> None:
    with pytest.raises(
        LGNError, match=r"SeededWiring\(seed\) \(its configuration names the seed 42\)"
    ):
        lgn.load_foreign(gumbel_lgn_file(tmp_path))
    # Its own sizes: 95232 inputs and 100 groups, which 10 gates cannot have.
    wiring = torch.zeros(2, 10, dtype=torch.int64)
    with pytest.raises(LGNError, match="width 10 is not divisible by n_groups 100"):
        lgn.load_foreign(gumbel_lgn_file(tmp_path), wirings=[wiring])
    small = lgn.Architecture(4, 2, 1.0, relaxation=lgn.GumbelST(0.5))
    model = lgn.load_foreign(gumbel_lgn_file(tmp_path), architecture=small, wirings=[wiring])
    assert model.relaxation == lgn.GumbelST(0.5)


def without(state: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in names}


WIRED = "0.connections.indices"
REFUSED: list[tuple[str, Callable[[], Any], dict[str, Any], str]] = [
    (
        "no architecture",
        dense_state,
        {"architecture": None},
        "{file} is a state dict, which does not say its sizes and temperatures; give "
        "architecture=lgn.Architecture(n_features, n_classes, group_tau)",
    ),
    (
        "no wiring",
        unwired_state,
        {},
        "{file} does not hold its wiring, without which its weights are no network; give wirings=[…], one "
        "tensor [2, n_out] a layer, or wirings=lgn.SeededWiring(seed) with data and the accuracy on it",
    ),
    (
        "the wiring of one layer",
        lambda: without(dense_state(), WIRED),
        {},
        "{file} holds the wirings of some layers and not of 0; save it anew",
    ),
    (
        "a wiring beside that of the file",
        dense_state,
        {"wirings": SEEDED},
        "{file} holds its wirings; leave wirings out",
    ),
    (
        "a wiring out of range",
        lambda: dense_state() | {WIRED: torch.full((2, WIDTH), 9)},
        {},
        "layer 0 of {file}: wiring indices must lie in 0..8, got 9..9",
    ),
    (
        "a seed without an accuracy",
        unwired_state,
        {"wirings": SEEDED},
        "a wiring drawn again from a seed is a guess until it is confirmed; give data=(x, y) and the "
        "accuracy that the discrete network has on it",
    ),
    (
        "an accuracy that says nothing",
        unwired_state,
        {
            "wirings": SEEDED,
            "data": (torch.zeros(4, N_IN), torch.tensor([0, 0, 1, 2])),
            "accuracy": 0.75,
        },
        "an accuracy of 0.7500 on 4 samples is not clearly above guessing (0.5000), so it confirms no "
        "wiring; give more data, or the wirings themselves",
    ),
    (
        "mixed parametrisations",
        lambda: dense_state() | {"1.weight": torch.zeros(WIDTH, 4)},
        {},
        "{file}: layer 1 has weights of shape (12, 4), and parametrisations other than [gates, 16] "
        "(torchlogix: warp, light, lut_rank above 2) cannot be converted",
    ),
    (
        "rank four",
        lambda: dense_state() | {WIRED: torch.zeros(4, WIDTH, dtype=torch.int64)},
        {},
        "{file}: layer 0 has connections of shape (4, 12), and gates of two inputs have [2, gates]; other "
        "ranks cannot be converted",
    ),
    (
        "thresholds in front",
        lambda: dense_state() | {"2.thresholds": torch.zeros(3)},
        {},
        "{file}: it also holds 2.thresholds, which is no part of a LogicNetwork; give "
        "ignore=('2.thresholds',) to leave it out, and apply it yourself where it makes the bits",
    ),
    (
        "a convolution",
        lambda: {"0.tree_weights.0": torch.zeros(3)},
        {},
        "{file}: 0.tree_weights.0 belongs to a convolution, and only dense layers are read; save those "
        "alone",
    ),
    (
        "no layers",
        lambda: {"a": torch.zeros(3)},
        {},
        "{file}: it holds no logic layer, no weights or weight [gates, 16], only a",
    ),
    (
        "a list",
        lambda: [1, 2],
        {},
        "{file} holds a list and no state dict; write torch.save(module.state_dict(), path)",
    ),
]


@pytest.mark.parametrize(
    ("content", "options", "sentence"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_what_is_missing_is_asked_for_in_one_sentence(
    tmp_path: Path, content: Callable[[], Any], options: dict[str, Any], sentence: str
) -> None:
    path = stored(tmp_path, content())
    with pytest.raises(LGNError) as caught:
        lgn.load_foreign(path, **{"architecture": ARCHITECTURE, **options})
    assert str(caught.value) == sentence.replace("{file}", str(path))


def test_what_is_to_be_ignored_is(tmp_path: Path) -> None:
    path = stored(tmp_path, dense_state() | {"2.thresholds": torch.zeros(3)})
    assert lgn.load_foreign(path, architecture=ARCHITECTURE, ignore=["2.thresholds"]).depth == 2


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = stored(tmp_path, {"0.weight": Bomb(mark)})
    with pytest.raises(CheckpointError, match=r"no plain tensors that torch.load reads"):
        lgn.load_foreign(path, architecture=ARCHITECTURE)
    assert not mark.exists()


def test_the_command_writes_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored(tmp_path, dense_state())
    words = ["convert", str(path), "--n-features", "9", "--n-classes", "3", "--group-tau", "1.5"]
    assert main([*words, "--relaxation", "gumbel-st", "--tau", "0.5"]) == 0
    assert str(tmp_path / "model.safetensors") in capsys.readouterr().out
    model = lgn.load(tmp_path / "model.safetensors")
    assert model.relaxation == lgn.GumbelST(0.5)
    assert torch.equal(model.layers[0].wiring, dense_state()[WIRED])


LOG = (
    "iteration,train_acc_eval_mode,train_acc_train_mode,test_acc_eval_mode,test_acc_train_mode,"
    "test_acc_packbits,duration_sec\n"
    "2000,0.5,0.6,0.4,0.45,0.4,12.5\n"
    "4000,0.7,0.7,0.5,0.51,0.5,25.0\n"
)


@pytest.mark.parametrize(
    ("relaxation", "column"), [("soft", "soft_accuracy"), ("gumbel-st", "noisy_accuracy")]
)
def test_a_log_is_a_history_to_draw_beside_ours(
    tmp_path: Path, relaxation: str, column: str
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    history = lgn.read_foreign_history(path, relaxation=relaxation)
    test = history[history["split"] == "test"]
    assert test["step"].tolist() == [2000, 4000]
    assert test["discrete_accuracy"].tolist() == [0.4, 0.5]
    assert test[column].tolist() == [0.45, 0.51]
    assert test["gap_train"].tolist() == pytest.approx([0.05, 0.01])
    assert lgn.convergence(history, 0.5, split="test").step == 4000
    ours = pd.DataFrame(
        {
            "step": [1, 2],
            "split": "test",
            "seconds": [1.0, 2.0],
            "relaxation": "hard-st",
            "soft_accuracy": [0.1, 0.2],
            "discrete_accuracy": [0.1, 0.2],
        }
    )
    ax = lgn.plots.accuracy_curves(pd.concat([ours, history]), split="test")
    drawn = [line.get_xdata().max() for line in ax.lines if len(line.get_xdata())]
    assert {2.0, 4000.0} <= {float(x) for x in drawn}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "a,b\n1,2\n",
            "is no log of gumbel-lgn: it has no column iteration; give the CSV that its main.py ",
        ),
        (LOG.splitlines()[0] + "\n", "has no rows, or torn ones; delete what is torn"),
        (LOG + "6000,0.7\n", "has no rows, or torn ones; delete what is torn"),
        (LOG + "x,1,1,1,1,1,1\n", "is no table of numbers; give the CSV that main.py --log wrote"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        lgn.read_foreign_history(path, relaxation="soft")
    assert sentence in str(caught.value)
