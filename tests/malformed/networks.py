"""Calls about networks, runs and files of models that cannot be answered, and all that is said.

``{folder}`` stands for a folder in which ``run`` is a run of two steps, ``model.safetensors`` a model
and ``text`` neither; a last … for what a library adds in words of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

import lgn_analysis as lgn
from lgn_analysis import LogicLayer, LogicNetwork
from lgn_analysis.data import Dataset


@dataclass(frozen=True)
class Small:
    """What the calls are made on: a network of 2 × 12 gates, its samples, a probe, a folder."""

    model: LogicNetwork
    data: Dataset
    probe: lgn.HessianProbe
    folder: Path

    @property
    def x(self) -> Tensor:
        return self.data.x_test

    @property
    def y(self) -> Tensor:
        return self.data.y_test


@dataclass(frozen=True)
class Call:
    """A call that cannot be answered.

    Attributes:
        name: what is asked.
        work: does.
        sentence: what is said, in full.
    """

    name: str
    work: Callable[[Small], object]
    sentence: str


def network(**options: Any) -> LogicNetwork:
    sizes = {"n_features": 12, "width": 12, "depth": 2, "n_classes": 3, "group_tau": 2.0}
    return LogicNetwork(**{**sizes, "seed": 1, **options})


def _made(sentence: str, **options: Any) -> Call:
    what = ", ".join(f"{name}={value!r:.40}" for name, value in options.items())
    return Call(f"LogicNetwork({what})", lambda small: network(**options), sentence)


def _layer(sentence: str, *sizes: Any, **options: Any) -> Call:
    given = [f"{name}={value!r:.20}" for name, value in options.items()]
    what = ", ".join([*map(repr, sizes), *given])
    return Call(f"LogicLayer({what})", lambda small: LogicLayer(*sizes, **options), sentence)


_GROUPS: Final = "n_classes must be at least 1 and n_groups at least n_classes, got "
_RELAXATION: Final = (
    "relaxation must be one of Soft(), GumbelSoft(), GumbelST(), HardST(), CAGE(), got "
)
BITS: Final = (
    "discrete mode works on bits, and the inputs hold values other than 0 and 1; threshold them first "
    '(lgn.thermometer), or use mode="soft"'
)
NETWORKS: Final = [
    _made("width must be a positive multiple of n_classes 3, got 0; use 3", width=0),
    _made("width 13 is not divisible by n_classes 3; use 12 or 15", width=13),
    _made("width must be a whole number, got 12.0", width=12.0),
    _made("width must be a whole number, got '12'", width="12"),
    _made("depth must be a whole number, got True", depth=True),
    _made("depth must be at least 1, got 0", depth=0),
    _made("a layer needs at least one input and one gate, got n_in=0, n_out=12", n_features=0),
    _made(
        "12 gates read at most 24 of 100 inputs; use a width of at least 50, or fewer thresholds",
        n_features=100,
    ),
    _made(_GROUPS + "n_classes=0, n_groups=0", n_classes=0),
    _made(_GROUPS + "n_classes=3, n_groups=2", n_groups=2),
    _made("group_tau must be finite and above zero, got nan", group_tau=torch.nan),
    _made("group_tau must be a number, got '2'", group_tau="2"),
    _made(_RELAXATION + "'soft'", relaxation="soft"),
    _made(_RELAXATION + "<class 'lgn_analysis.gates.relaxations.Soft'>", relaxation=lgn.Soft),
    _made("unknown wiring 'dense'; use one of random, unique", wiring="dense"),
    _made(
        'wiring must be "random" or "unique", got Tensor; a wiring of your own goes into each layer: '
        "LogicLayer(wiring=…)",
        wiring=torch.zeros(2, 12, dtype=torch.int64),
    ),
    _made("unknown init 'zeros'; use one of normal, residual", init="zeros"),
    _made("seed must be a whole number, got 1.5", seed=1.5),
    _made("seed must lie in 0..2**64-1, got -1", seed=-1),
    _made("grad_factor must be finite, got inf", grad_factor=torch.inf),
    _made("unknown backend 'gpu'; use one of reference, cpu, cuda", backend="gpu"),
    _made(
        "dtype must be a floating one, such as torch.float32, got torch.int32", dtype=torch.int32
    ),
    _made("dtype must be a floating one, such as torch.float32, got 'float32'", dtype="float32"),
    _made(
        "gradient_dtype must be torch.float32 or torch.bfloat16, got torch.float16",
        gradient_dtype=torch.float16,
    ),
    _made(
        '12 inputs make only 66 different pairs, too few for 90 gates; use wiring="random", or a width of '
        "at most that",
        width=90,
        wiring="unique",
    ),
    Call(
        "from_config without a width",
        lambda s: LogicNetwork.from_config(
            {name: value for name, value in s.model.config.items() if name != "width"}
        ),
        "a network's configuration needs width too; give that of a network, model.config",
    ),
    Call(
        "from_config with more",
        lambda s: LogicNetwork.from_config({**s.model.config, "hue": 3}),
        "a network's configuration has no 'hue'; leave it out",
    ),
    _layer("index must lie in 0..16777215, got -1", 9, 12, index=-1),
    _layer(
        "4 gates read at most 8 of 9 inputs; use a width of at least 5, or fewer thresholds", 9, 4
    ),
    _layer("n_in must be a whole number, got 9.0", 9.0, 12),
    _layer(
        "wiring indices must lie in 0..8, got 9..9",
        9,
        12,
        wiring=torch.full((2, 12), 9),
    ),
    _layer(
        'wiring must be "random", "unique" or an integer tensor [2, 12], got list',
        9,
        12,
        wiring=[[0] * 12] * 2,
    ),
    Call(
        "GroupSum(5)",
        lambda s: lgn.GroupSum(5)(torch.zeros(2, 12)),
        "n 12 is not divisible by n_groups 5; use 10 or 15",
    ),
    Call("Soft(0)", lambda s: lgn.Soft(0), "tau must be finite and above zero, got 0"),
    Call(
        "CAGE(decay=1)",
        lambda s: lgn.CAGE(decay=1),
        "decay must lie in [0, 1), got 1.0; 0 keeps nothing of the past",
    ),
    Call(
        "a network on an array",
        lambda s: s.model(s.x.numpy()),
        "expected a tensor [batch, 12], got ndarray; convert it, for instance by torch.as_tensor",
    ),
    Call(
        "a network on other features",
        lambda s: s.model(s.x[:, :9]),
        "expected inputs [batch, 12], got shape (45, 9)",
    ),
    Call(
        "a network on complex numbers",
        lambda s: s.model(s.x.cfloat(), mode="soft"),
        "inputs must be real numbers, got torch.complex64",
    ),
    Call("the discrete network on halves", lambda s: s.model(s.x / 2, mode="discrete"), BITS),
    Call(
        "an unknown mode",
        lambda s: s.model(s.x, mode="hard"),  # type: ignore[arg-type]
        "unknown mode 'hard'; use one of soft, noisy, discrete, or None",
    ),
    Call(
        "the noise of a network without",
        lambda s: network(relaxation=lgn.Soft())(s.x, mode="noisy"),
        'Soft draws no noise, so it has no noisy mode; use mode="soft" or mode="discrete"',
    ),
    Call(
        "half a draw",
        lambda s: s.model(s.x, mode="noisy", draw=1.5),
        "draw must be a whole number, got 1.5",
    ),
    Call("set_tau", lambda s: s.model.set_tau(0.0), "tau must be finite and above zero, got 0.0"),
]
