"""The probe's Hessian at random shapes: finite differences, null directions, traces; float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from lgn_analysis.hessian import GumbelNoise, HessianProbe, NetworkHessian
from lgn_analysis.network import LogicNetwork
from tests.properties.analysis import Analysis
from tests.properties.roundoff import assert_within
from tests.properties.strategies import BACKENDS, LARGE, Spec, specs, temperatures

DOUBLE_U = 2.0**-53
SMALL = specs(
    taus=temperatures(-1, 1), most_depth=3, most_groups=3, most_group_size=3, most_features=7
)
TINY = specs(taus=temperatures(-1, 1), most_depth=2, most_groups=2, most_group_size=2)
SAMPLES = st.sampled_from([1, 7, 63, 64, 65])
NOISES = st.sampled_from([None, GumbelNoise(draws=2, seed=3)])


def probe_of(spec: Spec, batch: int, **options: Any) -> HessianProbe:
    backend = options.pop("backend", "cpu")
    data = spec.bits(batch), spec.labels(batch)
    return HessianProbe(spec.build(backend, torch.float64), data, **options)


def direction(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scale_of(probe: HessianProbe) -> float:
    """The size of what products are made of: ∂L/∂p over tau², and H itself.

    Gates that have all but chosen leave little of the first.
    """
    operator = probe.operator
    assert isinstance(operator, NetworkHessian)
    slopes = sum(float(piece.curvature.slopes.abs().max()) for piece in operator.pieces())
    return slopes / probe.model.relaxation.tau**2 + float(probe.dense().abs().max())  # type: ignore[operator, union-attr]


def soft_loss(model: LogicNetwork, x: Tensor, y: Tensor, flat: Tensor) -> Tensor:
    names, values = zip(*model.named_parameters(), strict=True)
    parts = flat.split([value.numel() for value in values])
    params = {n: p.view(v.shape) for n, p, v in zip(names, parts, values, strict=True)}
    return functional.cross_entropy(
        torch.func.functional_call(model, params, (x,), {"mode": "soft"}), y
    )


@given(SMALL, SAMPLES, NOISES, st.sampled_from(BACKENDS))
@settings(max_examples=40)
def test_products_are_finite_differences_of_gradients(
    spec: Spec, batch: int, noise: GumbelNoise | None, backend: str
) -> None:
    """Central, in steps h and 2h: h⁴ of the fifth derivative is left, which tau scales."""
    probe = probe_of(spec, batch, noise=noise, backend=backend)
    v = direction(probe.shape[0])
    h = 1e-3 * min(spec.relaxation.tau, 1.0) / float(v.abs().max())

    def slope(step: float) -> Tensor:
        ahead, behind = (probe.operator.displaced(s * step * v).gradient() for s in (1, -1))
        return (ahead - behind) / (2 * step)

    difference = (4 * slope(h) - slope(2 * h)) / 3
    # Rounding of a gradient over the step, and what is left of Taylor's series.
    size = scale_of(probe) * spec.relaxation.tau
    atol = 2**6 * DOUBLE_U * size / h + 1e-9 * float(difference.abs().max())
    torch.testing.assert_close(probe @ v, difference, rtol=0.0, atol=atol)


@given(SMALL, SAMPLES, NOISES)
@settings(max_examples=30)
def test_a_constant_on_all_sixteen_logits_of_a_gate_is_a_null_direction(
    spec: Spec, batch: int, noise: GumbelNoise | None
) -> None:
    """Trap 11; and a product with anything has no part along it."""
    probe = probe_of(spec, batch, noise=noise)
    n_gates = probe.shape[0] // 16
    gates = torch.eye(n_gates, dtype=torch.float64).repeat_interleave(16, 1)
    allowed = 2**6 * DOUBLE_U * scale_of(probe)  # Σ p − 1 is rounding alone
    assert float((probe @ gates.T).abs().max()) <= allowed
    total = (gates @ (probe @ direction(probe.shape[0]))).abs().max()
    assert float(total) <= math.sqrt(probe.shape[0]) * allowed


@given(TINY, SAMPLES, st.sampled_from(BACKENDS))
@settings(max_examples=20)
def test_unit_vectors_find_the_hessian_of_automatic_differentiation_and_its_trace(
    spec: Spec, batch: int, backend: str
) -> None:
    model, x, y = spec.build("reference", torch.float64), spec.bits(batch), spec.labels(batch)
    flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    expected = torch.func.hessian(lambda z: soft_loss(model, x, y, z))(flat)
    probe = probe_of(spec, batch, backend=backend)
    atol = 2**6 * DOUBLE_U * scale_of(probe)
    torch.testing.assert_close(probe.dense(), expected, rtol=0.0, atol=atol)
    n = probe.shape[0]
    units = torch.eye(n, dtype=torch.float64)
    trace = sum(float(unit @ (probe @ unit)) for unit in units)
    assert trace == pytest.approx(float(expected.trace()), rel=1e-11, abs=n * atol)


def hadamard(k: int) -> Tensor:
    """Return 2**k signs in 2**k orthogonal rows."""
    rows = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(k):
        rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
    return rows


@given(TINY, SAMPLES)
@settings(max_examples=20)
def test_a_complete_set_of_sign_probes_has_the_trace_without_error(spec: Spec, batch: int) -> None:
    """Σ zᵀ H z over orthogonal z of n signs is n tr H: what Hutchinson's probes estimate."""
    probe = probe_of(spec, batch)
    n = probe.shape[0]
    signs = hadamard((n - 1).bit_length())[:, :n]
    forms = (signs * (probe @ signs.T).T).sum(1)
    trace = float(probe.dense().trace())
    allowed = 2**6 * DOUBLE_U * n * scale_of(probe)
    assert float(forms.mean()) == pytest.approx(trace, rel=1e-11, abs=allowed)


@given(
    specs(taus=temperatures(-1, 2), extremes=LARGE, most_group_size=9),
    st.sampled_from([1, 63, 65, 127]),
    st.integers(0, 2**32),
)
@settings(max_examples=30)
def test_products_of_the_fused_kernels_keep_their_bound(spec: Spec, batch: int, seed: int) -> None:
    x, y = spec.bits(batch), spec.labels(batch)
    analysis = Analysis(spec.build(dtype=torch.float64), x, y, soft=True, key=None)
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(spec.depth, spec.width, 16, generator=generator)
    bounds = analysis.product([*v])
    for dtype in (torch.float32, torch.float64):
        probe = HessianProbe(spec.build("cpu", dtype), (x, y))
        products = probe.operator.row_products(v.to(dtype).view(1, -1)).view_as(v)
        for got, bound in zip(products, bounds, strict=True):
            assert_within(got, bound if dtype == torch.float32 else bound.in_double())
