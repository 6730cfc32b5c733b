"""Tiny data and tiny networks, float64 unless a test is about another dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from lgn_analysis.data import Dataset
from lgn_analysis.experiments import find_preset, run_sweep
from lgn_analysis.experiments.discovery import all_specs
from lgn_analysis.gates.relaxations import RELAXATIONS, Relaxation
from lgn_analysis.network import LogicNetwork
from tests.experiments.serial import Serial
from tests.tiny import NetworkFactory

# The same examples in every run, and no deadline that a busy machine could miss.
settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")


@pytest.fixture(params=RELAXATIONS)
def relaxation(request: pytest.FixtureRequest) -> Relaxation:
    """Each of the five relaxations, at tau 1."""
    return RELAXATIONS[request.param](1.0)


@pytest.fixture
def make_network() -> NetworkFactory:
    """Build a network of 3 × 12 gates on 9 bits, three classes; keywords override."""

    def build(**overrides: Any) -> LogicNetwork:
        arguments: dict[str, Any] = {
            "n_features": 9,
            "width": 12,
            "depth": 3,
            "n_classes": 3,
            "group_tau": 1.5,
            "seed": 5,
            "dtype": torch.float64,
        }
        return LogicNetwork(**arguments | overrides)

    return build


def _separable(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes on 12 bits: class k sets bits 4k..4k+3, and 5 % of all bits are flipped."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    x = (torch.arange(12) // 4) == y[:, None]
    return x ^ (torch.rand(n, 12, generator=generator) < 0.05), y


@pytest.fixture(scope="session")
def separable_data() -> Dataset:
    """A small problem that a small network learns."""
    parts = [array for n, seed in ((90, 1), (45, 2), (45, 3)) for array in _separable(n, seed)]
    return Dataset.from_arrays(*parts, name="separable")


@pytest.fixture
def numbered_data() -> Dataset:
    """50 samples, each a different pattern of six bits: its own number."""
    x = (torch.arange(50)[:, None] >> torch.arange(6)) & 1
    y = torch.arange(50) % 3
    return Dataset.from_arrays(x, y, x, y, x, y, name="numbered")


@pytest.fixture(scope="session")
def smoke_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished runs of the preset ``smoke``; tests that share them belong to one xdist group."""
    cache = tmp_path_factory.mktemp("smoke")
    run_sweep(all_specs(find_preset("smoke")), cache=cache, executor=Serial(), progress=False)
    return cache
