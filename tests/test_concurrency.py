"""Several threads, forked workers and spawned processes have the bits of one run after another.

Everything here ends in time or fails: a test that waits for ever would tell nothing.
"""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import pytest
import torch
from numba.core.compiler_lock import global_compiler_lock
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.checkpoints import Checkpoint, read_checkpoint
from lgn_analysis.data import Dataset
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.kernels import cpu, select_backend
from lgn_analysis.kernels.cpu.runtime import thread_count, threads
from lgn_analysis.kernels.cpu.runtime.compiling import entry
from lgn_analysis.plots.style import panels, style
from tests.tiny import fresh, random_bits, short, timeless

Result = TypeVar("Result")

LONG = 120.0
"""Seconds after which a test has failed; they take one or two."""

BACKENDS = pytest.mark.parametrize("backend", ["cpu", "reference"])
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
# From 3.12 on Python warns of any fork of a process that has threads.
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def three_threads_for_small_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let all kernels call helpers, so that threads compete for them and forks leave them behind."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "MIN_SHARD", 1e-9)
    monkeypatch.setattr(threads, "MIN_TOTAL", 0)
    monkeypatch.setattr(thread_count, "TRIAL_SHARE", 0.0)
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def at_once(jobs: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run each job in a thread of its own, all starting together; return what they returned."""
    results: dict[int, Result] = {}
    errors: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(place: int) -> None:
        try:
            start.wait(LONG)
            results[place] = jobs[place]()
        except BaseException as error:
            errors.append(error)

    running = [
        threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(jobs))
    ]
    for thread in running:
        thread.start()
    deadline = time.monotonic() + LONG
    for thread in running:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not any(thread.is_alive() for thread in running), "the threads wait for each other"
    if errors:
        raise errors[0]
    return [results[place] for place in range(len(jobs))]


def state_of(model: lgn.LogicNetwork) -> list[Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def moments(checkpoint: Checkpoint) -> list[Tensor]:
    """Adam's state, whose names begin with the number of a layer."""
    names = sorted(name for name in checkpoint.tensors if "/" in name)
    return [checkpoint.tensors[name] for name in names]


def assert_same(first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
    assert len(first) == len(second) > 0
    assert all(map(torch.equal, first, second))


@BACKENDS
def test_models_trained_at_once_have_the_bits_of_one_after_the_other(
    separable_data: Dataset, relaxation: lgn.Relaxation, backend: str
) -> None:
    def run(seed: int) -> tuple[list[Tensor], str]:
        model = fresh(relaxation, seed=seed, backend=backend)
        result = short(model, separable_data, steps=12, seed=seed)
        return state_of(model), timeless(result.history).to_csv()

    expected = [run(seed) for seed in (1, 2)]
    for (state, history), (wanted, told) in zip(
        at_once([lambda: run(1), lambda: run(2)]), expected, strict=True
    ):
        assert_same(state, wanted)
        assert history == told


@BACKENDS
def test_one_model_is_trained_by_one_run_at_a_time(
    separable_data: Dataset, tmp_path: Path, backend: str
) -> None:
    model, undisturbed = fresh(backend=backend), fresh(backend=backend)

    def train_it(step: int, model: lgn.LogicNetwork, row: dict[str, float]) -> None:
        with pytest.raises(InvalidInputError, match=r"trained already.*train copy.deepcopy"):
            at_once([lambda: short(model, separable_data, out=tmp_path / "second")])
        short(copy.deepcopy(model), separable_data, steps=1)

    short(model, separable_data, steps=3, callbacks=[train_it])
    short(undisturbed, separable_data, steps=3)
    assert_same(state_of(model), state_of(undisturbed))
    assert not (tmp_path / "second").exists()
    short(model, separable_data, steps=1, out=tmp_path / "second")  # it is free again


@BACKENDS
def test_one_model_is_evaluated_from_many_threads_at_once(
    separable_data: Dataset, backend: str
) -> None:
    model = fresh(lgn.GumbelST(), width=120, backend=backend).eval()
    x = separable_data.x_train

    def look() -> tuple[list[Tensor], str]:
        outputs = [model(x), model(x, mode="soft"), model(x, mode="noisy", draw=3)]
        tables = lgn.evaluate(model, separable_data).to_frame(), lgn.gate_usage(model, x)
        return [out.detach() for out in outputs], "".join(table.to_csv() for table in tables)

    outputs, tables = look()
    for others, others_tables in at_once([look] * 4):
        assert_same(others, outputs)
        assert others_tables == tables


class Pause(nn.Module):
    """Lets other threads go on in the middle of a forward."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.002)
        return x


def perceptron() -> nn.Module:
    """A module in train mode, whose dropout draws random numbers and drops nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(12, 4), Pause(), nn.Tanh(), nn.Dropout(0.0), nn.Linear(4, 3)]
        return nn.Sequential(*layers).double()


def probed(probe: lgn.HessianProbe) -> list[Tensor]:
    v = torch.linspace(-1, 1, 2 * probe.shape[0], dtype=torch.float64).view(-1, 2)
    pairs = probe.eigs(k=2, tol=1e-4, max_matvecs=60, method="lanczos")
    trace = probe.trace(n_probes=4)
    numbers = torch.tensor([trace.estimate, *trace.ci, probe.loss()])
    return [probe @ v.to(probe.dtype), pairs.vectors, numbers, probe.grad()]


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("kind", ["cpu", "reference", "module"])
def test_probes_in_threads_have_the_bits_of_one_after_the_other(kind: str, shared: bool) -> None:
    x, y = random_bits(70, 12), torch.arange(70) % 3
    if kind == "module":
        model, x = perceptron(), x.double()
    else:
        model = fresh(backend=kind)

    def make() -> lgn.HessianProbe:
        return lgn.HessianProbe(model, (x, y))

    expected = probed(make())
    one = make()
    for found in at_once([lambda: probed(one if shared else make())] * 3):
        assert_same(found, expected)


class Slow(nn.Module):
    """Stays in its forward, with other values than its own, until another thread was let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 36, dtype=torch.float64).view(3, 12))
        self.bias = nn.Parameter(torch.linspace(0, 1, 3, dtype=torch.float64))
        self.is_held, self.others = threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        if float(self.weight.detach().square().sum()) > 100 and not self.is_held.is_set():
            self.is_held.set()
            self.others.wait(LONG)
            time.sleep(0.1)
        return torch.tanh(x @ self.weight.T + self.bias)


@pytest.mark.parametrize("hidden", [False, True], ids=["handed", "in its place"])
@pytest.mark.parametrize("params", [None, "bias"])
def test_a_probe_copies_no_values_that_another_one_put_into_the_module(
    hidden: bool, params: str | None
) -> None:
    """The module of the other probe holds a hundred times its own weights meanwhile."""
    module = Slow()
    pair = random_bits(20, 12).double(), torch.arange(20) % 3

    def penalised(output: Tensor, y: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(output, y)
        return loss + module.weight.square().sum() if hidden else loss

    def probe() -> lgn.HessianProbe:
        return lgn.HessianProbe(module, pair, loss_fn=penalised, params=params)

    def late() -> Tensor:
        assert module.is_held.wait(LONG)
        module.others.set()
        return probe().grad()

    expected = probe().grad()
    first = lgn.HessianProbe(module, pair, loss_fn=penalised)
    first.operator.move_to({name: 100 * value for name, value in first.operator.params.items()})
    _, found = at_once([first.grad, late])
    assert torch.equal(found, expected)


def test_a_network_can_be_called_while_another_thread_moves_its_logits_about() -> None:
    """Noise and slices are other logits, which the model itself must never hold."""
    model, x = fresh(), random_bits(20, 12)
    expected, seen, looking = model(x, mode="soft").detach(), [], False

    def look(*_: Any) -> None:
        nonlocal looking
        if not looking:
            looking = True
            seen.extend(at_once([lambda: model(x, mode="soft").detach()]))
            looking = False

    model.register_forward_hook(look)
    pair = x, torch.arange(20) % 3
    lgn.HessianProbe(model, pair, noise=lgn.GumbelNoise(draws=1)).grad()
    probed = len(seen)
    lgn.landscape(model, pair, grid=3)
    assert len(seen) > probed > 0
    assert all(torch.equal(outputs, expected) for outputs in seen)


def test_a_probe_does_not_put_back_what_another_thread_drew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The state of torch's generator is one for all threads; a saved one would repeat draws."""
    model, pair = fresh(), (random_bits(20, 12), torch.arange(20) % 3)
    drawn: list[Tensor] = []
    prepare = cpu.Curvature.__init__

    def draw_meanwhile(*args: Any, **options: Any) -> None:
        at_once([lambda: drawn.append(torch.rand(()))])
        prepare(*args, **options)

    monkeypatch.setattr(cpu.Curvature, "__init__", draw_meanwhile)
    lgn.HessianProbe(model, pair).trace(n_probes=2)
    lgn.HessianProbe(model, [pair, pair]).check()
    drawn.append(torch.rand(()))
    assert len(drawn) > 2
    assert len(torch.stack(drawn).unique()) == len(drawn)


# What DataLoader workers do stands at the top, where a spawned process would find it too.
KEY = NoiseKey(3, Purpose.EVALUATION, 5)


class Answers(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """What a model says of some samples, and noise: computed by whoever reads it."""

    def __init__(self, model: lgn.LogicNetwork, x: Tensor, width: int) -> None:
        self.model, self.x, self.width = model, x, width

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = self.x[10 * index : 10 * index + 10]
        modes = ("soft", "noisy", "discrete")
        with torch.no_grad():
            outputs = torch.stack([self.model(x, mode=mode, draw=KEY) for mode in modes])
        noise = select_backend(x.device, self.model.backend).gumbel(
            KEY, index, self.width, dtype=torch.float32, device="cpu"
        )
        return outputs, noise


def by_workers(data: Any) -> DataLoader[Any]:
    return DataLoader(
        data, batch_size=3, num_workers=2, multiprocessing_context="fork", timeout=LONG
    )


@needs_fork
@forks
@BACKENDS
def test_forked_loader_workers_evaluate_and_draw_the_same_bits(
    separable_data: Dataset, backend: str
) -> None:
    model = fresh(backend=backend)
    short(model, separable_data, steps=2)  # the kernels' threads, and torch's, are there now
    answers = Answers(model, separable_data.x_train, width=3000)
    alone = list(DataLoader(answers, batch_size=3))
    for found, expected in zip(by_workers(answers), alone, strict=True):
        assert_same(found, expected)


@needs_fork
@forks
def test_a_probe_reads_a_loader_with_forked_workers(separable_data: Dataset) -> None:
    model = fresh()
    pair = (separable_data.x_test, separable_data.y_test)
    expected = lgn.HessianProbe(model, list(DataLoader(TensorDataset(*pair), batch_size=3)))
    found = lgn.HessianProbe(model, by_workers(TensorDataset(*pair)))
    assert torch.equal(found.grad(), expected.grad())
    assert found.trace(n_probes=2).estimate == expected.trace(n_probes=2).estimate


def ended_well(process: multiprocessing.process.BaseProcess) -> bool:
    """Return whether a process ended in time and without an error; end it if it did not."""
    process.join(LONG)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode == 0


@pytest.mark.parametrize(
    ("method", "backend"),
    [
        pytest.param("fork", "cpu", marks=needs_fork),
        pytest.param("fork", "reference", marks=needs_fork),
        pytest.param("spawn", "cpu", marks=pytest.mark.slow),
        pytest.param("spawn", "reference", marks=pytest.mark.slow),
    ],
)
@forks
def test_training_in_another_process_has_the_same_bits(
    separable_data: Dataset, tmp_path: Path, method: str, backend: str
) -> None:
    # Wide enough for torch to use its own threads, which a forked child has lost.
    options: dict[str, Any] = {"steps": 6, "batch_size": 40, "eval_every": 3, "progress": False}
    model = fresh(width=2100, backend=backend)
    lgn.train(model, separable_data, out=tmp_path / "here", **options)
    process = multiprocessing.get_context(method).Process(
        target=lgn.train,
        args=(fresh(width=2100, backend=backend), separable_data),
        kwargs={"out": tmp_path / "there", **options},
    )
    process.start()
    assert ended_well(process)
    here, there = (
        read_checkpoint(tmp_path / name / "last.safetensors") for name in ("here", "there")
    )
    assert_same(state_of(here.model), state_of(there.model))
    assert_same(state_of(there.model), state_of(model))
    assert_same(moments(here), moments(there))
    histories = [timeless(lgn.read_history(tmp_path / name)) for name in ("here", "there")]
    assert histories[0].equals(histories[1])


def child_says(question: Callable[[], bool]) -> bool:
    """Fork, and return whether the child answers yes in time."""
    child = os.fork()
    if child == 0:
        answer = 1
        try:
            answer = 0 if question() else 1
        finally:
            os._exit(answer)
    deadline = time.monotonic() + LONG
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1]) == 0


@needs_fork
@forks
def test_a_forked_child_has_as_many_threads_and_a_pool_of_its_own() -> None:
    before = cpu.gumbel(KEY, 0, 100)
    large = torch.ones(2**20)  # shared out by torch itself

    def question() -> bool:
        same = torch.get_num_threads() == 3 and large.sum() == 2**20
        return bool(same) and torch.equal(cpu.gumbel(KEY, 0, 100), before)

    for _ in range(3):
        assert large.sum() == 2**20
        assert child_says(question)
        assert torch.get_num_threads() == 3
        assert torch.equal(cpu.gumbel(KEY, 0, 100), before)


@needs_fork
@forks
def test_a_fork_of_another_thread_has_threads_too() -> None:
    """Each thread that calls torch has OpenMP threads of its own."""
    large = torch.ones(2**20)

    def fork() -> bool:
        return bool(large.sum() == 2**20) and child_says(lambda: bool(large.sum() == 2**20))

    assert large.sum() == 2**20
    assert at_once([fork, fork]) == [True, True]
    assert large.sum() == 2**20


@needs_fork
def test_a_child_of_a_process_without_the_cpu_kernels_has_as_many_threads_too() -> None:
    program = """
        import os, signal, sys, warnings
        import torch
        from lgn_analysis.network import LogicNetwork

        warnings.simplefilter("ignore")
        torch.set_num_threads(2)
        model = LogicNetwork(12, 6000, 1, 3, 2.0, backend="reference")
        x = torch.zeros(64, 12)
        before = model(x, mode="soft")  # by torch's threads, which a child waits for in vain
        assert "lgn_analysis.kernels.cpu" not in sys.modules
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            same = torch.equal(model(x, mode="soft"), before)
            os._exit(0 if same and torch.get_num_threads() == 2 else 1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=LONG, check=True)


@entry
def add_one(x):
    return x + 1


@needs_fork
@forks
def test_a_fork_waits_until_another_thread_has_compiled() -> None:
    """Else the child would find the compiler locked by a thread that it does not have."""
    locked, may_end = threading.Event(), threading.Event()

    def compile_long() -> None:
        with global_compiler_lock:
            locked.set()
            may_end.wait(0.3)

    compiling = threading.Thread(target=compile_long, daemon=True)
    compiling.start()
    locked.wait(LONG)
    assert child_says(lambda: add_one(1) == 2 and not global_compiler_lock.is_locked())
    may_end.set()
    compiling.join(LONG)
    assert add_one(2) == 3
    assert not global_compiler_lock.is_locked()


def test_a_thread_that_outlives_the_main_thread_computes_on() -> None:
    """Python ends its thread pools with the main thread, and only then waits for others."""
    program = """
        import threading
        import torch
        from lgn_analysis.kernels import cpu
        from lgn_analysis.kernels.cpu.runtime import threads
        from lgn_analysis.gates.noise import NoiseKey, Purpose

        threads.MIN_SHARD, threads.MIN_TOTAL = 1e-9, 0
        torch.set_num_threads(2)
        key = NoiseKey(1, Purpose.TRAINING)
        words = torch.arange(40)[:, None]
        wiring, gates = torch.tensor([[0, 1], [2, 3]]), torch.tensor([6, 8])
        before = cpu.gumbel(key, 0, 100), cpu.gate_layer_packed(words, wiring, gates)

        def late():
            for helper in threading.enumerate():
                if helper.name.startswith("lgn-analysis"):
                    helper.join()
            after = cpu.gumbel(key, 0, 100), cpu.gate_layer_packed(words, wiring, gates)
            print(all(map(torch.equal, before, after)))

        threading.Thread(target=late).start()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n", done.stderr


def global_state() -> dict[str, Any]:
    """Return what a library must leave as it is."""
    return {
        "torch generator": torch.random.get_rng_state().tolist(),
        "NumPy generator": str(np.random.get_state()),  # noqa: NPY002 (it is the global one)
        "Python generator": random.getstate(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "anomalies": torch.is_anomaly_enabled(),
        "warnings": list(warnings.filters),
        "errors": np.geterr(),
        "print options": np.get_printoptions(),
        "style": dict(mpl.rcParams),
        "figures": mpl.pyplot.get_fignums(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        # Torch's compiler sets some of its own when something imports it.
        "environment": {k: v for k, v in os.environ.items() if not k.startswith("TORCH")},
        "folder": Path.cwd(),
        "logging": (logging.getLogger().level, list(logging.getLogger().handlers)),
        "recursion": sys.getrecursionlimit(),
    }


def train_a_model(data: Dataset, out: Path) -> None:
    short(fresh(), data, steps=4, out=out / "cpu")
    short(fresh(lgn.CAGE(), backend="reference"), data, steps=4, out=out / "reference")
    lgn.resume(out / "cpu", data=data, steps=6, progress=False)


def evaluate_a_model(data: Dataset, out: Path) -> None:
    model = fresh()
    lgn.evaluate(model, data)
    lgn.gate_usage(model, data)
    lgn.save(model, out / "model.safetensors")
    lgn.load(out / "model.safetensors")(data.x_test)


def probe_models(data: Dataset, out: Path) -> None:
    pair = data.x_test, data.y_test
    for backend in ("cpu", "reference"):
        probe = lgn.HessianProbe(fresh(backend=backend), pair, noise=lgn.GumbelNoise(draws=2))
        probe.check()
        probe.trace(n_probes=4)
        probe.eigs(k=2, tol=1e-2, method="lanczos")
        probe.density(n_probes=2, steps=4, deflate=0, method="lanczos")
    module = lgn.HessianProbe(perceptron(), (pair[0].double(), pair[1]))
    module.trace(n_probes=4, method="xtrace")
    lgn.gap_anatomy(fresh(), data)
    lgn.lemma1(fresh(), pair, scales=[0.5], draws=2, order=2, trace_probes=2)
    lgn.landscape(fresh(), pair, grid=3)


def draw_plots(data: Dataset, out: Path) -> None:
    history = short(fresh(), data, steps=4).history
    with style():
        figure, (ax,) = panels(1)
        lgn.plots.accuracy_curves(history, ax=ax)
        figure.savefig(out / "figure.png")


@pytest.mark.parametrize("work", [train_a_model, evaluate_a_model, probe_models, draw_plots])
def test_nothing_that_belongs_to_the_process_is_changed(
    work: Callable[[Dataset, Path], None], separable_data: Dataset, tmp_path: Path
) -> None:
    before = global_state()
    work(separable_data, tmp_path)
    after = global_state()
    for what, value in before.items():
        assert after[what] == value, what
