"""Calls about curvature that cannot be answered, and all that is said of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lgn_analysis import GumbelNoise, HessianProbe
from tests.malformed.networks import Call, Small

Options = dict[str, Any]


def _probed(sentence: str, **options: Any) -> Call:
    shown = {name: getattr(value, "__name__", value) for name, value in options.items()}
    what = ", ".join(f"{name}={value!r:.30}" for name, value in shown.items())

    def work(s: Small) -> object:
        return HessianProbe(s.model, (s.x, s.y), **options)

    return Call(f"HessianProbe({what})", work, sentence)


def _on(name: str, data: Callable[[Small], Any], sentence: str) -> Call:
    return Call(f"HessianProbe on {name}", lambda s: HessianProbe(s.model, data(s)), sentence)


def _sum(output: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(output, y, reduction="sum")


def _float(output: Tensor, y: Tensor) -> float:
    return 1.0


def _nan(output: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(output, y) * torch.nan


def each(output: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(output, y, reduction="none")


_LOSS: Final = (
    "loss_fn must be a function of (output, y), got 'cross_entropy'; for instance "
    "torch.nn.functional.cross_entropy"
)
_OUTSIDE: Final = "; the last is out of bounds for 3 classes"

PROBES: Final = [
    Call(
        "HessianProbe of a number",
        lambda s: HessianProbe(3, (s.x, s.y)),  # type: ignore[arg-type]
        "a probe needs a torch.nn.Module, got 3",
    ),
    Call(
        "HessianProbe of no parameters",
        lambda s: HessianProbe(nn.ReLU(), (s.x.float(), s.y)),
        "ReLU has no parameters that require gradients",
    ),
    Call(
        "HessianProbe of a module on other features",
        lambda s: HessianProbe(nn.Linear(5, 3), (s.x.float(), s.y)),
        "Linear or loss_fn cannot take these data: mat1 and mat2 shapes cannot be multiplied (45x12 and 5x3)",
    ),
    _on("a name", lambda s: 3, "expected (x, y) tensors or batches of them, got int"),
    _on("a data set", lambda s: s.data, "expected (x, y) tensors or batches of them, got Dataset"),
    _on(
        "arrays",
        lambda s: (s.x.numpy(), s.y.numpy()),
        "each batch must be a pair (x, y) of tensors",
    ),
    _on(
        "an iterator",
        lambda s: iter([(s.x, s.y)]),
        "the data are an iterator that can be read once; pass (x, y), or a list of batches",
    ),
    _on(
        "a loader that shuffles",
        lambda s: DataLoader(TensorDataset(s.x, s.y), shuffle=True),
        "this DataLoader shuffles, so every product would see other batches; use shuffle=False, or a list "
        "of its batches",
    ),
    _on("no batches", lambda s: [], "there are no samples to take the mean loss over"),
    _on("fewer labels", lambda s: (s.x, s.y[:2]), "x holds 45 samples and y 2; they must be equal"),
    _on(
        "missing values",
        lambda s: (s.x * torch.nan, s.y),
        "the inputs hold values that are NaN or infinite: nan at sample 0, entry [0]",
    ),
    _on(
        "other features",
        lambda s: (s.x[:, :9], s.y),
        "expected inputs [batch, 12] of real numbers, got torch.bool of shape (45, 9)",
    ),
    _on("labels from 1", lambda s: (s.x, s.y + 1), "labels must lie in 0..2, got 1..3" + _OUTSIDE),
    _on(
        "floating labels",
        lambda s: (s.x, s.y / 1),
        "class labels must be int64, got torch.float32; convert: y.long()",
    ),
    _on(
        "columns of labels",
        lambda s: (s.x, s.y[:, None]),
        "labels must be class numbers [n], or shares of the classes [n, n_classes] in a floating dtype, "
        "got torch.int64 of shape (45, 1)",
    ),
    _probed(_LOSS, loss_fn="cross_entropy"),
    _probed(
        "loss_fn must be the mean over samples, and its value changes when every sample is repeated; use "
        "reduction='mean'",
        loss_fn=_sum,
    ),
    _probed(
        "loss_fn must return the mean over the batch, a number; it returned shape (45,)",
        loss_fn=each,
    ),
    _probed(
        "loss_fn must return the mean over the batch, a number in a tensor; it returned float",
        loss_fn=_float,
    ),
    _probed(
        "the loss is nan; there is nothing to probe",
        loss_fn=_nan,
    ),
    _probed(
        "no parameter matches 'layer.*'; there are layers.0.logits, layers.1.logits",
        params="layer.*",
    ),
    _probed("params names nothing; choose from layers.0.logits, layers.1.logits", params=[]),
    _probed("params must be names of parameters, or patterns of them, got 3", params=3),
    _probed("noise must be a GumbelNoise or None, got 0.5", noise=0.5),
    _probed("tau must be finite and above zero, got 0", tau=0),
    _probed("tau is 1.0 and noise.tau 2.0; give one", tau=1.0, noise=GumbelNoise(tau=2.0)),
    _probed("batch_size must be a whole number, got 1.5", batch_size=1.5),
    _probed("max_bytes must be at least 1, got 0", max_bytes=0),
    Call("GumbelNoise(0)", lambda s: GumbelNoise(draws=0), "draws must be at least 1, got 0"),
    Call(
        "GumbelNoise for a module",
        lambda s: HessianProbe(nn.Linear(12, 3), (s.x.float(), s.y), noise=GumbelNoise()),
        "noise perturbs gate logits and needs a LogicNetwork",
    ),
    Call(
        "a product with an array",
        lambda s: s.probe @ s.x.numpy(),
        "a product takes a tensor of real numbers, got <class 'numpy.ndarray'>",
    ),
    Call(
        "a product with a short vector",
        lambda s: s.probe @ torch.ones(3),
        "expected a vector of 384 numbers, got shape (3,)",
    ),
    Call(
        "a dense Hessian in ten bytes",
        lambda s: s.probe.dense(limit=10),
        "a dense Hessian of 384 parameters takes 1.12 MiB, more than the limit of 10 bytes; use products "
        "(probe @ v), or raise limit",
    ),
]
