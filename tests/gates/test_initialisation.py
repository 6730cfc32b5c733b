"""How logits start."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.initialisation import INITIALISATIONS, initial_logits


def drawn(kind: str, n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return initial_logits(kind, n, generator=generator, dtype=dtype)


def test_normal_logits_are_standard_normal() -> None:
    """Kolmogorov-Smirnov on 32 000 values, false-alarm rate 1e-6."""
    logits = drawn("normal", 2000)
    assert logits.shape == (2000, 16)
    assert stats.kstest(logits.ravel().numpy(), stats.norm.cdf).pvalue > 1e-6


def test_float32_logits_are_the_rounded_float64_logits() -> None:
    narrow = drawn("normal", 50, dtype=torch.float32)
    assert torch.equal(narrow, drawn("normal", 50).float())


def test_residual_logits_pass_a_on_with_probability_0_908() -> None:
    p = drawn("residual", 3).softmax(-1)
    torch.testing.assert_close(p[:, 3], torch.full((3,), math.e**5 / (math.e**5 + 15)).double())
    assert p[0, 3].item() == pytest.approx(0.908, abs=5e-4)
    assert torch.equal(p[:, 0], p[:, 15])


def test_residual_initialisation_starts_below_the_unused_threshold() -> None:
    p = drawn("residual", 1).softmax(-1)
    assert -(p * p.log()).sum().item() == pytest.approx(0.555, abs=5e-4)


@pytest.mark.parametrize("kind", INITIALISATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_the_one_asked_for(kind: str, dtype: torch.dtype) -> None:
    assert drawn(kind, 2, dtype=dtype).dtype == dtype


def test_normal_logits_are_a_function_of_their_generator() -> None:
    assert torch.equal(drawn("normal", 5, seed=1), drawn("normal", 5, seed=1))
    assert not torch.equal(drawn("normal", 5, seed=1), drawn("normal", 5, seed=2))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="unknown init 'randn'; use one of normal, res"):
        drawn("randn", 2)
