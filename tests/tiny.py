"""Small inputs, networks and runs for the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lgn_analysis.data import Dataset
from lgn_analysis.gates.relaxations import Relaxation
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training import TrainResult, train

NetworkFactory = Callable[..., LogicNetwork]


def random_bits(*shape: int, seed: int = 0) -> Tensor:
    """Return fair coin flips, bool."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5


def random_reals(*shape: int, seed: int = 0) -> Tensor:
    """Return uniform float64 in [0, 1]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


EVALUATED = [0, 7, 14, 21, 28, 30]


def fresh(relaxation: Relaxation | None = None, **overrides: Any) -> LogicNetwork:
    """A network for the separable data, always the same one."""
    arguments: dict[str, Any] = {"width": 30, "depth": 2, "group_tau": 2.0, "seed": 1}
    return LogicNetwork(12, n_classes=3, relaxation=relaxation, **arguments | overrides)


def short(model: LogicNetwork, data: Dataset, **overrides: Any) -> TrainResult:
    """30 steps, evaluated at :data:`EVALUATED`; batches of 20 make an epoch of four steps."""
    arguments: dict[str, Any] = {"steps": 30, "batch_size": 20, "eval_every": 7, "lr": 0.05}
    return train(model, data, progress=False, **arguments | overrides)


def timeless(history: pd.DataFrame) -> pd.DataFrame:
    return history.drop(columns="seconds")


def assert_same_weights(first: LogicNetwork, second: LogicNetwork) -> None:
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
