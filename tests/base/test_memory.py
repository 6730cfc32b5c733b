"""What the system has free, and the refusal of what cannot fit, by pretended memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.base import memory
from lgn_analysis.base.errors import DataError, InvalidInputError
from lgn_analysis.base.memory import available_memory, format_bytes, require_memory
from lgn_analysis.data import Dataset, load_dataset
from tests.malformed.allocations import REFUSALS, Refusal
from tests.tiny import fresh

MIB = 2**20
Pretend = Callable[[int | None], None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Have the system say that so many bytes are free."""

    def free(n_bytes: int | None) -> None:
        monkeypatch.setattr(memory, "machine_memory", lambda: n_bytes)
        monkeypatch.setattr(memory, "OWN_CGROUPS", Path("/nowhere"))

    return free


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
def test_what_cannot_fit_is_refused_before_it_is_made(case: Refusal, pretend: Pretend) -> None:
    made = case.make()
    pretend(512 * 1024)
    with pytest.raises(InvalidInputError, match=f"^{case.sentence}"):
        case.work(made)


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
def test_nothing_is_refused_where_the_system_does_not_say(case: Refusal, pretend: Pretend) -> None:
    made = case.make()
    pretend(None)
    case.work(made)


def test_the_limit_is_exact(pretend: Pretend) -> None:
    pretend(1000)
    require_memory(1000, "a thousand bytes", "take fewer")
    with pytest.raises(InvalidInputError) as caught:
        require_memory(1001, "the activations of 12 x 64000 gates", "lower batch_size")
    assert str(caught.value) == (
        "the activations of 12 x 64000 gates need 1001 bytes and 1000 bytes are free; "
        "lower batch_size"
    )


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (2048, "2 KiB"),
        (5 * MIB // 2, "2.5 MiB"),
        (12_562_800_000, "11.7 GiB"),
        (2**40, "1 TiB"),
        (10**17, "90949 TiB"),
    ],
)
def test_sizes_are_said_in_the_unit_that_fits(n_bytes: int, text: str) -> None:
    assert format_bytes(n_bytes) == text


def test_linux_reports_what_is_available(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable:   64 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "absent")
    assert available_memory() == 64 * 1024


def test_elsewhere_physical_memory_is_the_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "absent")
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "absent")
    sizes = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    assert available_memory() == 1000 * 4096
    monkeypatch.delattr("os.sysconf")
    assert available_memory() is None
    assert available_memory("meta") is None


@dataclass(frozen=True)
class Groups:
    """The files of control groups, and what they leave; ``own`` is /proc/self/cgroup."""

    name: str
    own: str
    files: dict[str, str]
    left: int


UNIFIED = {"memory.current": "700", "memory.stat": "anon 400\ninactive_file 250\n"}
OLD = {"memory.usage_in_bytes": "900", "memory.stat": "inactive_file 1\ntotal_inactive_file 50\n"}
GROUPS = [
    Groups(
        "a container, whose own group is the root",
        "0::/\n",
        {"memory.max": "1000", **UNIFIED},
        1000 - 700 + 250,
    ),
    Groups(
        "a job, whose limit is that of a group above",
        "0::/slurm/job_7/step_0\n",
        {
            "slurm/job_7/memory.max": "800",
            **{f"slurm/job_7/{name}": text for name, text in UNIFIED.items()},
            "slurm/job_7/step_0/memory.max": "max",
            **{f"slurm/job_7/step_0/{name}": text for name, text in UNIFIED.items()},
        },
        800 - 700 + 250,
    ),
    Groups(
        "the first version, whose memory has a tree of its own",
        "9:name=systemd:/\n4:memory:/docker/abc\n0::/\n",
        {
            "memory/docker/abc/memory.limit_in_bytes": "2000",
            **{f"memory/docker/abc/{name}": text for name, text in OLD.items()},
        },
        2000 - 900 + 50,
    ),
    Groups("no limit at all", "0::/\n", {"memory.max": "max", **UNIFIED}, 10**6),
    Groups(
        "a limit above what the machine has", "0::/\n", {"memory.max": "9" * 12, **UNIFIED}, 10**6
    ),
]


@pytest.mark.parametrize("groups", GROUPS, ids=lambda groups: groups.name)
def test_the_limit_of_a_container_or_a_job_counts(
    groups: Groups, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "own").write_text(groups.own)
    for name, text in groups.files.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(memory, "machine_memory", lambda: 10**6)
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "tree")
    assert available_memory() == groups.left


def test_a_gpu_is_asked_by_its_driver_and_by_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for name, value in (
        ("mem_get_info", (3 * MIB, 9 * MIB)),
        ("memory_reserved", 5 * MIB),
        ("memory_allocated", 4 * MIB),
    ):
        monkeypatch.setattr(
            torch.cuda, name, lambda device, value=value: asked.append(device) or value
        )
    with pytest.raises(
        InvalidInputError, match=r"need 5 MiB and 4 MiB are free on cuda:1; take few"
    ):
        require_memory(5 * MIB, "two layers", "take fewer", device="cuda:1")
    require_memory(4 * MIB, "two layers", "take fewer", device="cuda:1")
    assert set(asked) == {torch.device("cuda:1")}


def test_a_data_set_is_refused_before_it_is_looked_for(pretend: Pretend, tmp_path: Path) -> None:
    pretend(3 * 10**9)
    with pytest.raises(DataError) as caught:
        load_dataset("cifar10", 31, root=tmp_path)
    assert str(caught.value) == (
        "the bits of 'cifar10' with 31 thresholds (60000 samples of 95232 features, a byte each) need "
        "5.66 GiB and 2.79 GiB are free; use thresholds=3"
    )


@pytest.mark.parametrize(
    ("free", "advice"),
    [
        (60_000 * 3072 * 5, "use thresholds=3"),
        (60_000 * 3072 * 4, "use thresholds=2"),
        (60_000 * 3072 * 3 - 1, "use a machine with more memory"),
    ],
)
def test_the_advice_about_thresholds_fits(
    free: int, advice: str, pretend: Pretend, tmp_path: Path
) -> None:
    pretend(free)
    with pytest.raises(DataError, match=f"{advice}$"):
        load_dataset("cifar10", 31, root=tmp_path)
    if found := re.search(r"=(\d)$", advice):
        with pytest.raises(DataError, match="the files of 'cifar10' are not in"):
            load_dataset("cifar10", int(found[1]), root=tmp_path, download=False)


def test_a_trillion_thresholds_are_refused_and_not_made() -> None:
    with pytest.raises(DataError, match=r"with 1000000000000 thresholds .* need 1\d+ TiB"):
        load_dataset("digits", 10**12)


def test_memory_is_asked_for_by_a_run_and_by_no_step(
    separable_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def count(steps: int) -> int:
        asked.clear()
        monkeypatch.setattr(memory, "machine_memory", lambda: asked.append(None) or 2**40)
        model = fresh()
        lgn.train(
            model, separable_data, steps=steps, batch_size=20, eval_every=steps, progress=False
        )
        return len(asked)

    count(2)  # the first run of a kind compiles kernels by a network of its own
    assert count(2) == count(40) > 0
