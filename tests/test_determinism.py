"""Same seed, same backend, same bits: in every process, at any number of threads.

Between backends what is discrete is equal, and what is not is equal to rounding, within a stated
bound. The CUDA kernels have tests of their own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.checkpoints import read_checkpoint
from lgn_analysis.data import Dataset
from lgn_analysis.gates.noise import NoiseKey, Purpose, generator_for, philox_words, random_signs
from lgn_analysis.gates.relaxations import RELAXATIONS
from lgn_analysis.kernels import select_backend
from lgn_analysis.kernels.cpu.runtime import thread_count, threads
from lgn_analysis.training.stepper import Steps
from tests.tiny import random_bits, timeless

ROOT = Path(__file__).parents[1]
BACKENDS = ("cpu", "reference")
KEY = NoiseKey(11, Purpose.EVALUATION, 3)
THREADS = (1, 2, (os.cpu_count() or 1) + 1)
# As many of torch's own threads as there are cores spin for seconds where the machine is busy.
THREADS_OF = {"cpu": THREADS, "reference": THREADS[::2]}
LR = 0.05

backends = pytest.mark.parametrize("backend", BACKENDS)
relaxations = pytest.mark.parametrize("name", RELAXATIONS)


@pytest.fixture(autouse=True)
def small_work_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The networks here are too small for two threads; the tests want them all the same."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "MIN_SHARD", 1e-9)
    monkeypatch.setattr(threads, "MIN_TOTAL", 0)
    monkeypatch.setattr(thread_count, "TRIAL_SHARE", 0.0)
    yield
    torch.set_num_threads(before)


def problem(n: int = 90, n_features: int = 12) -> Dataset:
    """Bits of which three parities are the classes' sum."""
    x = random_bits(2 * n, n_features, seed=3)
    y = x[:, :2].sum(-1)
    return Dataset.from_arrays(x[:n], y[:n], x[n:], y[n:], x[n:], y[n:], name="parities")


def build(backend: str | None, name: str = "gumbel-st", **overrides: Any) -> lgn.LogicNetwork:
    arguments: dict[str, Any] = {"width": 24, "depth": 2, "n_classes": 3, "group_tau": 2.0}
    return lgn.LogicNetwork(
        12,
        **arguments | {"seed": 1, "backend": backend} | overrides,
        relaxation=RELAXATIONS[name](0.9),
    )


def digest(*parts: Any) -> str:
    """Return a digest of tensors, arrays, frames and numbers, to the last bit."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            part = part.detach().numpy()
        if isinstance(part, np.ndarray):
            total.update(
                f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes()
            )
        else:
            # repr and to_csv write the shortest decimals that read back as the same float.
            total.update((part.to_csv() if hasattr(part, "to_csv") else repr(part)).encode())
    return total.hexdigest()


def training_digests(
    model: lgn.LogicNetwork, data: Dataset, batch_size: int = 20
) -> dict[str, str]:
    """Train a few steps; return digests of all that is left of it, time apart."""
    with tempfile.TemporaryDirectory() as folder:
        result = lgn.train(
            model,
            data,
            steps=3,
            batch_size=batch_size,
            lr=LR,
            eval_every=3,
            out=Path(folder) / "run",
            progress=False,
        )
        checkpoint = read_checkpoint(Path(folder) / "run" / "last.safetensors")
    # A step number, means and squares, under the number of a layer.
    moments = sorted(name for name in checkpoint.tensors if "/" in name)
    assert len(moments) == 3 * model.depth
    return {
        "history": digest(timeless(result.history)),
        "weights": digest(*model.state_dict().values()),
        "moments": digest(*[checkpoint.tensors[name] for name in moments]),
        "evaluation": digest(lgn.evaluate(model, data, noise_draws=2).to_frame()),
        "usage": digest(lgn.gate_usage(model, data)),
    }


Results = dict[str, tuple[Any, ...]]


def by_kernels(probe: lgn.HessianProbe) -> Results:
    """What the network's own kernels say of its curvature."""
    directions = torch.randn(
        probe.shape[0], 3, generator=generator_for(5, Purpose.PROBE), dtype=torch.float64
    )
    trace = probe.trace(n_probes=3)
    return {
        "product": (probe @ directions.to(probe.dtype),),
        "gradient": (probe.loss(), probe.grad()),
        "trace": (trace.estimate, *trace.ci, trace.per_layer),
    }


def by_sums(probe: lgn.HessianProbe) -> Results:
    """What comes of sums over parameters."""
    pairs = probe.eigs(k=2, tol=1e-3, max_matvecs=60, method="lanczos")
    density = probe.density(n_probes=2, steps=6, deflate=0, method="lanczos")
    hutchinson = probe.trace(method="hutchinson", n_probes=4)
    return {
        "hutchinson": (hutchinson.estimate, *hutchinson.ci),
        "frobenius": (probe.frobenius(n_probes=4).estimate,),
        "eigs": (pairs.values, pairs.residuals),
        "density": (density.nodes, density.weights),
    }


def probe_of(backend: str, dtype: torch.dtype, **sizes: Any) -> lgn.HessianProbe:
    model = build(backend, **sizes).to(dtype)
    x = random_bits(70, 12, seed=4)
    noise = lgn.GumbelNoise(draws=2, seed=3)
    return lgn.HessianProbe(model, (x, x[:, :2].sum(-1)), noise=noise)


def fingerprint() -> dict[str, str]:
    """Return a digest of everything that a seed determines, by name."""
    found = {"words": digest(philox_words(KEY, torch.arange(2), 5))}
    found["signs"] = digest(random_signs(NoiseKey(1, Purpose.SIGNS, 7), 1, 6, 70))
    for wiring, init in (("random", "normal"), ("unique", "residual")):
        model = build(None, wiring=wiring, init=init)
        found[f"{wiring}, {init}"] = digest(*model.state_dict().values())
    found["order"] = digest(*orders(build(None)))
    for backend in BACKENDS:
        noise = select_backend(torch.device("cpu"), backend).gumbel(
            KEY, torch.arange(2), 5, dtype=torch.float32, device="cpu"
        )
        found[f"{backend} noise"] = digest(noise)
        for name in RELAXATIONS:
            digests = training_digests(build(backend, name), problem())
            found |= {f"{backend} {name} {what}": value for what, value in digests.items()}
        probe = probe_of(backend, torch.float32)
        for what, parts in (by_kernels(probe) | by_sums(probe)).items():
            found[f"{backend} {what}"] = digest(*parts)
    return found


def orders(model: lgn.LogicNetwork) -> list[Tensor]:
    """The samples of six steps, four an epoch."""
    data = problem()
    steps = Steps(model, data.x_train, data.y_train, batch_size=20, lr=LR, seed=7)
    return [steps._batch(step) for step in range(6)]


PROGRAM = """
import json
from tests import test_determinism
print(json.dumps(test_determinism.fingerprint()))
"""


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    return alone(fingerprint)


def alone(run: Callable[[], dict[str, str]]) -> dict[str, str]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run()
    finally:
        torch.set_num_threads(before)


def test_two_fresh_processes_and_this_one_have_the_same_bits(here: dict[str, str]) -> None:
    """In this process other tests ran before, and in each of them strings hash otherwise."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
        )
        for seed in ("1", "2")
    ]
    for process in started:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0
        assert json.loads(output) == here


def test_a_second_run_in_one_process_has_the_same_bits(here: dict[str, str]) -> None:
    assert alone(fingerprint) == here


@backends
def test_another_seed_has_other_bits(backend: str, here: dict[str, str]) -> None:
    other = training_digests(build(backend, seed=2), problem())
    assert all(here[f"{backend} gumbel-st {what}"] != value for what, value in other.items())


@backends
@relaxations
def test_the_number_of_threads_changes_no_bit_of_training(backend: str, name: str) -> None:
    # Beyond 2**15 numbers torch, too, shares its operations out: logits and activations are more.
    runs = []
    for n in THREADS_OF[backend]:
        torch.set_num_threads(n)
        model = build(backend, name, width=2100, depth=1)
        runs.append(training_digests(model, problem(), batch_size=40))
    assert all(run == runs[0] for run in runs[1:])


def test_the_number_of_threads_changes_no_bit_of_a_wide_layers_usage() -> None:
    model = build(
        None, width=42_000, depth=4
    )  # layers of different sums, to see it in one at least
    usages = []
    for n in THREADS:
        torch.set_num_threads(n)
        usages.append(digest(lgn.gate_usage(model)))
    assert usages[0] == usages[1] == usages[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_number_of_threads_changes_no_bit_of_the_kernels_curvature(dtype: torch.dtype) -> None:
    probe, found = probe_of("cpu", dtype, width=120, depth=3), []
    for n in THREADS:
        torch.set_num_threads(n)
        probe.operator.move_to(probe.operator.params)  # forget the passes of before
        found.append({what: digest(*parts) for what, parts in by_kernels(probe).items()})
    assert found[0] == found[1] == found[2]


@backends
def test_the_number_of_threads_changes_a_probe_by_rounding_alone(backend: str) -> None:
    """Sums over parameters are BLAS's, which adds up otherwise where it has other threads."""
    found = []
    for n in THREADS_OF[backend]:
        torch.set_num_threads(n)
        probe = probe_of(backend, torch.float64, width=120, depth=3)
        found.append(by_kernels(probe) | by_sums(probe))
    for what, expected in found[0].items():
        for other in found[1:]:
            for one, two in zip(expected, other[what], strict=True):
                one, two = (numbers(part) for part in (one, two))
                # float64 rounds by 1e-16; five Lanczos steps of a few thousand numbers keep 1e-10.
                scale = np.nanmax(np.abs(one))
                assert np.allclose(one, two, rtol=0, atol=1e-10 * scale, equal_nan=True), what


def numbers(part: Any) -> np.ndarray[Any, Any]:
    if hasattr(part, "select_dtypes"):
        part = part.select_dtypes("number").to_numpy()
    return np.asarray(part, dtype=np.float64)


def test_no_clock_decides_how_a_module_is_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3))
    data = (random_bits(20, 12).float(), torch.arange(20) % 3)
    expected = lgn.HessianProbe(module, data)
    for ratio in (0.1, 10.0):
        clock = itertools.accumulate(ratio**tick for tick in itertools.count())
        with monkeypatch.context() as patch:
            patch.setattr(time, "perf_counter", lambda clock=clock: next(clock))
            probe = lgn.HessianProbe(module, data)
        assert probe.operator.method == expected.operator.method
        assert torch.equal(probe.dense(), expected.dense())


DRAWN = pytest.mark.parametrize("name", ["gumbel-st", "hard-st", "cage"])


def twins(name: str = "gumbel-st", **overrides: Any) -> list[lgn.LogicNetwork]:
    """The same network, from the same logits: CPU kernels, reference, and reference in float64."""
    fast, slow = (build(backend, name, **overrides) for backend in BACKENDS)
    wide = build("reference", name, dtype=torch.float64, **overrides)
    wide.load_state_dict(fast.state_dict())
    return [fast, slow, wide]


def test_wiring_logits_and_data_order_are_those_of_every_backend() -> None:
    fast, slow, wide = twins()
    for name, tensor in fast.state_dict().items():
        assert torch.equal(tensor, slow.state_dict()[name]), name
    for mine, *others in zip(*(orders(model) for model in (fast, slow, wide)), strict=True):
        assert all(torch.equal(mine, other) for other in others)


def test_noise_is_that_of_every_backend() -> None:
    """The bits behind it are equal, and so is float64; a float32 value errs by 4 ulps."""
    noise = {
        (backend, dtype): select_backend(torch.device("cpu"), backend).gumbel(
            KEY, torch.arange(3), 700, dtype=dtype, device="cpu"
        )
        for backend in BACKENDS
        for dtype in (torch.float32, torch.float64)
    }
    exact = noise["reference", torch.float64]
    assert torch.equal(noise["cpu", torch.float64], exact)
    for backend in BACKENDS:
        error = (noise[backend, torch.float32].double() - exact).abs()
        assert (error <= 4 * 2.0**-23 * exact.abs().clamp(min=1.0)).all()
        # A value gives its word's leading bits away.
        words = torch.exp(-torch.exp(-noise[backend, torch.float32].double())) * 2.0**16
        expected = (philox_words(KEY, torch.arange(3), 700) + 0.5) / 2.0**16
        assert (words - expected).abs().max() < 0.1


@DRAWN
@pytest.mark.parametrize("batch", [1, 63, 64, 65, 130])
def test_hard_forwards_are_equal_on_every_backend(name: str, batch: int) -> None:
    x = random_bits(batch, 12, seed=batch)
    with torch.no_grad():
        fast, *others = [model.train()(x, draw=KEY).double() for model in twins(name)]
    assert len(fast.unique()) > 1
    assert all(torch.equal(fast, other) for other in others)


def test_discrete_outputs_and_accuracies_are_equal_on_every_backend() -> None:
    data = problem()
    models = twins()
    fast, *others = [model.eval()(data.x_test).double() for model in models]
    assert all(torch.equal(fast, other) for other in others)
    fast, *others = [lgn.evaluate(model, data) for model in models]
    for other in others:
        assert other.discrete_accuracy == fast.discrete_accuracy
        assert other.discrete_loss == fast.discrete_loss
        assert other.noisy_accuracy == fast.noisy_accuracy  # Gumbel-ST: bits under noise
    for one, other, again in zip(
        *(model.packed_activations(data.x_test) for model in models), strict=True
    ):
        assert torch.equal(one, other)
        assert torch.equal(one, again)


@relaxations
def test_soft_outputs_and_gradients_differ_by_rounding_alone(name: str) -> None:
    """Within 1e-6 of the largest: 8 ulps of float32 for two layers, a softmax and a group sum each."""
    x = random_bits(65, 12, seed=9)
    y = x[:, :2].sum(-1)
    outputs, gradients = [], []
    for model in twins(name):
        logits = model.train()(x, draw=KEY)
        functional.cross_entropy(logits, y).backward()
        outputs.append(model(x, mode="soft").detach().double())
        gradients.append(torch.stack([layer.logits.grad.double() for layer in model.layers]))
    for values in (outputs, gradients):
        for value in values[:2]:
            assert (value - values[2]).abs().max() <= 1e-6 * values[2].abs().max()


@relaxations
def test_training_on_two_backends_parts_by_rounding_alone(name: str) -> None:
    """Losses of five steps within 1e-5, logits within 5 % of one of Adam's steps."""
    models, losses = twins(name), []
    for model in models:
        history = lgn.train(
            model, problem(), steps=5, batch_size=20, lr=LR, eval_every=1, progress=False
        ).history
        losses.append(history.loc[history["split"] == "val", "loss"].to_numpy()[1:])
    for model, loss in zip(models[:2], losses[:2], strict=True):
        assert np.allclose(loss, losses[2], rtol=1e-5, atol=0)
        for mine, theirs in zip(model.parameters(), models[2].parameters(), strict=True):
            assert (mine.double() - theirs).abs().max() < 0.05 * LR


@pytest.mark.parametrize("read", [lambda p: p.dense(), lambda p: p.grad()], ids=["dense", "grad"])
def test_curvature_on_two_backends_differs_by_rounding_alone(
    read: Callable[[lgn.HessianProbe], Tensor],
) -> None:
    """float32 within 1e-5 of the largest entry, float64 within 1e-13."""
    sizes = {"width": 6, "depth": 2}
    exact = read(probe_of("reference", torch.float64, **sizes))
    for backend, dtype, bound in (
        ("cpu", torch.float64, 1e-13),
        ("cpu", torch.float32, 1e-5),
        ("reference", torch.float32, 1e-5),
    ):
        found = read(probe_of(backend, dtype, **sizes))
        assert (found - exact).abs().max() <= bound * exact.abs().max()
