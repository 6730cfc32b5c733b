"""Second derivatives of the soft loss, against the reference in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import NoiseKey, Purpose, random_signs
from lgn_analysis.gates.relaxations import Soft
from lgn_analysis.gates.table import gate_coefficients
from lgn_analysis.kernels import cuda, reference
from lgn_analysis.kernels.cuda.curvature.signs import forward_signs, length_factors
from lgn_analysis.kernels.cuda.curvature.tangents import Inputs
from lgn_analysis.kernels.cuda.logits import Draw
from lgn_analysis.kernels.cuda.runtime.layout import Consumers
from lgn_analysis.kernels.interface import NetworkSpec, Weight, length_scales

N_FEATURES, N_CLASSES, SEED, FIRST = 7, 5, 2**64 - 5, 2**32 + 3
RTOL = {torch.float32: 1e-5, torch.float64: 1e-12}

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(outputs: Tensor, weights: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, weights.argmax(1))


def linear(outputs: Tensor, weights: Tensor) -> Tensor:
    """A loss without curvature of its own; the network's is left."""
    return (outputs * weights).sum()


def cubic(outputs: Tensor, weights: Tensor) -> Tensor:
    """A loss whose Hessian is dense and not convex."""
    return ((outputs * weights).sum(1) ** 3).sum()


@dataclass(frozen=True)
class Case:
    """A network, samples and a loss; gates 0 and 1 of every layer have A == B."""

    batch: int = 65
    layers: tuple[int, ...] = (0, 1, 2)
    dtype: torch.dtype = torch.float64
    widths: tuple[int, ...] = (10, 10, 10)
    bits: bool = True
    tau: float = 0.7
    group_tau: float = 3.0
    loss: Loss = cross_entropy

    def make(
        self, device: torch.device | str, *, fast: bool, dtype: torch.dtype | None = None
    ) -> cuda.Curvature | reference.Curvature:
        """Return the kernels' curvature, or the reference's."""
        generator = torch.Generator().manual_seed(3)
        wirings, n_in = [], N_FEATURES
        for width in self.widths:
            # The last input is read by no gate.
            wiring = torch.randint(n_in - 1, (2, width), generator=generator)
            wiring[1, :2] = wiring[0, :2]
            wirings.append(wiring.to(device))
            n_in = width
        network = NetworkSpec(tuple(wirings), N_FEATURES, Soft(), N_CLASSES, self.group_tau, 1.3)
        dtype = dtype or self.dtype
        # Of the dtype under test, so that both see the same numbers.
        logits = [torch.randn(n, 16, generator=generator).to(self.dtype) for n in self.widths]
        x = torch.rand(self.batch, N_FEATURES, generator=generator)
        weights = torch.randn(self.batch, N_CLASSES, generator=generator).to(device, dtype)
        kind = cuda.Curvature if fast else reference.Curvature
        return kind(
            network,
            [z.to(device, dtype) for z in logits],
            (x < 0.5 if self.bits else x).to(device),
            lambda outputs: self.loss(outputs, weights),
            tau=self.tau,
            layers=self.layers,
        )

    def both(self, device: torch.device) -> tuple[cuda.Curvature, reference.Curvature]:
        """Return the kernels' curvature, and the reference's in float64 on the CPU."""
        fast = self.make(device, fast=True)
        slow = self.make("cpu", fast=False, dtype=torch.float64)
        assert isinstance(fast, cuda.Curvature)
        assert isinstance(slow, reference.Curvature)
        return fast, slow

    def directions(self, k: int) -> Tensor:
        n = 16 * sum(self.widths[layer] for layer in self.layers)
        generator = torch.Generator().manual_seed(k)
        return torch.randn(k, n, generator=generator, dtype=torch.float64)


CASES = {
    "all layers": (Case(batch=31), 3),
    "two of three layers": (Case(layers=(1, 2), tau=0.3), 1),
    "all layers, float32": (Case(dtype=torch.float32, batch=63), 5),
    "many rows and samples, float32": (
        Case(dtype=torch.float32, batch=130, widths=(20, 20), layers=(0, 1)),
        1,
    ),
    "one sample": (Case(batch=1, widths=(15, 15), layers=(0, 1)), 2),
    "real inputs": (Case(batch=33, bits=False, layers=(0, 1), widths=(10, 10)), 2),
    "the first layer": (Case(batch=5, layers=(0,), tau=1.9), 1),
    "a layer in the middle": (Case(batch=9, layers=(1,), widths=(9, 11, 10), group_tau=0.5), 1),
    "the last layer, float32": (Case(layers=(2,), dtype=torch.float32, batch=7), 4),
    "with a gap": (Case(batch=9, layers=(0, 2), bits=False), 1),
    "a single layer": (Case(batch=64, layers=(0,), widths=(15,)), 1),
    "a linear loss": (Case(batch=9, layers=(0, 1), widths=(10, 10), loss=linear), 1),
    "a linear loss of one layer": (Case(batch=3, layers=(0,), widths=(10,), loss=linear), 1),
    "a cubic loss": (Case(batch=9, layers=(0, 1), widths=(10, 10), loss=cubic), 1),
}


def assert_near(got: Tensor, expected: Tensor, rtol: float) -> None:
    """Compare in norm: a cancelled entry has no digits of its own."""
    assert got.dtype == torch.float64
    assert got.shape == expected.shape
    error = float((got.cpu() - expected).norm())
    assert error <= rtol * float(expected.norm()) + 1e-300


@pytest.mark.parametrize("name", CASES)
def test_loss_slopes_and_products_are_the_reference(name: str, device: torch.device) -> None:
    case, k = CASES[name]
    fast, slow = case.both(device)
    rtol = RTOL[case.dtype]
    assert fast.loss == pytest.approx(slow.loss, rel=rtol)
    assert_near(fast.slopes, slow.slopes, rtol)
    rows = case.directions(k)
    assert_near(fast.products(rows.to(device)), slow.products(rows), rtol)


@pytest.mark.parametrize("weight", get_args(Weight))
@pytest.mark.parametrize("name", CASES)
def test_activation_products_are_the_reference(
    name: str, weight: Weight, device: torch.device
) -> None:
    case, k = CASES[name]
    fast, slow = case.both(device)
    got, wanted = (side.activation_products(SEED, FIRST, k, weight=weight) for side in (fast, slow))
    for mine, theirs in zip(got, wanted, strict=True):
        assert_near(mine, theirs, RTOL[case.dtype])


def test_signs_are_those_of_every_backend(device: torch.device) -> None:
    n, batch, layer = 19, 130, 6
    wiring = torch.zeros(2, n, dtype=torch.int64, device=device)
    values = torch.rand(1, batch, device=device)
    inputs = Inputs(values, Consumers.of(wiring, 1), batch)
    factors = torch.eye(1, 10, device=device).repeat(n, 1)  # √q = 1
    coefficients = torch.zeros(n, 4, device=device)
    for first, k in ((0, 4), (2**33 - 3, 2), (7, 1)):
        key = NoiseKey(SEED, Purpose.SIGNS, first)
        got = forward_signs(inputs, None, coefficients, factors, Draw.of(key, device), layer, k)
        for place in range(k):
            key = NoiseKey(SEED, Purpose.SIGNS, first + place)
            assert torch.equal(got[:, place], random_signs(key, layer, n, batch, device=device))


@pytest.mark.parametrize("weight", get_args(Weight))
@pytest.mark.parametrize("sharpness", [1.0, 30.0, 3000.0])
def test_the_triangular_factor_has_the_length_of_the_spread(
    sharpness: float, weight: Weight, device: torch.device
) -> None:
    """Up to gates of which one has all the weight, where the length is zero."""
    generator = torch.Generator().manual_seed(4)
    z = sharpness * torch.randn(40, 16, generator=generator, dtype=torch.float64)
    weights = torch.softmax(z, -1).to(device)
    r = length_factors(weights, length_scales(weights, 0.7, weight), torch.float64)
    a, b = torch.rand(2, 40, generator=generator, dtype=torch.float64).round(decimals=1).to(device)
    basis = torch.stack([torch.ones_like(a), a, b, a * b], dim=-1)
    lines = [
        r[:, 0:4] * basis,
        r[:, 4:7] * basis[:, 1:],
        r[:, 7:9] * basis[:, 2:],
        r[:, 9:] * basis[:, 3:],
    ]
    got = torch.stack([line.sum(-1) for line in lines]).norm(dim=0)
    gates = basis @ reference.COEFFICIENTS.to(weights).T
    y = (basis * gate_coefficients(weights)).sum(-1, keepdim=True)
    expected = (weights * (gates - y)).norm(dim=-1) / 0.7
    if weight == "variance":
        expected = (weights * (gates - y).square()).sum(-1).sqrt()
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)


def test_a_constant_along_a_gate_changes_nothing(device: torch.device) -> None:
    case = Case(batch=9, layers=(0, 1), widths=(10, 10))
    fast, _ = case.both(device)
    scale = float(fast.products(case.directions(1).to(device)).norm())
    shift = torch.randn(1, 20, 1, generator=torch.Generator().manual_seed(5))
    rows = shift.expand(1, 20, 16).reshape(1, -1).double().to(device)
    assert float(fast.products(rows).norm()) <= 1e-14 * scale


def test_products_are_the_same_bits_again_and_in_company(device: torch.device) -> None:
    """A direction's product depends neither on what was computed before nor on its neighbours."""
    case = Case(batch=9, layers=(1,), widths=(10, 10), dtype=torch.float32)
    fast = case.make(device, fast=True)
    rows = case.directions(2).to(device)
    together = fast.products(rows)
    assert torch.equal(fast.products(rows), together)
    assert_near(fast.products(rows[1:]), together[1:].cpu(), 1e-5)
    assert torch.equal(fast.products(rows[:0]), together[:0])
    for few in (rows[:1], rows):  # columns of a matrix, as `matmat` has them
        assert torch.equal(fast.products(few.T.contiguous().T), fast.products(few))
    probes, again, second = (
        fast.activation_products(1, *draws) for draws in ((0, 2), (0, 2), (1, 1))
    )
    for both, same, one in zip(probes, again, second, strict=True):
        assert torch.equal(same, both)
        assert_near(one, both[1:].cpu(), 1e-5)


def test_what_cannot_be_is_refused(device: torch.device) -> None:
    case = Case(batch=3, layers=(0,), widths=(10,))
    with pytest.raises(InvalidInputError, match=r"float32 or float64 logits, not torch.bfloat16"):
        case.make(device, fast=True, dtype=torch.bfloat16)
    with pytest.raises(InvalidInputError, match=r"signs have draws 0..2\*\*33-1, got 8589934592"):
        case.make(device, fast=True).activation_products(0, 2**33 - 1, 2)
