"""Do converted networks compute what the modules of difflogic, gumbel-lgn and torchlogix do?

    python benchmarks/interop.py --difflogic DIR --gumbel-lgn DIR

Random architectures of each in float64, weights and temperatures random, compared by calling both: the
training forward with its gradients in inputs and logits, by the same noise where it draws any, and the
discrete network, which must be equal. DIR is a checkout of ``Felix-Petersen/difflogic`` or of
``shakiryousefi/gumbel-lgn``, whose pure Python layers need no compiler; torchlogix is the installed one.
Where a project is missing it is left out, with a line that says so. ``benchmarks/results/interop.csv``
has a row for each architecture, ``tests/interop/recorded.json`` (``--record``) small outputs for CI.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

import lgn_analysis as lgn

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "interop.csv"
RECORDED: Final = ROOT / "tests" / "interop" / "recorded.json"
N_ARCHITECTURES: Final = 40
N_SAMPLES: Final = 96
N_RECORDED: Final = 16
SAMPLINGS: Final = ("soft", "hard", "gumbel_soft", "gumbel_hard")

Make = Callable[[np.random.Generator], nn.Sequential]


def import_fork(folder: Path) -> ModuleType:
    """Return the package difflogic in a checkout, its CUDA extension left out."""
    for name in [name for name in sys.modules if name.split(".")[0] == "difflogic"]:
        del sys.modules[name]
    sys.modules["difflogic_cuda"] = ModuleType("difflogic_cuda")
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("difflogic")
    finally:
        sys.path.remove(str(folder))


def import_torchlogix() -> ModuleType:
    """Return torchlogix's layers; its circuits, which Python 3.11 does not parse, are left out."""
    circuit: Any = ModuleType("torchlogix.circuit")
    circuit.Circuit = None
    sys.modules["torchlogix.circuit"] = circuit
    return importlib.import_module("torchlogix.layers")


def sizes(draw: np.random.Generator) -> tuple[int, int, int, int, float]:
    """Return features, width, depth, classes and group_tau."""
    n_classes = int(draw.integers(2, 7))
    width = n_classes * int(draw.integers(4, 20))
    n_features = int(draw.integers(8, min(2 * width, 60)))
    return n_features, width, int(draw.integers(1, 6)), n_classes, float(draw.uniform(0.5, 30))


def make_difflogic(package: ModuleType, *, gumbel: bool) -> Make:
    def make(draw: np.random.Generator) -> nn.Sequential:
        n_features, width, depth, n_classes, group_tau = sizes(draw)
        options: dict[str, Any] = {
            "device": "cpu",
            "implementation": "python",
            "connections": str(draw.choice(["random", "unique"])),
            "grad_factor": float(draw.choice([1.0, 1.5])),
        }
        if width > n_features * (n_features - 1) // 2:
            options["connections"] = "random"
        if gumbel:
            options["stochastic"] = str(draw.choice(["softmax", "gumbel"]))
            options["gumbel_tau"] = float(draw.uniform(0.2, 2.0))
        layers = [package.LogicLayer(n_features, width, **options)]
        layers += [package.LogicLayer(width, width, **options) for _ in range(depth - 1)]
        return nn.Sequential(nn.Flatten(), *layers, package.GroupSum(n_classes, group_tau))

    return make


def make_torchlogix(layers: ModuleType) -> Make:
    def make(draw: np.random.Generator) -> nn.Sequential:
        n_features, width, depth, n_classes, group_tau = sizes(draw)
        options: dict[str, Any] = {
            "grad_factor": float(draw.choice([1.0, 1.5])),
            "parametrization_kwargs": {
                "forward_sampling": str(draw.choice(SAMPLINGS)),
                "temperature": float(draw.uniform(0.2, 2.0)),
                "weight_init": str(draw.choice(["random", "residual"])),
            },
        }
        dense = [layers.LogicDense(n_features, width, **options)]
        dense += [layers.LogicDense(width, width, **options) for _ in range(depth - 1)]
        return nn.Sequential(*dense, layers.GroupSum(n_classes, group_tau))

    return make


@contextlib.contextmanager
def same_noise(noise: list[Tensor]) -> Iterator[None]:
    """Let torch's Gumbel softmax take these noises in order: it draws −log of exponential numbers."""
    left = iter(noise)
    original = torch.Tensor.exponential_

    def exponential_(self: Tensor, *_: Any, **__: Any) -> Tensor:
        with torch.no_grad():
            return self.copy_(next(left).neg().exp())

    torch.Tensor.exponential_ = exponential_  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.Tensor.exponential_ = original  # type: ignore[method-assign]


def quietly(module: nn.Module, x: Tensor) -> Tensor:
    with contextlib.redirect_stdout(io.StringIO()):  # difflogic prints while it computes
        outputs: Tensor = module(x)
    return outputs


def gradients(outputs: Tensor, x: Tensor, logits: list[Tensor], y: Tensor) -> list[Tensor]:
    loss = functional.cross_entropy(outputs, y)
    return [*torch.autograd.grad(loss, [x, *logits])]


def largest(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference, relative to the largest value of its tensor."""
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-300)) for a, b in pairs)


def compare(peer: str, seed: int, make: Make) -> dict[str, Any]:
    """Return the row of one architecture."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    theirs = make(draw).double()
    with torch.no_grad():
        for weights in theirs.parameters():
            weights.add_(torch.randn_like(weights))
    ours = lgn.convert(theirs)
    ours.set_backend("reference")
    x = torch.rand(N_SAMPLES, ours.n_features, dtype=torch.float64)
    y = torch.randint(ours.n_classes, (N_SAMPLES,))
    key = lgn.NoiseKey(seed, lgn.Purpose.TRAINING, 0)
    noise = [
        ours._kernels.gumbel(
            key, index, ours.width, dtype=torch.float64, device=torch.device("cpu")
        )
        for index in range(ours.depth)
    ]
    results = []
    for model, call in ((theirs, quietly), (ours, lambda m, v: m(v, draw=key))):
        model.train()
        inputs = x.clone().requires_grad_(True)
        with same_noise(noise):
            outputs = call(model, inputs)
        results.append((outputs.detach(), gradients(outputs, inputs, [*model.parameters()], y)))
    (out_theirs, grad_theirs), (out_ours, grad_ours) = results
    bits = (x < 0.5).float()  # the discrete forwards of all three mix float32 and float64 otherwise
    with torch.no_grad():
        counts = quietly(theirs.eval(), bits).double() * ours.group_sum.group_tau
        discrete = ours.eval()(bits) * ours.group_sum.group_tau
    back = back_again(ours, bits) if peer == "torchlogix" else True
    return {
        "peer": peer,
        "seed": seed,
        "n_features": ours.n_features,
        "width": ours.width,
        "depth": ours.depth,
        "n_classes": ours.n_classes,
        "relaxation": ours.relaxation.name,
        "tau": ours.relaxation.tau,
        "grad_factor": ours.layers[0].grad_factor,
        "output_difference": float((out_ours - out_theirs).abs().max()),
        "gradient_difference": largest(grad_ours, grad_theirs),
        "discrete_equal": bool(torch.equal(counts.round(), discrete.round())),
        "back_equal": back,
    }


def back_again(ours: lgn.LogicNetwork, bits: Tensor) -> bool:
    """Return whether a network is the same after a way to torchlogix and back."""
    again = lgn.convert(lgn.to_torchlogix(ours))
    again.set_backend("reference")
    states = zip(again.state_dict().values(), ours.state_dict().values(), strict=True)
    same = again.relaxation == ours.relaxation and all(torch.equal(a, b) for a, b in states)
    return same and bool(torch.equal(again.eval()(bits), ours.eval()(bits)))


def wirings_rebuilt(package: ModuleType) -> tuple[int, int]:
    """Return how many networks' wirings a seed gave again, and of how many.

    Layers made on a CPU, and as they would be on a GPU, where no logits come from the CPU's generator.
    """
    rebuilt, n_networks = 0, 0
    for seed in range(N_ARCHITECTURES):
        draw = np.random.default_rng(seed)
        n_features, width = int(draw.integers(8, 40)), int(draw.integers(20, 28))
        kind, on_cpu = ("unique", "random")[seed % 2], bool(seed // 2 % 2)
        own_draws = torch.randn, torch.Tensor.normal_
        if not on_cpu:
            torch.randn = lambda *shape, **options: torch.zeros(*shape)
            torch.Tensor.normal_ = lambda self, *_: self  # type: ignore[method-assign, assignment]
        try:
            torch.manual_seed(seed)
            torch.randperm(60)
            inputs = (n_features, width, width)
            layers = [
                package.LogicLayer(n_in, width, device="cpu", connections=kind) for n_in in inputs
            ]
        finally:
            torch.randn, torch.Tensor.normal_ = own_draws  # type: ignore[method-assign]
        recipe = lgn.SeededWiring(seed, kind=kind, split=60, on_cpu=on_cpu)
        found = recipe.draw([(n_in, width) for n_in in inputs])
        n_networks += 1
        rebuilt += all(
            torch.equal(wiring, torch.stack(tuple(layer.indices)))
            for wiring, layer in zip(found, layers, strict=True)
        )
    return rebuilt, n_networks


def record(peer: str, make: Make) -> dict[str, Any]:
    """Return what CI needs of a small module: attributes, weights, inputs and the outputs of the peer."""
    torch.manual_seed(7)
    draw = np.random.default_rng(7)
    while True:
        module = make(draw).double()
        parts: list[Any] = [part for part in module if not isinstance(part, nn.Flatten)]
        if len(parts) == 3 and parts[0].in_dim < 20 and 16 <= parts[0].out_dim < 30:
            break
    *layers, group_sum = parts
    with torch.no_grad():
        for layer in layers:  # every one of the sixteen gates is chosen somewhere
            [weights] = layer.parameters(recurse=False)
            weights.copy_(torch.randn_like(weights).round(decimals=3))
            chosen = torch.arange(len(weights)) % 16
            weights[torch.arange(len(weights)), chosen] += 4.0
    x = torch.rand(N_RECORDED, layers[0].in_dim, dtype=torch.float64).round(decimals=3)
    for layer in layers:
        set_noise_free(layer)
    with torch.no_grad():
        soft = quietly(module.train(), x)
        discrete = quietly(module.eval(), (x < 0.5).float())
    return {
        "peer": peer,
        "layers": [
            {
                "in_dim": layer.in_dim,
                "grad_factor": layer.grad_factor,
                "weights": next(layer.parameters(recurse=False)).tolist(),
                "wiring": torch.stack(tuple(wiring_of(layer))).tolist(),
                "temperature": getattr(getattr(layer, "parametrization", None), "temperature", 1.0),
            }
            for layer in layers
        ],
        "k": group_sum.k,
        "tau": group_sum.tau,
        "x": x.tolist(),
        "soft": soft.tolist(),
        "discrete": discrete.double().tolist(),
    }


def set_noise_free(layer: Any) -> None:
    if hasattr(layer, "parametrization"):
        layer.parametrization.forward_sampling = "soft"
    elif hasattr(layer, "stochastic"):
        layer.stochastic = "softmax"


def wiring_of(layer: Any) -> Any:
    return layer.indices if hasattr(layer, "indices") else layer.connections.indices


def found_peers(options: argparse.Namespace) -> dict[str, Make]:
    """Return how to make random networks of each project that is there."""
    makers: dict[str, Make] = {}
    for peer, folder in (("difflogic", options.difflogic), ("gumbel-lgn", options.gumbel_lgn)):
        if folder is None:
            print(f"{peer} is left out: give --{peer} DIR, a checkout of it")
        else:
            package = import_fork(folder)
            rebuilt, n_networks = wirings_rebuilt(package)
            print(
                f"{peer}: the wirings of {rebuilt} of {n_networks} networks drawn again from their seeds"
            )
            makers[peer] = make_difflogic(package, gumbel=peer == "gumbel-lgn")
    try:
        makers["torchlogix"] = make_torchlogix(import_torchlogix())
    except ImportError:
        print("torchlogix is left out: pip install --no-deps torchlogix==0.2.2")
    return makers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--difflogic", type=Path)
    parser.add_argument("--gumbel-lgn", type=Path)
    parser.add_argument(
        "--record", action="store_true", help="write the outputs that CI compares with"
    )
    options = parser.parse_args()
    makers = found_peers(options)
    rows = [
        compare(peer, seed, make)
        for peer, make in makers.items()
        for seed in range(N_ARCHITECTURES)
    ]
    table = pd.DataFrame(rows)
    summary = table.groupby("peer").agg(
        networks=("seed", "size"),
        output_difference=("output_difference", "max"),
        gradient_difference=("gradient_difference", "max"),
        discrete_equal=("discrete_equal", "sum"),
        back_equal=("back_equal", "sum"),
    )
    print(summary.to_string())
    RESULTS.parent.mkdir(exist_ok=True)
    table.to_csv(RESULTS, index=False)
    if options.record:
        recorded = [record(peer, make) for peer, make in makers.items()]
        RECORDED.write_text(json.dumps(recorded) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
