"""Every backend computes the same network: outputs, losses and gradients within bounds, bits exactly."""

from __future__ import annotations

import functools
import operator

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian import HessianProbe
from lgn_analysis.kernels import cpu, reference
from lgn_analysis.metrics import evaluate, gate_usage
from tests.properties.analysis import Analysis
from tests.properties.roundoff import assert_within
from tests.properties.strategies import BACKENDS, BATCHES, KEY, LARGE, Spec, specs, temperatures

SAMPLES = st.sampled_from(BATCHES)
KINDS = st.sampled_from(["bits", "values"])
ANYWHERE = specs(taus=temperatures(), group_taus=temperatures(), extremes=LARGE)
MODES = ("soft", "noisy", "discrete", None)


def modes_of(spec: Spec) -> list[str | None]:
    return [mode for mode in MODES if mode != "noisy" or spec.relaxation.noisy]


@given(ANYWHERE, SAMPLES, KINDS, st.booleans())
@settings(max_examples=80)
def test_outputs_losses_and_gradients_of_both_backends_are_exact_but_for_rounding(
    spec: Spec, batch: int, kind: str, soft: bool
) -> None:
    x, y = spec.inputs(batch, kind), spec.labels(batch)
    analysis = Analysis(spec.build(dtype=torch.float64), x, y, soft=soft, key=KEY)
    assume(analysis.is_decided)
    mode = "soft" if soft else None
    for backend in BACKENDS:
        model = spec.build(backend)
        outputs = model(x, mode=mode, draw=KEY)
        assert_within(outputs, analysis.outputs)
        loss = functional.cross_entropy(outputs, y)
        assert_within(loss, analysis.loss)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        for gradient, bound in zip(gradients, analysis.gradients, strict=True):
            assert_within(gradient, bound)
        with torch.no_grad():  # soft mode has kernels of its own where nothing is recorded
            assert_within(model(x, mode=mode, draw=KEY), analysis.outputs)


def by_integers(spec: Spec, x: Tensor) -> list[list[int]]:
    """The group sums of the discrete network [batch, n_groups], a Python integer a gate for all samples."""
    model, batch = spec.build(), len(x)
    everyone = (1 << batch) - 1
    rows = [sum(int(bit) << i for i, bit in enumerate(column)) for column in x.T.tolist()]
    for layer in model.layers:
        gates = [max(range(16), key=row.__getitem__) for row in layer.logits.tolist()]
        outputs = []
        for number, first, second in zip(gates, *layer.wiring.tolist(), strict=True):
            a, b = rows[first], rows[second]
            corners = (~a & ~b, ~a & b, a & ~b, a & b)
            # Bit 3 of a gate's number is its value at (0, 0), bit 0 that at (1, 1).
            true = (corner for k, corner in enumerate(corners) if number >> (3 - k) & 1)
            outputs.append(functools.reduce(operator.or_, true, 0) & everyone)
        rows = outputs
    size = spec.group_size
    groups = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [[sum(row >> i & 1 for row in group) for group in groups] for i in range(batch)]


@given(ANYWHERE, SAMPLES, st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=60)
def test_the_discrete_network_is_its_argmax_gates_in_integers(
    spec: Spec, batch: int, dtype: torch.dtype
) -> None:
    x = spec.bits(batch)
    expected = torch.tensor(by_integers(spec, x), dtype=dtype) / spec.group_tau
    for backend in BACKENDS:
        outputs = spec.build(backend, dtype)(x, mode="discrete")
        assert outputs.dtype == dtype
        assert torch.equal(outputs, expected)


@given(specs(taus=temperatures(), extremes=LARGE), SAMPLES, KINDS)
@settings(max_examples=40)
def test_soft_gates_stay_between_false_and_true(spec: Spec, batch: int, kind: str) -> None:
    x, y = spec.inputs(batch, kind), spec.labels(batch)
    analysis = Analysis(spec.build(dtype=torch.float64), x, y, soft=True, key=None)
    for backend in BACKENDS:
        activations = x
        for layer, bound in zip(spec.build(backend).layers, analysis.activations, strict=True):
            activations = layer(activations, mode="soft").detach()
            assert_within(activations.T, bound)
            assert bound.exact.min() >= -1e-12
            assert bound.exact.max() <= 1.0 + 1e-12
            # Rounding of the weights of one gate, passed on by gates that add up to two slopes.
            excess = 2.0 ** (layer.index + 1) * 64 * 2.0**-24
            assert activations.min() >= -excess
            assert activations.max() <= 1.0 + excess


@given(specs(extremes=LARGE), SAMPLES, KINDS, st.integers(0, 2**32))
@settings(max_examples=40)
def test_a_sample_does_not_depend_on_the_others_nor_on_their_order(
    spec: Spec, batch: int, kind: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(batch, generator=generator)[: 1 + seed % batch]
    for mode in modes_of(spec):
        x = spec.inputs(batch, "bits" if mode == "discrete" else kind)
        for backend, dtype in (("cpu", torch.float32), ("reference", torch.float64)):
            model = spec.build(backend, dtype)
            with torch.no_grad():
                together, alone = (model(part, mode=mode, draw=KEY) for part in (x, x[chosen]))
            if backend == "cpu":
                assert torch.equal(alone, together[chosen])
            else:  # PyTorch adds up a group in an order that depends on the batch
                torch.testing.assert_close(alone, together[chosen], rtol=1e-13, atol=1e-13)


@given(specs(), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=30)
def test_no_samples_give_no_outputs_and_no_gradient(spec: Spec, dtype: torch.dtype) -> None:
    for backend in BACKENDS:
        model = spec.build(backend, dtype)
        for x in (spec.bits(0), spec.bits(0).to(dtype)):
            for mode in modes_of(spec):
                outputs = model(x, mode=mode, draw=KEY)
                assert outputs.shape == (0, spec.n_groups)
                assert outputs.dtype == dtype
                assert model.layers[0](x, mode=mode, draw=KEY).shape == (0, spec.width)
                if mode != "discrete":
                    gradients = torch.autograd.grad(outputs.sum(), list(model.parameters()))
                    assert not any(gradient.any() for gradient in gradients)
        assert all(
            words.shape == (spec.width, 0) for words in model.packed_activations(spec.bits(0))
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_nothing_without_samples_is_refused(backend: str) -> None:
    spec = Spec(n_features=6, n_groups=3, group_size=2, depth=2, n_classes=3)
    model, x, y = spec.build(backend), spec.bits(0), spec.labels(0)
    with pytest.raises(InvalidInputError, match="the split 'test' is empty"):
        evaluate(model, (x, y))
    with pytest.raises(InvalidInputError, match="on at least one sample, got none"):
        gate_usage(model, x)
    with pytest.raises(InvalidInputError, match="there are no samples"):
        HessianProbe(model, (x, y))


@pytest.mark.parametrize("kernels", [reference, cpu], ids=BACKENDS)
def test_a_curvature_of_no_samples_is_refused_alike(kernels: type[reference.Curvature]) -> None:
    spec = Spec(n_features=6, n_groups=3, group_size=2, depth=2, n_classes=3)
    model = spec.build()
    with pytest.raises(
        InvalidInputError, match=r"at least one sample, x \[batch, 6\], got \(0, 6\)"
    ):
        kernels.Curvature(
            model.as_spec("soft"),
            list(model.parameters()),
            spec.bits(0),
            lambda outputs: outputs.sum(),
            tau=1.0,
            layers=[0, 1],
        )
