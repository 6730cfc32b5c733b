"""What logits mean and what they do not: a shift, an order, infinity and NaN, on every backend."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.relaxations import RELAXATIONS
from lgn_analysis.hessian import HessianProbe
from lgn_analysis.metrics import evaluate, gate_entropy, gate_usage
from lgn_analysis.network import LogicNetwork
from tests.properties.analysis import Analysis
from tests.properties.roundoff import Rounded, assert_within
from tests.properties.strategies import BACKENDS, KEY, Spec, specs, temperatures

PLACES = st.integers(0, 2**16)
DTYPES = st.sampled_from([torch.float32, torch.float64])
NOISE_FREE = ("soft", "hard-st", "cage")
HARD = tuple(name for name, kind in RELAXATIONS.items() if kind.hard)
SMALL = Spec(n_features=6, n_groups=3, group_size=4, depth=3, n_classes=3)


def results(model: LogicNetwork, x: Tensor, mode: str | None) -> list[Tensor]:
    """The outputs, and where there is one the gradient of a cross-entropy by every layer's logits."""
    outputs = model(x, mode=mode, draw=KEY)
    if not outputs.requires_grad:
        return [outputs]
    loss = functional.cross_entropy(outputs, labels(model, x))
    return [outputs.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def labels(model: LogicNetwork, x: Tensor) -> Tensor:
    return torch.arange(len(x)) % model.n_classes


def analysed(model: LogicNetwork, x: Tensor, mode: str | None) -> list[Rounded]:
    """What :func:`results` may be for noise-free float32 arithmetic."""
    analysis = Analysis(model.double(), x, labels(model, x), soft=mode == "soft", key=None)
    return [analysis.outputs, *analysis.gradients]


def on_a_grid(model: LogicNetwork, step: float = 2.0**-10) -> LogicNetwork:
    """The model with logits that are multiples of ``step`` in ±8: sums of them are exact."""
    with torch.no_grad():
        for z in model.parameters():
            z.copy_((z / step).round().mul(step).clamp(-8.0, 8.0))
    return model


@given(
    specs(relaxations=NOISE_FREE, taus=temperatures(-2, 6)),
    st.lists(st.integers(-(2**13), 2**13), min_size=1, max_size=8),
    st.sampled_from(["soft", "discrete", None]),
)
@settings(max_examples=40)
def test_a_constant_on_all_sixteen_logits_of_a_gate_changes_nothing(
    spec: Spec, shifts: list[int], mode: str | None
) -> None:
    x = spec.bits(65)
    constants = torch.tensor(shifts).repeat(spec.width)[: spec.width, None]  # up to 8192: exact
    for backend, dtype in (("cpu", torch.float32), ("reference", torch.float64)):
        plain, moved = (on_a_grid(spec.build(backend, dtype)) for _ in range(2))
        with torch.no_grad():
            for z in moved.parameters():
                z += constants
        wanted, got = results(plain, x, mode), results(moved, x, mode)
        by_kernels = backend == "cpu" and mode is None and not spec.relaxation.adaptive
        if mode == "discrete" or by_kernels:
            # The kernels of training subtract the largest logit before they divide by tau.
            assert all(map(torch.equal, got, wanted))
            continue
        there, here = analysed(plain, x, mode), analysed(moved, x, mode)
        for mine, old, new in zip(got, there, here, strict=True):
            bound = Rounded(old.exact, new.error)
            assert_within(mine, bound if dtype == torch.float32 else bound.in_double())


def permuted(model: LogicNetwork, layer: int, order: Tensor) -> None:
    """Put gate ``order[i]`` of a layer into place i, with its inputs and whoever reads it."""
    here = model.layers[layer]
    with torch.no_grad():
        here.logits.copy_(here.logits[order])
        here.wiring.copy_(here.wiring[:, order])
        if layer + 1 < model.depth:
            above = model.layers[layer + 1]
            above.wiring.copy_(torch.argsort(order)[above.wiring])


@given(
    specs(relaxations=NOISE_FREE),
    st.integers(0, 2**32),
    st.sampled_from(["soft", "discrete", None]),
)
@settings(max_examples=40)
def test_the_order_of_the_gates_of_a_layer_is_not_visible(
    spec: Spec, seed: int, mode: str | None
) -> None:
    """In the last layer: the order within a group."""
    generator, x = torch.Generator().manual_seed(seed), spec.bits(65)
    layer = seed % spec.depth
    if layer + 1 < spec.depth:
        order = torch.randperm(spec.width, generator=generator)
    else:
        rows = torch.arange(spec.width).view(spec.n_groups, -1)
        order = rows[:, torch.randperm(spec.group_size, generator=generator)].reshape(-1)
    for backend, dtype in (("cpu", torch.float32), ("reference", torch.float64)):
        plain, moved = spec.build(backend, dtype), spec.build(backend, dtype)
        permuted(moved, layer, order)
        got = results(moved, x, mode)
        if mode == "discrete":
            assert torch.equal(got[0], results(plain, x, mode)[0])
            continue
        bounds = analysed(plain, x, mode)
        bounds[1 + layer] = bounds[1 + layer][order]
        for mine, bound in zip(got, bounds, strict=True):
            assert_within(mine, bound if dtype == torch.float32 else bound.in_double())


@given(specs(taus=temperatures(-3, 3)), st.lists(PLACES, min_size=1, max_size=20), DTYPES)
@settings(max_examples=40)
def test_a_logit_of_minus_infinity_is_an_option_that_is_never_taken(
    spec: Spec, places: list[int], dtype: torch.dtype
) -> None:
    """As -1e30 is, to the last bit: no output and no gradient knows of it."""
    n = spec.depth * spec.width * 16
    places = [place for place in places if place % 16]  # some option is left to every gate
    x = spec.bits(65)
    never = spec.with_logit(*((place, -math.inf) for place in places if place < n))
    far = spec.with_logit(*((place, -1e30) for place in places if place < n))
    for backend in BACKENDS:
        for mode in ("soft", "discrete", None):
            models = [one.build(backend, dtype) for one in (never, far)]
            for got, wanted in zip(*(results(model, x, mode) for model in models), strict=True):
                assert torch.equal(got, wanted)
                assert torch.isfinite(got).all()
    entropies = [gate_entropy(one.logits()) for one in (never, far)]
    assert torch.equal(*entropies)


@given(specs(taus=temperatures(-3, 3)), PLACES, DTYPES)
@settings(max_examples=30)
def test_a_logit_of_infinity_is_chosen_where_one_is_and_makes_mixtures_nan(
    spec: Spec, place: int, dtype: torch.dtype
) -> None:
    x = spec.bits(65)
    for backend in BACKENDS:
        infinite, large = (
            spec.with_logit((place, value)).build(backend, dtype) for value in (math.inf, 1e30)
        )
        for mode in ("discrete", None):
            if mode is None and not spec.relaxation.hard:
                continue
            with torch.no_grad():
                outputs = [model(x, mode=mode, draw=KEY) for model in (infinite, large)]
            assert torch.equal(*outputs)
        layer = place % (spec.depth * spec.width * 16) // (spec.width * 16)
        outputs = infinite.layers[layer](torch.zeros(1, infinite.layers[layer].n_in), mode="soft")
        assert int(outputs.isnan().sum()) == 1


@given(specs(relaxations=HARD), PLACES, DTYPES)
@settings(max_examples=30)
def test_no_gate_is_chosen_by_logits_that_are_nan(
    spec: Spec, place: int, dtype: torch.dtype
) -> None:
    layer = place % (spec.depth * spec.width * 16) // (spec.width * 16)
    message = rf"1 of the {spec.width} gates of layer {layer} have logits that are NaN"
    x = spec.bits(9)
    for backend in BACKENDS:
        model = spec.with_logit((place, math.nan)).build(backend, dtype)
        for samples in (x, x.to(dtype), 0.5 * x.to(dtype)):
            with pytest.raises(InvalidInputError, match=message):
                model(samples, draw=KEY)
        for call in (
            lambda model: model(x, mode="discrete"),
            lambda model: model.layers[layer](x[:, :1].expand(-1, model.layers[layer].n_in)),
            lambda model: model.layers[layer].gates,
            lambda model: list(model.packed_activations(x)),
            lambda model: gate_usage(model),
            lambda model: evaluate(model, (x, spec.labels(9))),
        ):
            with pytest.raises(InvalidInputError, match=message):
                call(model)


@given(specs(), PLACES, DTYPES, st.sampled_from([math.nan, math.inf]))
@settings(max_examples=30)
def test_mixtures_of_logits_that_are_not_finite_are_nan_and_have_no_accuracy(
    spec: Spec, place: int, dtype: torch.dtype, value: float
) -> None:
    """A class would be named all the same: of NaN argmax takes the first."""
    last = (spec.depth - 1) * spec.width * 16 + place % (spec.width * 16)
    group = place % (spec.width * 16) // 16 // spec.group_size
    x, y = spec.bits(9), spec.labels(9)
    for backend in BACKENDS:
        model = spec.with_logit((last, value)).build(backend, dtype)
        modes = ["soft", *([None] if not spec.relaxation.hard else [])]
        for mode in modes:
            for recorded in (True, False):
                with torch.set_grad_enabled(recorded):
                    outputs = model(x, mode=mode, draw=KEY)
                assert outputs[:, group].isnan().all()
                assert outputs.isnan().sum() == len(x)
        with pytest.raises(InvalidInputError, match=r"logits that are NaN|the soft loss .* is nan"):
            evaluate(model, (x, y))
        with pytest.raises(InvalidInputError, match="the loss is nan; there is nothing to probe"):
            HessianProbe(model, (x, y)).loss()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.vmap], ids=lambda f: f.__name__)
def test_in_a_transform_values_are_not_looked_at(transform: object, backend: str) -> None:
    model = replace(SMALL, relaxation=RELAXATIONS["hard-st"]()).build(backend)
    x, names = SMALL.bits(9), [name for name, _ in model.named_parameters()]

    def outputs(*logits: Tensor) -> Tensor:
        parameters = dict(zip(names, logits, strict=True))
        total: Tensor = torch.func.functional_call(model, parameters, (x,)).sum()
        return total

    logits = [z.detach() for z in model.parameters()]
    if transform is torch.func.vmap:
        stacks = [torch.stack([z, torch.full_like(z, math.nan)]) for z in logits]
        together = torch.func.vmap(outputs)(*stacks)
        torch.testing.assert_close(together[0], outputs(*logits))
    else:
        assert torch.isfinite(torch.func.grad(outputs)(*logits)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_numbers_that_add_up_to_nan_are_no_nan(dtype: torch.dtype) -> None:
    """The sum that is looked at first overflows both ways here."""
    huge = torch.finfo(torch.float32).max
    places = [(k, huge if k % 2 else -huge) for k in range(64)]
    for backend in BACKENDS:
        infinite = SMALL.with_logit(*((k, math.copysign(math.inf, v)) for k, v in places))
        large = SMALL.with_logit(*places)
        outputs = [
            s.build(backend, dtype)(SMALL.bits(9), mode="discrete") for s in (infinite, large)
        ]
        assert torch.equal(*outputs)
