"""A network under torch's tracers and transforms: the same function, or a refusal by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.relaxations import Relaxation
from lgn_analysis.network import LogicNetwork
from tests.tiny import random_bits

# Said by torch of its own trace, and of looking at values while it traces.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.trace:DeprecationWarning", "ignore::torch.jit.TracerWarning"
)
X = random_bits(20, 9)


class Soft(nn.Module):
    def __init__(self, network: LogicNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.network(x, mode="soft")
        return outputs


def export(module: nn.Module, x: Tensor) -> Any:
    return torch.export.export(module, (x,), strict=False).module()


def trace(module: nn.Module, x: Tensor) -> Any:
    return torch.jit.trace(module, (x,), check_trace=False)


def network(relaxation: Relaxation) -> LogicNetwork:
    return LogicNetwork(9, 12, 2, 3, 1.5, seed=3, relaxation=relaxation)


@pytest.mark.parametrize("tracer", [export, trace])
@pytest.mark.parametrize("values", [X, X.float()], ids=["bool", "float"])
@pytest.mark.parametrize("mode", ["soft", "discrete", "train"])
def test_a_traced_network_is_the_network(
    relaxation: Relaxation, mode: str, values: Tensor, tracer: Any
) -> None:
    model = network(relaxation).train(mode == "train")
    module = Soft(model) if mode == "soft" else model
    if mode == "train" and relaxation.noisy:
        with pytest.raises(InvalidInputError, match="would draw the same noise in every call"):
            tracer(module, values)
        return
    program = tracer(module, values)
    other = random_bits(20, 9, seed=1).to(values.dtype)
    torch.testing.assert_close(program(other), module(other), rtol=1e-5, atol=1e-5)


def test_an_exported_discrete_network_refuses_what_is_no_bit(relaxation: Relaxation) -> None:
    program = export(network(relaxation).eval(), X.float())
    with pytest.raises(RuntimeError, match="discrete mode works on bits"):
        program(0.5 * X.float())


def test_vmap_takes_bits_in_discrete_mode(relaxation: Relaxation) -> None:
    model = network(relaxation).eval()
    assert torch.equal(torch.vmap(model)(X), model(X))
