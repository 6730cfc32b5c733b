"""Kernels are compiled before they are needed, by processes that share Numba's cache on disk.

Numba compiles under a lock, so that threads would take turns. Each process compiles other kernels,
and those that have functions in common in one.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from filelock import FileLock
from tqdm.auto import tqdm

from lgn_analysis.data import Dataset
from lgn_analysis.experiments import measures
from lgn_analysis.experiments.specs import ProbePlan, RunSpec
from lgn_analysis.gates.relaxations import RELAXATIONS, GumbelST, Relaxation, Soft
from lgn_analysis.kernels.cpu.runtime import compiling
from lgn_analysis.metrics import evaluate
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training.stepper import warm_up

_LOGGER: Final = logging.getLogger(__name__)
_TICK: Final = 1.0
"""Seconds between two updates of the bar."""
_PROBES: Final = ProbePlan(
    samples=64,
    trace_probes=2,
    density_probes=2,  # directions go in pairs, and a pair's kernel is another than that of one
    density_steps=4,
    lemma_scales=(0.1,),
    lemma_draws=2,
    lemma_trace_probes=2,
    landscape_directions=1,
    landscape_grid=3,
)


@dataclass(frozen=True)
class Part:
    """Kernels that are needed together.

    Attributes:
        name: of the part.
        family: parts of one family call the same functions, which a process compiles once.
        kernels: how many they are, one for each set of types.
        use: does something small that calls each of them.
    """

    name: str
    family: str
    kernels: int
    use: Callable[[], object]


def parts_of(specs: Iterable[RunSpec]) -> set[str]:
    """Return the names of the parts that runs on a CPU call."""
    names: set[str] = set()
    for spec in specs:
        if spec.device != "cpu":
            continue
        plan = spec.probes
        methods = (spec.network.relaxation,) if spec.timing is None else spec.timing.methods
        names |= {training_part(method) for method in methods}
        if spec.timing is None:
            names.add("evaluation")
        if plan.trace_steps or plan.density_probes:
            names.add("curvature32")
        if plan.lemma_steps or plan.landscape_directions:
            names.add("curvature64")
    return names


def training_part(relaxation: str) -> str:
    """Return the name of the part that trains by a relaxation."""
    return "hard" if RELAXATIONS[relaxation].hard else "soft"


def compile_kernels(names: Iterable[str], *, workers: int = 2, show: bool = True) -> None:
    """Compile the parts that the cache lacks, and return when they are there.

    Args:
        names: of the parts.
        workers: processes.
        show: draw a bar.
    """
    wanted = set(names)
    if compiled(wanted):
        return
    with FileLock(compiling.cache_folder() / "lgn_analysis.lock"):
        parts = _missing(wanted)  # another process may have compiled them meanwhile
        bar = tqdm(
            desc="compiling kernels, once on this machine:",
            total=sum(part.kernels for part in parts),
            bar_format="{desc} {n} of {total} |{bar}| {elapsed}",
            disable=not show or not parts,
        )
        running: list[subprocess.Popen[str]] = []
        with bar, ThreadPoolExecutor(workers) as pool:
            try:
                groups = _groups(parts, workers)
                futures = [pool.submit(_compile, group, bar, running) for group in groups]
                while wait(futures, timeout=_TICK).not_done:
                    bar.refresh()
            except BaseException:  # Ctrl-C among them
                pool.shutdown(wait=False, cancel_futures=True)
                for process in running:
                    process.kill()
                raise
            for future in futures:
                future.result()


def _groups(parts: Sequence[Part], workers: int) -> list[list[Part]]:
    """Return what each process compiles: a family, or a part where there is one family alone."""
    families: dict[str, list[Part]] = {}
    for part in parts:
        families.setdefault(part.family, []).append(part)
    if len(families) == 1 and workers > 1:
        return [[part] for part in parts]
    return list(families.values())


def compiled(names: Iterable[str]) -> bool:
    """Return whether the parts lie in the cache already."""
    return not _missing(set(names))


def _missing(names: set[str]) -> list[Part]:
    unknown = names - PARTS.keys()
    assert not unknown, unknown
    return [
        part
        for part in PARTS.values()
        if part.name in names and not compiling.mark_of(part.name).exists()
    ]


def _compile(parts: Sequence[Part], bar: tqdm, running: list[subprocess.Popen[str]]) -> None:
    """Compile some parts in a process of its own; the bar moves with every kernel."""
    # Not by multiprocessing: its processes import the caller's main module, which may not expect it.
    root = Path(__file__).parents[3]
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    code = f"from {__name__} import compile_here; compile_here()"
    command = [sys.executable, "-P", "-c", code, *(part.name for part in parts)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        running.append(process)
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in process.stdout:
            bar.update(min(1, bar.total - bar.n))
        error = process.stderr.read()
    if process.returncode:
        _LOGGER.warning(
            "kernels could not be compiled beforehand (%s), and are where they are called first",
            error.strip().rpartition("\n")[2] or f"exit status {process.returncode}",
        )


def compile_here() -> None:
    """Compile the parts that the command line names, and print a line for every kernel of theirs."""
    torch.set_num_threads(1)
    compiled_here: list[str] = []

    def report(kernel: str) -> None:
        compiled_here.append(kernel)
        sys.stdout.write(f"{kernel}\n")
        sys.stdout.flush()

    compiling.watch(report)
    for name in sys.argv[1:]:
        end = len(compiled_here) + PARTS[name].kernels
        PARTS[name].use()
        compiling.mark_of(name).touch()
        while len(compiled_here) < end:
            report("from the cache")


def _network(relaxation: Relaxation) -> LogicNetwork:
    return LogicNetwork(8, 8, 2, 2, 1.0, relaxation=relaxation)


def _samples() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(64, 8, dtype=torch.bool), torch.arange(64) % 2


def _evaluate() -> None:
    data = Dataset.from_arrays(*_samples(), *_samples(), *_samples(), name="zeros")
    for relaxation in (Soft(), GumbelST()):
        model = _network(relaxation)
        evaluate(model, data)
        measures.usage_table(model, data)


def _in_single_precision() -> None:
    measures.trace_table(_network(Soft()), _samples(), _PROBES)
    measures.density_table(_network(Soft()), _samples(), _PROBES)


def _in_double_precision() -> None:
    measures.lemma_table(_network(Soft()), _samples(), _PROBES)
    measures.landscape_table(_network(Soft()), _samples(), _PROBES, seed=0)


PARTS: Final = {
    part.name: part
    for part in (
        Part("curvature64", "curvature", 8, _in_double_precision),
        Part("curvature32", "curvature", 6, _in_single_precision),
        Part("soft", "network", 3, lambda: warm_up(_network(Soft()))),
        Part("hard", "network", 3, lambda: warm_up(_network(GumbelST()))),
        Part("evaluation", "network", 7, _evaluate),
    )
}
