"""Options of the optimiser: epsilon, decay, learning rate over the steps, draws of a step."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import lr_scheduler

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.data import Dataset
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import RELAXATIONS
from lgn_analysis.training.config import TrainingConfig
from lgn_analysis.training.optimiser import LrSchedule, gradient_scale
from lgn_analysis.training.run_directory import RunDirectory
from lgn_analysis.training.stepper import Steps
from tests.tiny import random_bits

BACKENDS = pytest.mark.parametrize("backend", [None, "reference"])
OPTIONS: dict[str, dict[str, Any]] = {
    "epsilon": {"eps": 1e-4},
    "betas": {"betas": (0.7, 0.9)},
    "decay": {"weight_decay": 2.0},
    "cosine": {"lr_schedule": "cosine"},
    "warmup": {"warmup_steps": 15},
    "warmup by its old name": {"lr_schedule": "warmup", "warmup_steps": 3},
    "warmup, then cosine": {"lr_schedule": "cosine", "warmup_steps": 2},
    "warmup, then a longer cosine": {
        "lr_schedule": "cosine",
        "warmup_steps": 3,
        "cosine_steps": 30,
    },
    "draws": {"draws_per_step": 3},
}
RESUMED = ("epsilon", "betas", "decay", "cosine", "warmup, then cosine", "draws")
EACH = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def build(
    backend: str | None = None, relaxation: lgn.Relaxation | None = None, **sizes: Any
) -> Any:
    arguments = {"n_features": 12, "width": 24, "depth": 2, "n_classes": 3, "group_tau": 2.0}
    relaxation = relaxation or lgn.GumbelST()
    return lgn.LogicNetwork(**arguments | sizes, relaxation=relaxation, seed=1, backend=backend)


def samples(n: int = 96) -> tuple[Tensor, Tensor]:
    x = random_bits(n, 12, seed=5)
    return x, x[:, :2].sum(-1)


def run(model: Any, data: Dataset, steps: int = 24, **options: Any) -> Any:
    return lgn.train(
        model, data, **{"steps": steps, "batch_size": 20, "lr": 0.05, "progress": False} | options
    )


def logits(model: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def torch_scheduler(
    optimiser: torch.optim.Optimizer, config: TrainingConfig
) -> lr_scheduler.LRScheduler:
    """Return torch's scheduler of the same options."""
    warm = config.warmup_steps or 0
    if config.lr_schedule == "cosine":
        n_steps = config.cosine_steps or config.steps - warm
        then: Any = lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    else:
        then = lr_scheduler.ConstantLR(optimiser, 1.0)
    if not warm:
        return then
    rise = lr_scheduler.LinearLR(optimiser, 1 / warm, 1.0, warm - 1)
    return lr_scheduler.SequentialLR(optimiser, [rise, then], [warm])


@BACKENDS
@EACH
def test_training_is_torchs_adamw_with_these_options(
    backend: str | None, options: dict[str, Any], separable_data: Dataset
) -> None:
    model = build(backend, lgn.GumbelSoft())
    twin, steps = copy.deepcopy(model), 6
    result = run(model, separable_data, steps, eval_every=6, **options)
    config = TrainingConfig(steps=steps, batch_size=20, lr=0.05, **options)
    taken = Steps(
        twin, separable_data.x_train, separable_data.y_train, batch_size=20, lr=0.05, seed=0
    )
    optimiser = torch.optim.AdamW(
        twin.parameters(),
        lr=0.05,
        eps=config.eps,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )
    schedule = torch_scheduler(optimiser, config)
    losses, draws = [], config.draws_per_step
    twin.set_backend("reference")
    for step in range(steps):
        chosen = taken._batch(step)
        x, y = separable_data.x_train[chosen], separable_data.y_train[chosen]
        outputs = [
            twin(x, draw=NoiseKey(0, Purpose.TRAINING, step * draws + m)) for m in range(draws)
        ]
        loss = torch.stack([functional.cross_entropy(o, y) for o in outputs]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    assert result.history["loss"].iloc[-1] == pytest.approx(sum(losses) / steps, rel=1e-5)
    # Adam's first moves are as large as lr whatever the gradient: rounding decides the tiniest.
    difference = (logits(model) - logits(twin)).abs()
    assert (difference < 1e-4).double().mean() > 0.99


@BACKENDS
@pytest.mark.parametrize("options", [OPTIONS.get(name) for name in RESUMED], ids=RESUMED)
def test_a_run_resumes_to_the_same_bits(
    backend: str | None, options: dict[str, Any], separable_data: Dataset, tmp_path: Path
) -> None:
    whole, cut = build(backend), build(backend)
    run(whole, separable_data, eval_every=5, out=tmp_path / "whole", **options)

    def stop(step: int, model: Any, row: dict[str, Any]) -> None:
        if step == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cut, separable_data, eval_every=5, out=tmp_path / "cut", callbacks=[stop], **options)
    again, result = lgn.resume(tmp_path / "cut", data=separable_data, progress=False)
    assert torch.equal(logits(again), logits(whole))
    for name, value in options.items():
        assert getattr(result.config.training, name) == value
    one, other = (RunDirectory(tmp_path / name).read()[0].tensors for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("warm", [None, 4])
def test_a_cosine_run_that_is_resumed_for_more_steps_keeps_its_schedule(
    warm: int | None, separable_data: Dataset, tmp_path: Path
) -> None:
    options = {"lr_schedule": "cosine", "warmup_steps": warm}
    run(build(), separable_data, 10, **options, out=tmp_path / "run")
    before = lgn.load(tmp_path / "run" / "last.safetensors")
    after, result = lgn.resume(tmp_path / "run", data=separable_data, steps=15, progress=False)
    assert result.config.training.cosine_steps == 10 - (warm or 0)
    assert torch.equal(logits(before), logits(after))  # its learning rate is zero from step 10 on


DEEP = {"depth": 24, "width": 48}


def deep_in_float64(model: Any, eps: float, n_steps: int) -> tuple[Tensor, Tensor]:
    """Return the logits after AdamW in float64, and the root mean square of each layer's gradient."""
    wide, (x, y) = copy.deepcopy(model).double(), samples()
    order = Steps(model, x, y, batch_size=32, lr=0.05, seed=3)
    optimiser = torch.optim.AdamW(wide.parameters(), lr=0.05, eps=eps, weight_decay=0.0)
    for step in range(n_steps):
        chosen = order._batch(step)
        optimiser.zero_grad()
        functional.cross_entropy(wide(x[chosen]), y[chosen]).backward()
        optimiser.step()
    sizes = torch.stack([p.grad.square().mean().sqrt() for p in wide.parameters()])
    return logits(wide), sizes


@BACKENDS
@pytest.mark.parametrize("eps", [1e-16, 1e-20])
def test_a_deep_network_moves_as_in_float64_and_no_moment_is_denormal(
    backend: str | None, eps: float
) -> None:
    model, n_steps = build(backend, lgn.Soft(), **DEEP), 4
    start, (x, y) = logits(model), samples()
    expected, sizes = deep_in_float64(model, eps, n_steps)
    assert (sizes**2).min() < 1e-30  # squares that weight 1e-3 takes towards the edge of float32
    steps = Steps(model, x, y, batch_size=32, lr=0.05, seed=3, eps=eps)
    steps.advance(0, n_steps, lambda n: None)
    moved = logits(model) - start
    torch.testing.assert_close(moved, (expected - start).float(), rtol=0.02, atol=2e-3 * 0.05)
    for state in steps.optimiser.state.values():
        for name in ("exp_avg", "exp_avg_sq"):
            size = state[name].abs()
            assert not bool(((size > 0) & (size < torch.finfo(torch.float32).tiny)).any())


@BACKENDS
def test_the_default_epsilon_holds_a_deep_network_where_it_is(backend: str | None) -> None:
    """What an epsilon is for: the first layer moves by lr at 1e-16 and hardly at 1e-8."""
    moves = {}
    for eps in (1e-8, 1e-16):
        model, (x, y) = build(backend, lgn.Soft(), depth=12, width=48), samples()
        start = model.layers[0].logits.detach().clone()
        Steps(model, x, y, batch_size=32, lr=0.05, seed=3, eps=eps).advance(0, 1, lambda n: None)
        moves[eps] = float((model.layers[0].logits.detach() - start).abs().median())
    assert moves[1e-8] < 1e-3 * 0.05
    assert moves[1e-16] > 0.5 * 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hooks_and_users_see_the_gradient_itself(dtype: torch.dtype) -> None:
    seen: dict[float, list[Tensor]] = {}
    for eps in (1e-8, 1e-16):
        model, (x, y) = build("reference").to(dtype), samples()
        seen[eps] = []
        parameter = model.layers[0].logits
        parameter.register_post_accumulate_grad_hook(
            lambda p, kept=seen[eps]: kept.append(p.grad.clone())
        )
        steps = Steps(model, x, y, batch_size=32, lr=0.05, seed=3, eps=eps)
        steps.advance(0, 1, lambda n: None)
        seen[eps].append(parameter.grad)
        assert torch.equal(steps.optimiser.state[parameter]["exp_avg"] != 0, parameter.grad != 0)
    for one, other in zip(*seen.values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("eps", [1.0, 1e-8, 9e-9, 1e-10, 1e-16, 1e-20, 1e-40])
def test_the_scale_is_a_power_of_two_that_brings_epsilon_to_its_usual_size(eps: float) -> None:
    scale = gradient_scale(eps)
    assert math.frexp(scale)[0] == 0.5
    if eps >= 1e-8 or eps < 1e-8 * 2.0**-40:
        assert scale == (1.0 if eps >= 1e-8 else 2.0**40)
    else:
        assert 2**-0.5 <= eps * scale / 1e-8 <= 2**0.5
    assert torch.tensor(eps * scale, dtype=torch.float32) >= torch.finfo(torch.float32).tiny


@pytest.mark.parametrize("kind", ["soft", "hard-st", "cage"])
def test_several_draws_of_no_noise_are_refused(kind: str, separable_data: Dataset) -> None:
    model = build(relaxation=RELAXATIONS[kind](1.0))
    with pytest.raises(
        InvalidInputError, match="draws no noise, so draws_per_step must be 1, got 2"
    ):
        run(model, separable_data, draws_per_step=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, "eps must be finite and above zero, got 0.0"),
        ({"eps": math.inf}, "eps must be finite and above zero, got inf"),
        ({"eps": 1e-49}, "eps must be at least 1e-48, below which float32 has no eps, got 1e-49"),
        ({"betas": 0.9}, "betas must be two numbers, got 0.9"),
        ({"betas": (0.9,)}, r"betas must be two numbers, got \(0.9,\)"),
        ({"betas": (0.9, 1.0)}, r"betas must lie in \[0, 1\), got \(0.9, 1.0\)"),
        ({"betas": (math.nan, 0.9)}, r"betas must lie in \[0, 1\)"),
        ({"betas": ("a", 0.9)}, "betas must be a number, got 'a'"),
        ({"weight_decay": -1.0}, "weight_decay must be finite and at least 0, got -1.0"),
        ({"weight_decay": math.nan}, "weight_decay must be finite and at least 0, got nan"),
        (
            {"lr_schedule": "step"},
            "unknown lr_schedule 'step'; use one of constant, cosine, warmup",
        ),
        ({"lr_schedule": "warmup"}, "lr_schedule 'warmup' needs warmup_steps, after which lr is"),
        (
            {"lr_schedule": "cosine", "steps": 30, "warmup_steps": 30},
            "warmup_steps 30 leave none of 30 steps to the cosine; give fewer, or cosine_steps",
        ),
        ({"cosine_steps": 3}, "cosine_steps is given and lr_schedule is constant; give lr_sched"),
        ({"lr_schedule": "warmup", "warmup_steps": 0}, "warmup_steps must be at least 1, got 0"),
        (
            {"lr_schedule": "warmup", "warmup_steps": 3, "cosine_steps": 4},
            "cosine_steps is given and lr_schedule is warmup; give lr_schedule cosine, or leave",
        ),
        ({"draws_per_step": 0}, "draws_per_step must be at least 1, got 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        TrainingConfig(**options)


@pytest.mark.parametrize(
    ("options", "schedule"),
    [
        ({}, None),
        ({"lr_schedule": "cosine"}, LrSchedule(0.2, 0, 100)),
        ({"lr_schedule": "cosine", "cosine_steps": 7}, LrSchedule(0.2, 0, 7)),
        ({"warmup_steps": 10}, LrSchedule(0.2, 10)),
        ({"lr_schedule": "warmup", "warmup_steps": 10}, LrSchedule(0.2, 10)),
        ({"lr_schedule": "cosine", "warmup_steps": 10}, LrSchedule(0.2, 10, 90)),
    ],
)
def test_options_of_a_run_make_its_schedule(
    options: dict[str, Any], schedule: LrSchedule | None
) -> None:
    assert TrainingConfig(steps=100, lr=0.2, **options).learning_rates == schedule


@pytest.mark.parametrize(
    "options",
    [
        {"warmup_steps": 2},
        {"warmup_steps": 100},
        {"lr_schedule": "cosine"},
        {"lr_schedule": "cosine", "warmup_steps": 7},
        {"lr_schedule": "cosine", "warmup_steps": 59},
    ],
    ids=str,
)
def test_every_rate_of_a_schedule_is_torchs(options: dict[str, Any]) -> None:
    config = TrainingConfig(steps=60, lr=0.2, **options)
    optimiser = torch.optim.AdamW([torch.zeros(1)], lr=0.2)
    scheduler = torch_scheduler(optimiser, config)
    expected = []
    for _ in range(config.steps):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    assert config.learning_rates is not None
    found = [config.learning_rates.at(step) for step in range(config.steps)]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)
