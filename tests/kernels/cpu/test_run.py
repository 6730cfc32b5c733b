"""Compiled training steps, against the same steps in plain PyTorch."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import CAGE, FUSED, GumbelST, Relaxation
from lgn_analysis.kernels import cpu, reference
from lgn_analysis.kernels.interface import AdamRule, Moments
from tests.kernels.cpu.conftest import BATCHES, Case, make_case

LR = 0.05
N_SAMPLES = 1100


@dataclass
class Trained:
    """A copy of a case's logits with Adam's state, and the losses of the steps so far."""

    case: Case
    logits: list[Tensor]
    moments: list[Moments]
    run: cpu.TrainingRun

    @classmethod
    def of(cls, case: Case, rule: AdamRule | None = None, draws: int = 1) -> Trained:
        x, y = data(case)
        logits = [z.detach().clone() for z in case.logits]
        moments = [Moments(torch.zeros_like(z), torch.zeros_like(z)) for z in logits]
        samples = cpu.PackedSamples(cpu.pack_bits(x), case.model.n_features)
        rule = rule or AdamRule(LR)
        run = cpu.TrainingRun(case.network, logits, moments, samples, y, rule, draws=draws)
        return cls(case, logits, moments, run)

    def steps(self, order: Tensor, first: int = 0) -> list[float]:
        key = NoiseKey(9, Purpose.TRAINING, first)
        return self.run.run(order, key, steps_done=first).tolist()

    def everything(self) -> list[Tensor]:
        return [*self.logits, *(t for m in self.moments for t in (m.mean, m.square))]


def data(case: Case) -> tuple[Tensor, Tensor]:
    x = case.bits(N_SAMPLES)
    return x, (x[:, :5].sum(-1) % case.model.n_classes).long()


def orders(n_steps: int, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.stack(
        [torch.randperm(N_SAMPLES, generator=generator)[:batch] for _ in range(n_steps)]
    )


def in_plain_torch(
    case: Case, order: Tensor, *, eps: float = 1e-8
) -> tuple[list[Tensor], list[float]]:
    model, (x, y) = copy.deepcopy(case.model), data(case)
    optimiser = torch.optim.Adam(model.parameters(), lr=LR, eps=eps)
    losses = []
    for step, chosen in enumerate(order):
        draw = NoiseKey(9, Purpose.TRAINING, step)
        loss = functional.cross_entropy(model(x[chosen], draw=draw), y[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return [p.detach() for p in model.parameters()], losses


@pytest.mark.parametrize("batch", BATCHES)
def test_steps_are_those_of_plain_torch(case: Case, batch: int) -> None:
    order = orders(4, batch)
    trained = Trained.of(case)
    losses = trained.steps(order)
    expected, expected_losses = in_plain_torch(case, order)
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    for got, wanted in zip(trained.logits, expected, strict=True):
        # Adam's first steps are ±lr whatever the gradient's size, so where it is all but zero
        # rounding decides: nearly all logits agree, and none is off by more than the steps taken.
        difference = (got - wanted).abs()
        assert (difference < 1e-4).double().mean() > 0.995
        assert difference.max() <= 2 * 4 * LR


@pytest.mark.parametrize(
    "overrides", [{"depth": 1}, {"grad_factor": 0.5}, {"n_groups": 14, "n_classes": 5}]
)
def test_other_networks_train_as_in_plain_torch(
    relaxation: Relaxation, overrides: dict[str, int]
) -> None:
    case, order = make_case(relaxation, **overrides), orders(4, 70)
    losses = Trained.of(case).steps(order)
    assert losses == pytest.approx(in_plain_torch(case, order)[1], rel=1e-5)


def test_a_long_run_follows_plain_torch_until_rounding_parts_them(relaxation: Relaxation) -> None:
    case, order = make_case(relaxation), orders(60, 64)
    losses = Trained.of(case).steps(order)
    assert losses == pytest.approx(in_plain_torch(case, order)[1], rel=1e-2)


def test_the_number_of_threads_changes_no_bit_of_a_run(case: Case) -> None:
    before, results = torch.get_num_threads(), []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        trained = Trained.of(case)
        trained.steps(orders(5, 130))
        results.append(trained.everything())
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


def test_where_a_run_is_cut_changes_no_bit(case: Case) -> None:
    order = orders(7, 65)
    whole, parts = Trained.of(case), Trained.of(case)
    whole.steps(order)
    for first, last in ((0, 1), (1, 4), (4, 7)):
        parts.steps(order[first:last], first)
    assert all(map(torch.equal, whole.everything(), parts.everything()))


RULE = AdamRule(LR, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.5)
RATES = [0.05, 0.02, 0.0, 0.08]


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("batch", [9, 130])
def test_steps_are_those_of_adamw_on_the_mean_over_draws(
    relaxation: Relaxation, draws: int, batch: int
) -> None:
    """A large epsilon, so that moves are about as large as gradients and rounding decides nothing."""
    case, order = make_case(relaxation), orders(len(RATES), batch)
    trained, key = Trained.of(case, RULE, draws), NoiseKey(9, Purpose.TRAINING, 30)
    got = trained.run.run(order, key, steps_done=0, lrs=RATES).tolist()
    model, (x, y) = copy.deepcopy(case.model), data(case)
    constants = {"betas": RULE.betas, "eps": RULE.eps, "weight_decay": RULE.weight_decay}
    optimiser = torch.optim.AdamW(model.parameters(), lr=LR, **constants)  # type: ignore[arg-type]
    losses = []
    for step, chosen in enumerate(order):
        optimiser.param_groups[0]["lr"] = RATES[step]
        keys = [NoiseKey(9, Purpose.TRAINING, 30 + step * draws + m) for m in range(draws)]
        outputs = [model(x[chosen], draw=one) for one in keys]
        loss = torch.stack([functional.cross_entropy(o, y[chosen]) for o in outputs]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert got == pytest.approx(losses, rel=1e-5)
    for z, moments, parameter in zip(
        trained.logits, trained.moments, model.parameters(), strict=True
    ):
        torch.testing.assert_close(z, parameter.detach(), rtol=1e-4, atol=1e-4)
        state = optimiser.state[parameter]
        for moment, name in ((moments.mean, "exp_avg"), (moments.square, "exp_avg_sq")):
            largest = float(state[name].abs().max())
            torch.testing.assert_close(moment, state[name], rtol=1e-3, atol=1e-4 * largest)


def test_steps_of_several_draws_can_be_cut_and_shared_out(relaxation: Relaxation) -> None:
    case, order, before = make_case(relaxation), orders(4, 65), torch.get_num_threads()
    whole, parts = Trained.of(case, draws=2), Trained.of(case, draws=2)
    whole.run.run(order, NoiseKey(9, Purpose.TRAINING), steps_done=0, lrs=RATES)
    torch.set_num_threads(3)
    for first, last in ((0, 1), (1, 4)):
        key = NoiseKey(9, Purpose.TRAINING, 2 * first)
        parts.run.run(order[first:last], key, steps_done=first, lrs=RATES[first:last])
    torch.set_num_threads(before)
    assert all(map(torch.equal, whole.everything(), parts.everything()))


def test_a_power_of_two_in_gradient_and_epsilon_changes_no_bit_of_the_logits(case: Case) -> None:
    order, scale = orders(5, 70), 2.0**27
    plain = Trained.of(case, AdamRule(LR, eps=1e-8, weight_decay=0.1))
    rule = AdamRule(LR, eps=1e-8 * scale, weight_decay=0.1, gradient_scale=scale)
    scaled = Trained.of(case, rule)
    assert plain.steps(order) == scaled.steps(order)
    for one, other in zip(plain.moments, scaled.moments, strict=True):
        assert torch.equal(one.mean * scale, other.mean)
        assert torch.equal(one.square * scale**2, other.square)
    assert all(map(torch.equal, plain.logits, scaled.logits))


@pytest.mark.parametrize("lrs", [[0.1], [0.1, -0.1], [0.1, float("inf")]])
def test_learning_rates_that_do_not_fit_are_refused(lrs: list[float]) -> None:
    trained = Trained.of(make_case(GumbelST()))
    with pytest.raises(InvalidInputError, match="lrs must hold 2 finite numbers, none below zero"):
        trained.run.run(orders(2, 9), NoiseKey(9, Purpose.TRAINING), steps_done=0, lrs=lrs)


TAUS = [2.0, 0.7, 0.4, 0.3, 1.1]
GIVEN = pytest.mark.parametrize(
    "relaxation", [k() for k in FUSED.values() if not k.adaptive], ids=lambda r: r.name
)


@GIVEN
def test_each_step_has_the_temperature_it_is_given(relaxation: Relaxation) -> None:
    case, order = make_case(relaxation), orders(5, 70)
    trained, key = Trained.of(case), NoiseKey(9, Purpose.TRAINING)
    got = trained.run.run(order, key, steps_done=0, taus=TAUS).tolist()
    model, (x, y) = copy.deepcopy(case.model), data(case)
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=LR), []
    for step, (chosen, tau) in enumerate(zip(order, TAUS, strict=True)):
        model.set_tau(tau)
        outputs = model(x[chosen], draw=NoiseKey(9, Purpose.TRAINING, step))
        loss = functional.cross_entropy(outputs, y[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert got == pytest.approx(losses, rel=1e-5)
    for moments, parameter in zip(trained.moments, model.parameters(), strict=True):
        # The mean of gradients shows their temperatures; a logit that Adam moves hardly does.
        mean = optimiser.state[parameter]["exp_avg"]
        torch.testing.assert_close(
            moments.mean, mean, rtol=1e-3, atol=1e-3 * float(mean.abs().max())
        )


@GIVEN
def test_steps_at_given_temperatures_can_be_cut_and_shared_out(relaxation: Relaxation) -> None:
    case, order = make_case(relaxation), orders(5, 65)
    key, before = NoiseKey(9, Purpose.TRAINING), torch.get_num_threads()
    whole, parts = Trained.of(case), Trained.of(case)
    whole.run.run(order, key, steps_done=0, taus=TAUS)
    torch.set_num_threads(3)
    for first, last in ((0, 2), (2, 5)):
        key = NoiseKey(9, Purpose.TRAINING, first)
        parts.run.run(order[first:last], key, steps_done=first, taus=TAUS[first:last])
    torch.set_num_threads(before)
    assert all(map(torch.equal, whole.everything(), parts.everything()))


@GIVEN
def test_the_relaxations_own_temperature_given_changes_no_bit(relaxation: Relaxation) -> None:
    case, order = make_case(relaxation), orders(3, 65)
    plain, given = Trained.of(case), Trained.of(case)
    plain.steps(order)
    key = NoiseKey(9, Purpose.TRAINING)
    given.run.run(order, key, steps_done=0, taus=[case.model.relaxation.tau] * 3)
    assert all(map(torch.equal, plain.everything(), given.everything()))


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_run_of_cage_moves_confidence_and_gradient_as_plain_torch_does(decay: float) -> None:
    case, order = make_case(CAGE(0.8, tau_max=4.0, tau_min=0.3, decay=decay)), orders(6, 70)
    trained = Trained.of(case)
    for first, last in ((0, 1), (1, 6)):
        trained.steps(order[first:last], first)
    model, (x, y) = copy.deepcopy(case.model), data(case)
    optimiser = torch.optim.Adam(model.parameters(), lr=LR)
    for chosen in order:
        optimiser.zero_grad()
        functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimiser.step()
    for got, layer in zip(trained.run._network.confidences, model.layers, strict=True):
        torch.testing.assert_close(got, layer.confidence, rtol=1e-5, atol=0)
    for moments, parameter in zip(trained.moments, model.parameters(), strict=True):
        mean = optimiser.state[parameter]["exp_avg"]
        torch.testing.assert_close(
            moments.mean, mean, rtol=1e-3, atol=1e-3 * float(mean.abs().max())
        )


def test_confidence_is_shared_out_and_cut_to_the_same_bits() -> None:
    order, before, results = orders(5, 65), torch.get_num_threads(), []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        trained = Trained.of(make_case(CAGE(decay=0.5)))
        trained.steps(order[:n])
        trained.steps(order[n:], n)
        results.append([*trained.everything(), *trained.run._network.confidences])
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


@pytest.mark.parametrize("taus", [[1.0], [1.0, 0.0], [1.0, float("nan")]])
def test_temperatures_that_do_not_fit_are_refused(taus: list[float]) -> None:
    trained = Trained.of(make_case(GumbelST()))
    with pytest.raises(
        InvalidInputError, match="taus must hold 2 finite numbers above zero, one a"
    ):
        trained.run.run(orders(2, 9), NoiseKey(9, Purpose.TRAINING), steps_done=0, taus=taus)


def test_cage_takes_no_temperatures_and_needs_confidences() -> None:
    case, order = make_case(CAGE()), orders(1, 9)
    key = NoiseKey(9, Purpose.TRAINING)
    with pytest.raises(InvalidInputError, match="CAGE finds its own temperatures; leave taus out"):
        Trained.of(case).run.run(order, key, steps_done=0, taus=[1.0])
    trained = Trained.of(case)
    trained.run._network = case.plain
    with pytest.raises(InvalidInputError, match="CAGE needs the confidences of 3 layers, got 0"):
        trained.run.run(order, key, steps_done=0)


def test_logits_that_a_graph_still_needs_are_marked_as_changed(case: Case) -> None:
    trained = Trained.of(case)
    needed = trained.logits[0].clone().requires_grad_()
    versions = [z._version for z in trained.logits]
    trained.steps(orders(1, 64))
    assert [z._version for z in trained.logits] > versions
    assert needed.grad is None


def test_samples_are_packed_a_row_each() -> None:
    case = make_case(GumbelST())
    x = case.bits(70)
    assert torch.equal(cpu.pack_bits(x), reference.pack_bits(x))


@pytest.mark.parametrize("label", [-1, 5])
def test_labels_and_samples_out_of_range_are_refused(label: int) -> None:
    case = make_case(GumbelST())
    trained = Trained.of(case)
    x, y = data(case)
    y[7] = label
    samples = cpu.PackedSamples(cpu.pack_bits(x), case.model.n_features)
    with pytest.raises(InvalidInputError, match=r"labels must lie in 0..4, got"):
        cpu.TrainingRun(case.network, trained.logits, trained.moments, samples, y, AdamRule(LR))
    with pytest.raises(InvalidInputError, match=r"sample numbers must lie in 0..1099, got"):
        trained.steps(torch.full((1, 4), 1100))


def test_logits_in_pieces_are_refused() -> None:
    case = make_case(GumbelST())
    trained = Trained.of(case)
    x, y = data(case)
    samples = cpu.PackedSamples(cpu.pack_bits(x), case.model.n_features)
    pieces = [z.T.contiguous().T for z in trained.logits]
    with pytest.raises(InvalidInputError, match="contiguous"):
        cpu.TrainingRun(case.network, pieces, trained.moments, samples, y, AdamRule(LR))


def test_wiring_that_reads_what_is_not_there_is_refused() -> None:
    case = make_case(GumbelST())
    case.network.wirings[1][0, 3] = 70
    with pytest.raises(
        InvalidInputError, match=r"layer 1 reads input 70, and it has inputs 0\.\.69"
    ):
        cpu.training_forward(case.network, case.logits, case.bits(3), case.key)
