"""Networks, samples and temperatures that Hypothesis chooses among."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import FUSED, Relaxation, Soft
from lgn_analysis.network import LogicNetwork

BACKENDS = ("reference", "cpu")
BATCHES = (1, 63, 64, 65, 127, 1000)
"""Below, at and beyond a word of 64 samples, and below and beyond what the kernels take at once."""
LARGE = (1e4, -1e4, 1e30, -1e30)
ORDINARY_TAU = st.just(1.0)
ORDINARY_GROUP_TAU = st.sampled_from([1.0, 2.5, 10.0])
KEY = NoiseKey(2**63 + 7, Purpose.TRAINING, 2**40 + 3)


@dataclass(frozen=True)
class Spec:
    """A network, the same to the last bit on every backend; its logits are float32 in any dtype.

    Attributes:
        n_features: input bits.
        n_groups: output groups.
        group_size: gates a group.
        depth: layers.
        n_classes: at most ``n_groups``.
        wiring: its kind.
        same_input: whether every other gate reads one input twice.
        relaxation: of every layer.
        group_tau: group-sum temperature.
        grad_factor: at each layer's input.
        scale: standard deviation of the logits.
        extremes: logits by their number, modulo how many there are, and what stands there instead.
        seed: draws wiring and logits.
    """

    n_features: int
    n_groups: int
    group_size: int
    depth: int
    n_classes: int
    wiring: str = "random"
    same_input: bool = False
    relaxation: Relaxation = field(default_factory=Soft)
    group_tau: float = 1.0
    grad_factor: float = 1.0
    scale: float = 1.0
    extremes: tuple[tuple[int, float], ...] = ()
    seed: int = 0

    @property
    def width(self) -> int:
        return self.n_groups * self.group_size

    def logits(self) -> Tensor:
        """Return the logits of all layers, float32 [depth, width, 16]."""
        generator = torch.Generator().manual_seed(self.seed)
        z = self.scale * torch.randn(self.depth, self.width, 16, generator=generator)
        for place, value in self.extremes:
            z.view(-1)[place % z.numel()] = value
        return z

    def build(self, backend: str = "reference", dtype: torch.dtype = torch.float32) -> LogicNetwork:
        """Return the network in train mode."""
        model = LogicNetwork(
            self.n_features,
            self.width,
            self.depth,
            self.n_classes,
            self.group_tau,
            relaxation=self.relaxation,
            wiring=self.wiring,
            seed=self.seed,
            n_groups=self.n_groups,
            grad_factor=self.grad_factor,
            backend=backend,
            dtype=dtype,
        ).train()
        with torch.no_grad():
            for layer, z in zip(model.layers, self.logits(), strict=True):
                layer.logits.copy_(z)
                if self.same_input:
                    layer.wiring[1, ::2] = layer.wiring[0, ::2]
        return model

    def with_logit(self, *extremes: tuple[int, float]) -> Spec:
        """Return the same network but for some logits."""
        return replace(self, extremes=(*self.extremes, *extremes))

    def bits(self, batch: int) -> Tensor:
        """Return samples bool [batch, n_features]."""
        generator = torch.Generator().manual_seed(batch)
        return torch.rand(batch, self.n_features, generator=generator) < 0.5

    def inputs(self, batch: int, kind: str) -> Tensor:
        """Return samples: ``"bits"`` as bool, or ``"values"`` between 0 and 1 as float32."""
        if kind == "bits":
            return self.bits(batch)
        return torch.rand(batch, self.n_features, generator=torch.Generator().manual_seed(batch))

    def labels(self, batch: int) -> Tensor:
        """Return classes int64 [batch]."""
        generator = torch.Generator().manual_seed(batch + 1)
        return torch.randint(self.n_classes, (batch,), generator=generator)


def temperatures(low: float = -6.0, high: float = 6.0) -> st.SearchStrategy[float]:
    """Powers of ten between two exponents, the ends among them."""
    exponents = st.sampled_from([low, 0.0, high]) | st.floats(low, high)
    return exponents.map(lambda exponent: 10.0**exponent)


@st.composite
def specs(
    draw: st.DrawFn,
    *,
    relaxations: tuple[str, ...] = tuple(FUSED),
    taus: st.SearchStrategy[float] = ORDINARY_TAU,
    group_taus: st.SearchStrategy[float] = ORDINARY_GROUP_TAU,
    extremes: tuple[float, ...] = (),
    most_depth: int = 4,
    most_groups: int = 5,
    most_group_size: int = 30,
    most_features: int = 70,
) -> Spec:
    """Networks of any shape: of one gate, of a group a gate, of many more or fewer features."""
    n_groups = draw(st.integers(1, most_groups))
    group_size = draw(st.integers(1, most_group_size))
    width = n_groups * group_size
    n_features = draw(st.integers(1, min(2 * width, most_features)))
    pairs = min(n * (n - 1) // 2 for n in (n_features, width))
    unique = pairs >= width
    large = st.lists(
        st.tuples(st.integers(0, 2**16), st.sampled_from(extremes or LARGE)), max_size=4
    )
    options: dict[str, Any] = {
        "depth": draw(st.integers(1, most_depth)),
        "n_classes": draw(st.integers(1, n_groups)),
        "wiring": draw(st.sampled_from(["random", "unique"] if unique else ["random"])),
        "same_input": draw(st.booleans()),
        "relaxation": FUSED[draw(st.sampled_from(relaxations))](draw(taus)),
        "group_tau": draw(group_taus),
        "grad_factor": draw(st.sampled_from([1.0, 0.5, 1.25])),
        "scale": draw(st.sampled_from([0.0, 0.3, 1.0, 5.0])),
        "extremes": tuple(draw(large)) if extremes else (),
        "seed": draw(st.integers(0, 2**32)),
    }
    return Spec(n_features, n_groups, group_size, **options)
