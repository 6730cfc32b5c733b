"""An accuracy is a number of hits over a number of samples, whatever the batches were."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.metrics import evaluate
from lgn_analysis.network import LogicNetwork
from tests.properties.strategies import Spec, specs, temperatures


def first_of_the_largest(outputs: Tensor) -> list[int]:
    return [max(range(len(row)), key=row.__getitem__) for row in outputs.tolist()]


def hits(predicted: list[int], y: Tensor) -> int:
    return sum(a == b for a, b in zip(predicted, y.tolist(), strict=True))


def predictions(model: LogicNetwork, x: Tensor, mode: str, draw: int = 0) -> list[int]:
    key = NoiseKey(model.seed, Purpose.EVALUATION, draw)
    with torch.no_grad():
        return first_of_the_largest(model(x, mode=mode, draw=key))


@given(
    spec=specs(group_taus=temperatures(-2, 3), most_group_size=8),
    n=st.integers(1, 200),
    batch_size=st.integers(1, 210),
    noise_draws=st.integers(1, 3),
)
@settings(max_examples=60)
def test_accuracies_are_exact_ratios_and_flips_are_counted(
    spec: Spec, n: int, batch_size: int, noise_draws: int
) -> None:
    model, x, y = spec.build("cpu"), spec.bits(n), spec.labels(n)
    result = evaluate(model, (x, y), batch_size=batch_size, noise_draws=noise_draws)
    soft, discrete = (predictions(model, x, mode) for mode in ("soft", "discrete"))
    assert result.n == n
    for accuracy, predicted in (
        (result.soft_accuracy, soft),
        (result.discrete_accuracy, discrete),
    ):
        assert accuracy == float(Fraction(hits(predicted, y), n))
        assert Fraction(accuracy).limit_denominator(n) == Fraction(hits(predicted, y), n)
    assert result.gap == result.soft_accuracy - result.discrete_accuracy
    assert result.flips == sum(a != b for a, b in zip(soft, discrete, strict=True))
    if spec.relaxation.noisy:
        total = sum(hits(predictions(model, x, "noisy", d), y) for d in range(noise_draws))
        assert result.noisy_accuracy == float(Fraction(total, n * noise_draws))
    else:
        assert math.isnan(result.noisy_accuracy)


@given(spec=specs(most_group_size=8), n=st.integers(2, 150), cut=st.integers(1, 149))
@settings(max_examples=30)
def test_a_whole_is_its_parts_weighted_by_their_samples(spec: Spec, n: int, cut: int) -> None:
    cut = 1 + cut % (n - 1)
    model, x, y = spec.build("cpu"), spec.bits(n), spec.labels(n)
    whole, *parts = (
        evaluate(model, part, noise_draws=1)
        for part in ((x, y), (x[:cut], y[:cut]), (x[cut:], y[cut:]))
    )
    for name in ("soft_accuracy", "discrete_accuracy"):
        counts = [round(getattr(part, name) * part.n) for part in parts]
        assert getattr(whole, name) == float(Fraction(sum(counts), n))
    for name in ("soft_loss", "discrete_loss"):
        mean = sum(getattr(part, name) * part.n for part in parts) / n
        assert math.isclose(getattr(whole, name), mean, rel_tol=1e-12, abs_tol=1e-15)
    assert whole.flips == sum(part.flips for part in parts)
