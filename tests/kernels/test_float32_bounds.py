"""Float32 against float64 over a grid of sizes, within bounds that are derived and not chosen.

:mod:`tests.properties.analysis` carries a bound beside every exact number. With u = 2**-24:

* weights: noise errs by 8u·max(1, |g|), an exponent z/tau by a few u of its size, exp by 4u, and what an
  exponent errs by a weight errs by relatively; sums of 16 and the 16 → 4 map add 16u and 6u of theirs;
* a gate passes errors of its inputs on with its slopes, at most 1 each for a convex mixture, and adds
  γ(4) of its four terms: depth multiplies by the slopes' sum;
* a group sum of n gates adds γ(n) of their sum, and dividing by group_tau 3u: class logits;
* cross-entropy: log Σ exp errs by the relative error of Σ exp, and a difference of logits by u of both;
* gradients are the adjoint: slopes of the same gates on gradients, γ(2·fan-out) where they meet, γ(batch)
  of the four sums over samples, and the softmax's own derivative, over tau; Hessian products the tangent.

First-order constants are as above and everything of second order is kept, so the bounds hold for the
reference, whatever order PyTorch adds in, and for the fused kernels, whatever they fuse.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.gates.relaxations import FUSED, Relaxation
from lgn_analysis.kernels import cpu, reference
from lgn_analysis.kernels.interface import AdamRule, Moments
from tests.properties.analysis import Analysis
from tests.properties.roundoff import Rounded
from tests.properties.strategies import KEY, Spec

KERNELS = {"reference": reference, "cpu": cpu}


@dataclass(frozen=True)
class Size:
    """Depth, groups, gates a group, the two temperatures, and samples."""

    depth: int
    n_groups: int
    group_size: int
    group_tau: float
    tau: float
    batch: int
    kind: str = "bits"

    def spec(self, relaxation: Relaxation) -> Spec:
        width = self.n_groups * self.group_size
        return Spec(
            n_features=min(41, 2 * width),
            n_groups=self.n_groups,
            group_size=self.group_size,
            depth=self.depth,
            n_classes=self.n_groups,
            same_input=self.kind == "values",
            relaxation=relaxation,
            group_tau=self.group_tau,
            grad_factor=1.25 if self.kind == "values" else 1.0,
            seed=self.batch,
        )

    def __str__(self) -> str:
        shape = f"{self.depth}x{self.n_groups}x{self.group_size}"
        return f"{shape}-tau={self.tau:g}-group_tau={self.group_tau:g}-{self.batch}-{self.kind}"


MODERATE = [
    Size(1, 5, 2, 1.0, 1.0, 1),
    Size(2, 10, 20, 3.0, 1.0, 65),
    Size(3, 7, 10, 2.5, 0.7, 127, "values"),
    Size(4, 10, 30, 10.0, 1.0, 64),
    Size(6, 5, 40, 5.0, 0.8, 63),
    Size(2, 10, 200, 30.0, 0.1, 130),
    Size(3, 4, 100, 20.0, 1.0, 64, "values"),
    Size(2, 4, 25, 0.5, 10.0, 1000),
]
EXTREME = [
    Size(2, 4, 25, 1e6, 1e-3, 65),
    Size(3, 2, 40, 1e-6, 1e6, 65, "values"),
    Size(2, 10, 7, 1.0, 1e-6, 65),
]
NAMES = [*FUSED, "soft mode"]
QUANTITIES = ("outputs", "loss", "gradient")
SIZES = pytest.mark.parametrize("size", [*MODERATE, *EXTREME], ids=str)

Results = dict[str, Tensor]
Bounds = dict[str, Rounded]


def samples(size: Size, spec: Spec) -> tuple[Tensor, Tensor]:
    return spec.inputs(size.batch, size.kind), spec.labels(size.batch)


def spec_of(size: Size, name: str) -> Spec:
    return size.spec(FUSED["gumbel-st" if name == "soft mode" else name](size.tau))


@functools.cache
def bounds_of(size: Size, name: str) -> Bounds:
    """Exact outputs, loss and gradients [depth, width, 16], and how far float32 may be from them."""
    spec = spec_of(size, name)
    model = spec.build(dtype=torch.float64)
    analysis = Analysis(model, *samples(size, spec), soft=name == "soft mode", key=KEY)
    assert analysis.is_decided
    gradient = Rounded(
        torch.stack([g.exact for g in analysis.gradients]),
        torch.stack([g.error for g in analysis.gradients]),
    )
    return {"outputs": analysis.outputs, "loss": analysis.loss, "gradient": gradient}


@functools.cache
def computed(
    spec: Spec, size: Size, name: str, backend: str, dtype: torch.dtype = torch.float32
) -> Results:
    """The same as a backend computes it."""
    model, (x, y) = spec.build(backend, dtype), samples(size, spec)
    outputs = model(x, mode="soft" if name == "soft mode" else None, draw=KEY)
    loss = functional.cross_entropy(outputs, y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return {"outputs": outputs.detach(), "loss": loss.detach(), "gradient": torch.stack(gradients)}


def ratio(got: Tensor, bound: Rounded) -> float:
    """The largest error in units of its bound."""
    assert got.shape == bound.exact.shape
    assert torch.isfinite(bound.error).all()
    return float(((got.double() - bound.exact).abs() / bound.error).max())


def vagueness(bound: Rounded) -> float:
    """The largest bound in units of the largest exact number."""
    return float(bound.error.max() / bound.exact.abs().max())


@SIZES
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", list(KERNELS))
def test_outputs_losses_and_gradients_keep_their_bound(size: Size, name: str, backend: str) -> None:
    results, bounds = computed(spec_of(size, name), size, name, backend), bounds_of(size, name)
    for quantity in QUANTITIES:
        assert ratio(results[quantity], bounds[quantity]) <= 1.0, quantity


@SIZES
@pytest.mark.parametrize("name", NAMES)
def test_the_exact_numbers_are_those_of_float64(size: Size, name: str) -> None:
    """The analysis is a second implementation: the reference in float64 keeps 2**-28 of its bound."""
    results = computed(spec_of(size, name), size, name, "reference", torch.float64)
    for quantity, bound in bounds_of(size, name).items():
        assert ratio(results[quantity], bound.in_double()) <= 1.0, quantity


@pytest.mark.parametrize("size", [size for size in MODERATE if size.kind == "bits"], ids=str)
@pytest.mark.parametrize("name", list(FUSED))
def test_losses_and_gradients_of_a_compiled_training_step_keep_their_bound(
    size: Size, name: str
) -> None:
    """With its first moment undamped Adam's mean is the gradient, and lr 0 moves nothing."""
    spec = spec_of(size, name)
    model, (x, y) = spec.build("cpu"), samples(size, spec)
    logits = list(model.parameters())
    moments = [Moments(torch.zeros_like(z), torch.zeros_like(z)) for z in logits]
    packed = cpu.PackedSamples(cpu.pack_bits(x), model.n_features)
    rule = AdamRule(lr=0.0, betas=(0.0, 0.999))
    run = cpu.TrainingRun(model.as_spec(), logits, moments, packed, y, rule)
    loss = run.run(torch.arange(size.batch).unsqueeze(0), KEY, steps_done=0)
    bounds = bounds_of(size, name)
    assert ratio(loss.squeeze(0), bounds["loss"]) <= 1.0
    gradient = bounds["gradient"].after(2)  # the mean's own roundings
    assert ratio(torch.stack([moment.mean for moment in moments]), gradient) <= 1.0


@functools.cache
def product_bounds(size: Size) -> Rounded:
    """H v of the soft loss for :func:`direction`, with its bound: [depth, width, 16]."""
    spec = size.spec(FUSED["soft"](size.tau))
    model = spec.build(dtype=torch.float64)
    analysis = Analysis(model, *samples(size, spec), soft=True, key=None)
    rows = analysis.product([*direction(size)])
    return Rounded(torch.stack([r.exact for r in rows]), torch.stack([r.error for r in rows]))


def direction(size: Size) -> Tensor:
    shape = (size.depth, size.n_groups * size.group_size, 16)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def products(spec: Spec, size: Size, backend: str, dtype: torch.dtype = torch.float32) -> Tensor:
    model, (x, y) = spec.build(dtype=dtype), samples(size, spec)
    curvature = KERNELS[backend].Curvature(
        model.as_spec("soft"),
        list(model.parameters()),
        x if x.dtype == torch.bool else x.to(dtype),
        lambda outputs: functional.cross_entropy(outputs, y),
        tau=spec.relaxation.tau,
        layers=range(size.depth),
    )
    v = direction(size)
    return curvature.products(v.to(dtype).view(1, -1)).view_as(v)


@SIZES
def test_hessian_products_of_the_fused_kernels_keep_their_bound(size: Size) -> None:
    spec, bound = size.spec(FUSED["soft"](size.tau)), product_bounds(size)
    assert ratio(products(spec, size, "cpu"), bound) <= 1.0
    assert ratio(products(spec, size, "cpu", torch.float64), bound.in_double()) <= 1.0


@pytest.mark.parametrize("size", MODERATE, ids=str)
def test_the_exact_hessian_products_are_those_of_automatic_differentiation(size: Size) -> None:
    """Near its largest entry only: it takes differences of weights that the kernels do not take."""
    exact = product_bounds(size).exact
    got = products(size.spec(FUSED["soft"](size.tau)), size, "reference", torch.float64)
    torch.testing.assert_close(got, exact, rtol=0.0, atol=1e-13 * float(exact.abs().max()))


@pytest.mark.parametrize(
    ("quantity", "limit"), [("outputs", 1e-4), ("loss", 1e-3), ("gradient", 0.1)]
)
def test_bounds_are_small_at_moderate_temperatures(quantity: str, limit: float) -> None:
    bounds = [bounds_of(size, name)[quantity] for size in MODERATE for name in NAMES]
    assert max(map(vagueness, bounds)) < limit


def test_bounds_of_hessian_products_are_small_at_moderate_temperatures() -> None:
    assert max(vagueness(product_bounds(size)) for size in MODERATE) < 0.1


@pytest.mark.parametrize("backend", list(KERNELS))
@pytest.mark.parametrize(
    ("quantity", "somewhere"), [("outputs", 1e-2), ("loss", 1e-4), ("gradient", 1e-3)]
)
def test_errors_come_within_orders_of_magnitude_of_their_bound(
    quantity: str, somewhere: float, backend: str
) -> None:
    """Bounds add up sizes while errors take both signs, and that costs a factor."""
    seen = [
        ratio(
            computed(spec_of(size, name), size, name, backend)[quantity],
            bounds_of(size, name)[quantity],
        )
        for size in MODERATE
        for name in NAMES
    ]
    assert max(seen) > somewhere, seen


def test_errors_of_hessian_products_come_within_orders_of_magnitude_of_their_bound() -> None:
    seen = [
        ratio(products(size.spec(FUSED["soft"](size.tau)), size, "cpu"), product_bounds(size))
        for size in MODERATE
    ]
    assert max(seen) > 1e-3, seen
    assert min(seen) > 1e-5, seen


@pytest.mark.parametrize("size", MODERATE, ids=str)
def test_temperatures_that_are_a_few_per_cent_off_break_the_bounds(size: Size) -> None:
    spec, bounds = size.spec(FUSED["soft"](size.tau)), bounds_of(size, "soft")
    sums_off = replace(spec, group_tau=1.01 * spec.group_tau)
    assert ratio(computed(sums_off, size, "soft", "cpu")["outputs"], bounds["outputs"]) > 10.0
    gates_off = replace(spec, relaxation=FUSED["soft"](1.05 * size.tau))
    assert ratio(computed(gates_off, size, "soft", "cpu")["gradient"], bounds["gradient"]) > 1.0
    assert ratio(products(gates_off, size, "cpu"), product_bounds(size)) > 1.0
