"""Whole training steps against PyTorch's Adam on the reference network."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.data import thermometer
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import RELAXATIONS
from lgn_analysis.kernels.cuda import PackedSamples, TrainingRun
from lgn_analysis.kernels.cuda.bits import pack_bits
from lgn_analysis.kernels.interface import AdamRule, Moments, NetworkSpec
from lgn_analysis.network import LogicNetwork

DRAW = 2**32 - 2  # the low counter word overflows on the way


class Problem:
    """A small network and data; pixels under four thresholds give its bits."""

    levels = (0, 60, 130, 200)

    def __init__(self, device: torch.device, name: str = "gumbel-st", batch: int = 33) -> None:
        generator = torch.Generator().manual_seed(0)
        self.device = device
        self.pixels = torch.randint(256, (40, 9), dtype=torch.uint8, generator=generator).to(device)
        self.x = thermometer(self.pixels, self.levels)
        self.y = torch.randint(3, (40,), generator=generator).to(device)
        self.order = torch.randint(40, (4, batch), generator=generator).to(device)
        self.model = LogicNetwork(
            n_features=36,
            width=24,
            depth=2,
            n_classes=3,
            group_tau=2.0,
            relaxation=RELAXATIONS[name](0.9),
            seed=4,
            backend="reference",
        ).to(device)

    def key(self, step: int = 0) -> NoiseKey:
        return NoiseKey(2**64 - 1, Purpose.TRAINING, DRAW + step)

    def run(
        self, rule: AdamRule | None = None, **options: object
    ) -> tuple[TrainingRun, list[Tensor], list[Moments]]:
        """Return a fresh run from the model's logits, its parameters and its moments."""
        logits = [layer.logits.detach().clone() for layer in self.model.layers]
        moments = [Moments(torch.zeros_like(z), torch.zeros_like(z)) for z in logits]
        wirings = tuple(layer.wiring for layer in self.model.layers)
        samples = PackedSamples(pack_bits(self.x), 36)
        confidences = tuple(c.clone() for c in self.model.as_spec().confidences)
        run = TrainingRun(
            NetworkSpec(wirings, 36, self.model.relaxation, 3, 2.0, confidences=confidences),
            logits,
            moments,
            samples,
            self.y,
            rule or AdamRule(0.05),
            **options,  # type: ignore[arg-type]
        )
        return run, logits, moments

    def train_reference(self, taus: Sequence[float] = ()) -> tuple[list[float], torch.optim.Adam]:
        optimiser = torch.optim.Adam(self.model.parameters(), lr=0.05)
        losses = []
        for step, chosen in enumerate(self.order):
            if taus:
                self.model.set_tau(taus[step])
            outputs = self.model(self.x[chosen], draw=self.key(step))
            loss = functional.cross_entropy(outputs, self.y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        return losses, optimiser


@pytest.mark.parametrize("name", ["gumbel-st", "soft"])
def test_a_run_of_steps_is_torch_adam_on_the_reference(name: str, device: torch.device) -> None:
    problem = Problem(device, name)
    run, logits, moments = problem.run()
    losses = run.run(problem.order, problem.key(), steps_done=0)
    expected, optimiser = problem.train_reference()
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    for layer, z, moment in zip(problem.model.layers, logits, moments, strict=True):
        torch.testing.assert_close(z, layer.logits.detach(), rtol=1e-3, atol=1e-3)
        state = optimiser.state[layer.logits]
        torch.testing.assert_close(moment.mean, state["exp_avg"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["gumbel-st", "soft"])
def test_each_step_has_the_temperature_it_is_given(name: str, device: torch.device) -> None:
    problem, taus = Problem(device, name), [2.0, 0.7, 0.4, 1.1]
    run, _, moments = problem.run()
    first = run.run(problem.order[:3], problem.key(), steps_done=0, taus=taus[:3])
    last = run.run(problem.order[3:], problem.key(3), steps_done=3, taus=taus[3:])
    expected, optimiser = problem.train_reference(taus)
    assert [*first.tolist(), *last.tolist()] == pytest.approx(expected, rel=1e-5)
    for layer, moment in zip(problem.model.layers, moments, strict=True):
        state = optimiser.state[layer.logits]
        torch.testing.assert_close(moment.mean, state["exp_avg"], rtol=1e-3, atol=1e-5)


def test_a_run_of_cage_is_torch_adam_on_the_reference(device: torch.device) -> None:
    problem = Problem(device, "cage")
    problem.model.layers[1].confidence.fill_(0.8)
    run, _, moments = problem.run()
    first = run.run(problem.order[:1], problem.key(), steps_done=0)
    last = run.run(problem.order[1:], problem.key(1), steps_done=1)
    expected, optimiser = problem.train_reference()
    assert [*first.tolist(), *last.tolist()] == pytest.approx(expected, rel=1e-5)
    for place, (layer, moment) in enumerate(zip(problem.model.layers, moments, strict=True)):
        got = run.network.confidences[place]
        torch.testing.assert_close(got, layer.confidence, rtol=1e-5, atol=0)
        state = optimiser.state[layer.logits]
        torch.testing.assert_close(moment.mean, state["exp_avg"], rtol=1e-3, atol=1e-5)
    with pytest.raises(InvalidInputError, match="CAGE finds its own temperatures"):
        run.run(problem.order, problem.key(), steps_done=4, taus=[1.0] * 4)


def test_a_schedule_needs_a_graph_of_its_own(device: torch.device) -> None:
    """One with a temperature that stands on the device is captured, and serves every other."""
    problem = Problem(device)
    launched, logits, _ = problem.run(capture=False)
    replayed, again, _ = problem.run()
    captures: list[Purpose] = []

    class Recorded:
        def __init__(self, purpose: Purpose) -> None:
            captures.append(purpose)
            self.replay = lambda: replayed._step(purpose)

    replayed.captures = True
    replayed._captured = Recorded  # type: ignore[method-assign, assignment]
    for run in (launched, replayed):
        run.run(problem.order[:2], problem.key(), steps_done=0)
        run.run(problem.order, problem.key(2), steps_done=2, taus=[2.0, 0.7, 0.4, 1.1])
        run.run(problem.order, problem.key(6), steps_done=6, taus=[0.3, 0.2, 0.6, 0.9])
        run.run(problem.order[:2], problem.key(10), steps_done=10)
    assert len(captures) == 3  # constant, moving, constant again
    for one, other in zip(logits, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_runs_go_on_where_they_stopped(device: torch.device) -> None:
    problem = Problem(device)
    whole, logits, _ = problem.run()
    losses = whole.run(problem.order, problem.key(), steps_done=0)
    parts, again, _ = problem.run()
    first = parts.run(problem.order[:1], problem.key(), steps_done=0)
    second = parts.run(problem.order[1:], problem.key(1), steps_done=1)
    torch.testing.assert_close(torch.cat([first, second]), losses, rtol=0, atol=0)
    for one, other in zip(logits, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_step_is_captured_once_and_replayed(device: torch.device) -> None:
    """The order of things around a graph, whatever records it; test_on_gpu.py has real ones."""
    problem = Problem(device)
    launched, logits, _ = problem.run(capture=False)
    losses = launched.run(problem.order, problem.key(), steps_done=0)
    replayed, again, _ = problem.run()
    captures: list[Purpose] = []

    class Recorded:
        def __init__(self, purpose: Purpose) -> None:
            captures.append(purpose)
            self.replay = lambda: replayed._step(purpose)

    replayed.captures = True
    replayed._captured = Recorded  # type: ignore[method-assign, assignment]
    first = replayed.run(problem.order[:3], problem.key(), steps_done=0)
    second = replayed.run(problem.order[3:], problem.key(3), steps_done=3)
    torch.testing.assert_close(torch.cat([first, second]), losses, rtol=0, atol=0)
    for one, other in zip(logits, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    replayed.run(problem.order[:2, :8].contiguous(), problem.key(), steps_done=4)
    assert captures == [Purpose.TRAINING] * 2  # once for each size of batch
    problem.model.layers[1].wiring[:, 0] = 0
    replayed.run(problem.order[:2, :8].contiguous(), problem.key(), steps_done=6)
    assert captures == [Purpose.TRAINING] * 3  # and once for each wiring


def test_a_learning_rate_can_be_given_for_each_run(device: torch.device) -> None:
    problem = Problem(device)
    run, logits, _ = problem.run()
    before = [z.clone() for z in logits]
    run.run(problem.order[:1], problem.key(), steps_done=0, lrs=[0.0])
    for one, other in zip(logits, before, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


RULE = AdamRule(0.05, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.5)
RATES = [0.05, 0.02, 0.0, 0.08]


@pytest.mark.parametrize(
    ("name", "draws"), [("gumbel-st", 1), ("gumbel-st", 3), ("gumbel-soft", 2), ("soft", 1)]
)
@pytest.mark.parametrize("taus", [None, [2.0, 0.7, 0.4, 1.1]])
def test_steps_are_those_of_adamw_on_the_mean_over_draws(
    name: str, draws: int, taus: list[float] | None, device: torch.device
) -> None:
    problem = Problem(device, name)
    run, logits, moments = problem.run(RULE, draws=draws)
    cuts = [slice(0, 1), slice(1, 4)]
    losses = [
        loss
        for cut in cuts
        for loss in run.run(
            problem.order[cut],
            problem.key(draws * cut.start),
            steps_done=cut.start,
            lrs=RATES[cut],
            taus=None if taus is None else taus[cut],
        ).tolist()
    ]
    constants = {"betas": RULE.betas, "eps": RULE.eps, "weight_decay": RULE.weight_decay}
    optimiser = torch.optim.AdamW(problem.model.parameters(), **constants)  # type: ignore[arg-type]
    for step, chosen in enumerate(problem.order):
        optimiser.param_groups[0]["lr"] = RATES[step]
        if taus is not None:
            problem.model.set_tau(taus[step])
        keys = [problem.key(step * draws + m) for m in range(draws)]
        outputs = [problem.model(problem.x[chosen], draw=key) for key in keys]
        loss = torch.stack([functional.cross_entropy(o, problem.y[chosen]) for o in outputs]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert losses[step] == pytest.approx(float(loss.detach()), rel=1e-5)
    for layer, z, moment in zip(problem.model.layers, logits, moments, strict=True):
        torch.testing.assert_close(z, layer.logits.detach(), rtol=1e-4, atol=1e-4)
        state = optimiser.state[layer.logits]
        torch.testing.assert_close(moment.mean, state["exp_avg"], rtol=1e-3, atol=1e-5)


def test_a_power_of_two_in_gradient_and_epsilon_changes_no_bit(device: torch.device) -> None:
    problem, scale = Problem(device), 2.0**27
    plain, logits, moments = problem.run(AdamRule(0.05))
    scaled, again, larger = problem.run(AdamRule(0.05, eps=1e-8 * scale, gradient_scale=scale))
    losses = [run.run(problem.order, problem.key(), steps_done=0) for run in (plain, scaled)]
    assert losses[0].tolist() == losses[1].tolist()
    for one, other in zip(logits, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    for one, other in zip(moments, larger, strict=True):
        torch.testing.assert_close(one.mean * scale, other.mean, rtol=0, atol=0)


def test_several_draws_are_captured_in_one_graph(device: torch.device) -> None:
    problem = Problem(device)
    launched, logits, _ = problem.run(draws=2, capture=False)
    replayed, again, _ = problem.run(draws=2)

    class Recorded:
        def __init__(self, purpose: Purpose) -> None:
            self.replay = lambda: replayed._step(purpose)

    replayed.captures = True
    replayed._captured = Recorded  # type: ignore[method-assign, assignment]
    for run in (launched, replayed):
        run.run(problem.order, problem.key(), steps_done=0)
        run.run(problem.order, problem.key(8), steps_done=4, lrs=RATES)
    for one, other in zip(logits, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
