"""Accuracy, gap, flips, gate usage and convergence, on cases small enough to do by hand."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.data import Dataset
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import HardST, Relaxation, Soft
from lgn_analysis.gates.table import GATE_NAMES
from lgn_analysis.metrics import UNUSED_ENTROPY, convergence, evaluate, gate_entropy, gate_usage
from lgn_analysis.network import LogicNetwork
from tests.tiny import NetworkFactory, random_bits

EVERY_PAIR = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])


def labelled(n: int, n_classes: int = 3) -> tuple[Tensor, Tensor]:
    y = torch.from_numpy(np.random.default_rng(0).integers(0, n_classes, n))
    return random_bits(n, 9), y


def hand_made() -> LogicNetwork:
    """Two gates, one per class, whose soft outputs are 0.35 + 0.25·x0 and 0.2 + 0.3·x1.

    Discretised they are 0 and x1, so that (1, 1) is class 0 when soft and 1 when discrete.
    """
    model = LogicNetwork(
        2, width=2, depth=1, n_classes=2, group_tau=0.5, relaxation=Soft(), dtype=torch.float64
    )
    model.layers[0].wiring[:] = torch.tensor([[0, 1], [1, 0]])
    p = torch.zeros(2, 16, dtype=torch.float64)
    p[0, [0, 15, 3]] = torch.tensor([0.4, 0.35, 0.25], dtype=p.dtype)  # FALSE, TRUE, A
    p[1, [3, 0, 12]] = torch.tensor([0.5, 0.3, 0.2], dtype=p.dtype)  # A, FALSE, NOT A
    with torch.no_grad():
        model.layers[0].logits[:] = p.log().clamp(min=-1e3)
    return model


HAND_X = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1], [1, 1]])
HAND_Y = torch.tensor([0, 0, 1, 0, 1])


def cross_entropy(outputs: list[list[float]]) -> float:
    pairs = zip(outputs, HAND_Y.tolist(), strict=True)
    return sum(math.log(sum(map(math.exp, row))) - row[label] for row, label in pairs) / len(HAND_Y)


def test_accuracy_loss_gap_and_flips_of_a_hand_made_network() -> None:
    result = evaluate(hand_made(), (HAND_X, HAND_Y))
    soft = [[(0.35 + 0.25 * a) / 0.5, (0.2 + 0.3 * b) / 0.5] for a, b in HAND_X.tolist()]
    discrete = [[0.0, b / 0.5] for _, b in HAND_X.tolist()]
    assert result.n == 5
    assert result.soft_accuracy == result.discrete_accuracy == 0.8
    assert result.gap == 0
    assert result.flips == result.flips_train == 2, (
        "flips count predictions, also where the accuracies cancel"
    )
    assert result.soft_loss == pytest.approx(cross_entropy(soft), rel=1e-12)
    assert result.discrete_loss == pytest.approx(cross_entropy(discrete), rel=1e-12)
    assert result.gap_loss == pytest.approx(result.discrete_loss - result.soft_loss, rel=1e-12)


def test_a_gap_in_accuracy_is_soft_minus_discrete() -> None:
    result = evaluate(hand_made(), (HAND_X[:4], HAND_Y[:4]))
    assert (result.soft_accuracy, result.discrete_accuracy) == (1.0, 0.75)
    assert result.gap == result.gap_train == 0.25
    assert result.flips == 1


@pytest.mark.parametrize("batch_size", [1, 4, 10, 23, 1000])
def test_a_short_last_batch_counts_by_its_samples(
    make_network: NetworkFactory, relaxation: Relaxation, batch_size: int
) -> None:
    """Trap 6: a mean over batches weighs the samples of a short batch too much."""
    model, (x, y) = make_network(relaxation=relaxation), labelled(23)
    result = evaluate(model, (x, y), noise_draws=3, batch_size=batch_size)
    for mode in ("soft", "discrete"):
        outputs = model(x, mode=mode)
        accuracy = (outputs.argmax(-1) == y).double().mean().item()
        loss = functional.cross_entropy(outputs, y).item()
        assert getattr(result, f"{mode}_accuracy") == pytest.approx(accuracy, rel=1e-14)
        assert getattr(result, f"{mode}_loss") == pytest.approx(loss, rel=1e-12)


def test_noisy_figures_are_means_over_the_evaluation_draws(make_network: NetworkFactory) -> None:
    model, (x, y) = make_network(), labelled(23)
    outputs = [model(x, mode="noisy", draw=draw) for draw in range(3)]
    accuracies = [(o.argmax(-1) == y).double().mean().item() for o in outputs]
    losses = [functional.cross_entropy(o, y).item() for o in outputs]
    result = evaluate(model, (x, y), noise_draws=3, batch_size=10)
    assert result.noisy_accuracy == pytest.approx(np.mean(accuracies), rel=1e-12)
    assert result.noisy_loss == pytest.approx(np.mean(losses), rel=1e-12)
    assert result.noise_draws == 3
    assert evaluate(model, (x, y), noise_draws=3, noise_seed=77).noisy_loss != result.noisy_loss


def test_gap_train_is_that_of_the_training_forward(
    make_network: NetworkFactory, relaxation: Relaxation
) -> None:
    result = evaluate(make_network(relaxation=relaxation), labelled(60))
    name = {"soft": "soft", "hard-st": "discrete", "cage": "discrete"}.get(relaxation.name, "noisy")
    training_accuracy = getattr(result, f"{name}_accuracy")
    training_loss = getattr(result, f"{name}_loss")
    assert result.gap == result.soft_accuracy - result.discrete_accuracy
    assert result.gap_train == training_accuracy - result.discrete_accuracy
    assert result.gap_train_loss == result.discrete_loss - training_loss
    assert math.isnan(result.noisy_accuracy) == math.isnan(result.noisy_loss) == (name != "noisy")
    assert result.noise_draws == (8 if relaxation.noisy else 0)


def test_flips_train_are_counted_against_the_training_forward(
    make_network: NetworkFactory, relaxation: Relaxation
) -> None:
    model, (x, y) = make_network(relaxation=relaxation), labelled(60)
    n_draws = 3 if relaxation.noisy else 1
    model.train()
    outputs = [model(x, draw=NoiseKey(5, Purpose.EVALUATION, draw)) for draw in range(n_draws)]
    predicted = model(x, mode="discrete").argmax(-1)
    counts = [int((output.argmax(-1) != predicted).sum()) for output in outputs]
    found = evaluate(model, (x, y), noise_draws=3, noise_seed=5, batch_size=25)
    assert found.flips_train == pytest.approx(sum(counts) / n_draws, rel=1e-14)
    assert (found.flips_train > 0) == (relaxation.name not in ("hard-st", "cage"))


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_model_as_it_was(
    make_network: NetworkFactory, training: bool
) -> None:
    model = make_network().train(training)
    state, random_state = model.state_dict(), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in state.items()}
    evaluate(model, labelled(20))
    gate_usage(model, labelled(20)[0])
    assert model.training is training
    assert all(torch.equal(before[name], tensor) for name, tensor in state.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_data_set_is_evaluated_by_split(
    make_network: NetworkFactory, separable_data: Dataset
) -> None:
    model = make_network(n_features=12)
    for split, n in (("train", 90), ("val", 45), ("test", 45)):
        result = evaluate(model, separable_data, split=split)
        expected = evaluate(model, separable_data.split(split), split=split)
        assert result.n == n
        assert result.to_frame().equals(expected.to_frame())


def test_an_evaluation_reads_as_percentages() -> None:
    text = repr(evaluate(hand_made(), (HAND_X[:4], HAND_Y[:4]), split="val"))
    assert "val, n=4: soft 100.00%, discrete 75.00%, gap +25.00 pp" in text
    assert "1 flips" in text
    assert "nan" not in text


def test_an_evaluation_is_a_table_in_a_notebook() -> None:
    html = evaluate(hand_made(), (HAND_X[:4], HAND_Y[:4]))._repr_html_()
    assert re.search(r"<th>discrete_accuracy</th>\s*<td>0.75</td>", html)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.arange(7)}, "x holds 8 samples and y 7"),
        ({"x": torch.zeros(0, 9), "y": torch.arange(0)}, "the split 'test' is empty"),
        ({"x": torch.full((8, 9), math.nan)}, "the features hold 72 values that are NaN"),
        ({"y": torch.arange(8)}, r"labels must lie in 0\.\.2, got 0\.\.7"),
        ({"y": torch.arange(8) - 7}, r"labels must lie in 0\.\.2, got -7\.\.0"),
        ({"y": torch.zeros(8)}, "labels must be integers, got torch.float32"),
        ({"y": torch.zeros(8, 3, dtype=torch.int64)}, r"class numbers \[n\], got shape \(8, 3\)"),
        ({"x": torch.zeros(8, 10)}, r"expected inputs \[batch, 9\]"),
        ({"x": torch.full((8, 9), 0.5)}, "inputs hold values other than 0 and 1"),
        ({"noise_draws": 0}, "noise_draws must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    make_network: NetworkFactory, change: dict[str, Any], message: str
) -> None:
    arguments = {"x": torch.zeros(8, 9), "y": torch.arange(8) % 3} | change
    x, y = arguments.pop("x"), arguments.pop("y")
    with pytest.raises(InvalidInputError, match=message):
        evaluate(make_network(), (x, y), **arguments)


def test_unused_entropy_cuts_off_2_5_percent_of_fresh_gates() -> None:
    """Of 10⁶ gates, within five standard errors: false-alarm rate 6e-7.

    That is ±0.0008 of the share, which resolves about ±0.005 nats of the threshold.
    """
    generator = torch.Generator().manual_seed(0)
    n, below = 1_000_000, 0
    for _ in range(10):
        entropy = gate_entropy(torch.randn(n // 10, 16, generator=generator))
        below += int((entropy < UNUSED_ENTROPY).sum())
    assert abs(below / n - 0.025) < 5 * math.sqrt(0.025 * 0.975 / n)


def test_entropy_is_in_nats_and_survives_large_logits() -> None:
    logits = torch.zeros(3, 16)
    logits[1, :4] = 1e4
    logits[2, 0] = 1e4
    torch.testing.assert_close(
        gate_entropy(logits), torch.tensor([math.log(16), math.log(4), 0.0]).double()
    )


def discrete_network(
    gates: list[list[int]], wirings: list[list[list[int]]], n_features: int = 2
) -> LogicNetwork:
    """A network of these gates, all sure of themselves."""
    width, depth = len(gates[0]), len(gates)
    model = LogicNetwork(n_features, width, depth, n_classes=width, group_tau=1.0)
    for layer, numbers, wiring in zip(model.layers, gates, wirings, strict=True):
        layer.wiring[:] = torch.tensor(wiring)
        layer.logits.data[:] = 9 * torch.eye(16)[numbers]
    return model


def test_unused_is_the_share_of_gates_that_are_still_undecided() -> None:
    model = discrete_network([[1, 1, 6, 7]], [[[0, 0, 0, 0], [1, 1, 1, 1]]])
    model.layers[0].logits.data[0] = 0
    usage = gate_usage(model)
    assert usage["unused"].tolist() == [0.25]
    assert usage["entropy"][0] == pytest.approx(
        (math.log(16) + 3 * gate_entropy(9 * torch.eye(16)[0]).item()) / 4
    )
    assert usage["constant"].isna().all(), "nothing is constant on no data"


def test_the_histogram_is_of_discrete_gates() -> None:
    usage = gate_usage(discrete_network([[1, 1, 6, 7]], [[[0, 0, 0, 0], [1, 1, 1, 1]]]))
    row = usage.loc[0, [*GATE_NAMES]]
    assert row[row > 0].to_dict() == {"A AND B": 0.5, "A XOR B": 0.25, "A OR B": 0.25}
    assert usage["n_gates"].tolist() == [4]


def test_constant_is_a_statement_about_the_data() -> None:
    """AND, XOR on one input, OR: all vary on every pair of bits but the XOR; on (0, x) only OR."""
    model = discrete_network([[1, 6, 7]], [[[0, 1, 0], [1, 1, 1]]])
    assert gate_usage(model, EVERY_PAIR)["constant"].tolist() == [pytest.approx(1 / 3)]
    assert gate_usage(model, EVERY_PAIR[:2])["constant"].tolist() == [pytest.approx(2 / 3)]
    assert gate_usage(model, EVERY_PAIR[:1])["constant"].tolist() == [1]


@pytest.mark.parametrize("n", [1, 64, 65, 130])
def test_a_gate_that_varies_once_is_not_constant(n: int) -> None:
    """In any word of packed bits, and across batches."""
    model = discrete_network([[3]], [[[0], [1]]])
    for place in {0, n // 2, n - 1}:
        x = torch.zeros(n, 2)
        x[place] = 1
        for batch_size in (64, 1000, 7):
            usage = gate_usage(model, x, batch_size=batch_size)
            assert usage["constant"].tolist() == [float(n == 1)]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_usage_of_a_layer_changed_by_hand_is_that_of_its_gates(backend: str) -> None:
    """Such a network goes layer by layer; its discrete gates are the same."""
    model = LogicNetwork(9, 60, 3, 3, 1.0, seed=1, backend=backend)
    x = torch.rand(70, 9, generator=torch.Generator().manual_seed(0)) < 0.2
    expected = gate_usage(model, x)
    model.layers[1].relaxation = HardST()
    assert model.network_backend is None
    assert gate_usage(model, x, batch_size=33).equals(expected)


def test_unreachable_gates_have_no_path_to_an_output() -> None:
    """Layer by layer from the end:

    layer 2: A of gate 0; XOR of gate 2 with itself, which reads nothing; TRUE. So only gate 0 of
    layer 1 is read. That is AND of gates 0 and 1; the OR and the XOR beside it have no reader,
    so gate 2 of layer 0 has none that counts.
    """
    model = discrete_network(
        [[1, 6, 7], [1, 7, 6], [3, 6, 15]],
        [[[0, 0, 0], [1, 1, 1]], [[0, 2, 2], [1, 1, 0]], [[0, 2, 1], [1, 2, 2]]],
    )
    assert gate_usage(model)["unreachable"].tolist() == pytest.approx([1 / 3, 2 / 3, 0])


def test_a_gate_is_read_through_either_input() -> None:
    model = discrete_network([[1, 6], [3, 10]], [[[0, 0], [1, 1]], [[0, 0], [1, 1]]])
    assert gate_usage(model)["unreachable"].tolist() == [0, 0]


def test_usage_refuses_data_that_do_not_fit(make_network: NetworkFactory) -> None:
    for x, message in (
        (torch.zeros(0, 9), "on at least one sample, got none"),
        (torch.zeros(4, 10), r"expected inputs \[batch, 9\]"),
        (torch.full((4, 9), 0.5), "inputs hold values other than 0 and 1"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            gate_usage(make_network(), x)


def test_usage_takes_a_split_of_a_data_set(
    make_network: NetworkFactory, separable_data: Dataset
) -> None:
    model = make_network(n_features=12)
    usage = gate_usage(model, separable_data, split="val", batch_size=7)
    assert usage.equals(gate_usage(model, separable_data.x_val))
    assert usage["layer"].tolist() == [0, 1, 2]


def history(*accuracies: float, split: str = "val") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "step": [10 * k for k in range(len(accuracies))],
            "split": split,
            "seconds": [0.5 * k for k in range(len(accuracies))],
            "discrete_accuracy": accuracies,
        }
    )


def test_convergence_is_the_first_step_at_the_accuracy() -> None:
    run = history(0.1, 0.6, 0.5, 0.8, 0.9)
    assert convergence(run, 0.6).step == 10
    assert convergence(run, 0.61).step == 30
    result = convergence(run, 0.8)
    assert (result.reached, result.step, result.seconds) == (True, 30, 1.5)


def test_a_run_that_never_gets_there_is_censored_at_its_end() -> None:
    result = convergence(history(0.1, 0.6, math.nan, 0.5), 0.7)
    assert (result.reached, result.step, result.seconds) == (False, 30, 1.5)


def test_convergence_reads_one_split_in_order_of_steps() -> None:
    both = pd.concat([history(0.9, 0.9, split="test"), history(0.1, 0.2, 0.9, 0.95)])
    assert convergence(both.iloc[::-1], 0.9).step == 20
    assert convergence(both, 0.9, split="test").step == 0


def test_convergence_names_what_a_history_lacks() -> None:
    with pytest.raises(InvalidInputError, match=r"no split 'train'; it has \['val'\]"):
        convergence(history(0.5), 0.9, split="train")
    with pytest.raises(InvalidInputError, match="no column 'soft'; it has"):
        convergence(history(0.5), 0.9, column="soft")
