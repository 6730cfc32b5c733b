"""Small networks, float32, and a way to have any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import CAGE, Relaxation
from lgn_analysis.kernels.cpu.runtime import thread_count, threads
from lgn_analysis.kernels.interface import NetworkSpec
from lgn_analysis.network import LogicNetwork

BATCHES = (1, 63, 64, 65, 127, 128, 130, 1000)
KEY = NoiseKey(2**64 - 5, Purpose.TRAINING, 2**63 + 11)


@dataclass(frozen=True)
class Case:
    """A network with A == B gates, unread rows and rows that many gates read, and what runs it."""

    model: LogicNetwork
    plain: NetworkSpec

    @property
    def network(self) -> NetworkSpec:
        """The pass; with CAGE it has the temperatures of the model's last training forward."""
        relaxation = self.model.relaxation
        if not isinstance(relaxation, CAGE):
            return self.plain
        confidences = [layer.confidence.clone() for layer in self.model.layers]
        taus = tuple(float(relaxation.backward_tau(c)) for c in confidences)
        return replace(self.plain, taus=taus, confidences=tuple(confidences))

    @property
    def logits(self) -> list[Tensor]:
        return [layer.logits for layer in self.model.layers]

    @property
    def key(self) -> NoiseKey | None:
        return KEY if self.model.relaxation.noisy else None

    def bits(self, batch: int) -> Tensor:
        generator = torch.Generator().manual_seed(batch)
        return torch.rand(batch, self.model.n_features, generator=generator) < 0.5


def make_case(relaxation: Relaxation, **overrides: Any) -> Case:
    """A network of 3 × 70 gates on 41 bits: no size is a multiple of a vector's."""
    arguments: dict[str, Any] = {
        "n_features": 41,
        "width": 70,
        "depth": 3,
        "n_classes": 5,
        "group_tau": 2.5,
        "seed": 3,
        "dtype": torch.float32,
        "backend": "reference",
    }
    model = LogicNetwork(**arguments | overrides, relaxation=relaxation).train()
    for layer in model.layers:
        wiring = layer.wiring
        wiring[1, :6] = wiring[0, :6]
        wiring[0, 20:30] = 2
        wiring[wiring == 1] = 0
    network = NetworkSpec(
        wirings=tuple(layer.wiring for layer in model.layers),
        n_features=model.n_features,
        relaxation=relaxation,
        parametrisation=model.parametrisation,
        n_groups=model.group_sum.n_groups,
        group_tau=model.group_sum.group_tau,
        grad_factor=model.config["grad_factor"],
    )
    return Case(model, network)


@pytest.fixture
def case(relaxation: Relaxation) -> Case:
    return make_case(relaxation)


@pytest.fixture(autouse=True)
def small_work_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks here are too small for two threads; the tests want them all the same."""
    monkeypatch.setattr(threads, "MIN_SHARD", 1e-9)
    monkeypatch.setattr(threads, "MIN_TOTAL", 0)
    monkeypatch.setattr(thread_count, "TRIAL_SHARE", 0.0)


@pytest.fixture(params=[1, 2, 3])
def n_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
