from __future__ import annotations

import pytest

from lgn_analysis.data import load_dataset, memory, registry
from lgn_analysis.errors import DataError


def need(monkeypatch, available, **sizes):
    monkeypatch.setattr(memory, "available_memory", lambda: available)
    memory.require_memory(**({"name": "cifar10", "n_samples": 60_000, "n_values": 3072} | sizes))


def test_the_papers_cifar_needs_5_71_gigabytes(monkeypatch):
    with pytest.raises(DataError) as caught:
        need(monkeypatch, 3 * 10**9, n_thresholds=31)
    assert str(caught.value) == (
        "'cifar10' with 31 thresholds needs 5.71 GB for its bits (60000 samples of 95232 features, "
        "a byte each), and 3.00 GB are available; use thresholds=3"
    )


def test_the_limit_is_exact(monkeypatch):
    n_bytes = 60_000 * 95_232
    need(monkeypatch, n_bytes, n_thresholds=31)
    with pytest.raises(DataError):
        need(monkeypatch, n_bytes - 1, n_thresholds=31)


def test_the_advice_fits(monkeypatch):
    one = 60_000 * 3072
    with pytest.raises(DataError, match=r"use thresholds=2$"):
        need(monkeypatch, 3 * one - 1, n_thresholds=31)
    with pytest.raises(DataError, match=r"a machine with more memory$"):
        need(monkeypatch, one - 1, n_thresholds=1)


def test_where_memory_is_unknown_nothing_is_refused(monkeypatch):
    need(monkeypatch, None, n_thresholds=10**6)


def test_linux_reports_what_is_available(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable:   64 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    assert memory.available_memory() == 64 * 1024


def test_elsewhere_physical_memory_is_the_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "absent")
    sizes = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    assert memory.available_memory() == 1000 * 4096
    monkeypatch.delattr("os.sysconf")
    assert memory.available_memory() is None


def test_a_data_set_is_refused_before_it_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "available_memory", lambda: 10**9)
    assert registry.DATASETS["cifar10"].sizes == (45_000, 5_000, 10_000)
    with pytest.raises(DataError, match=r"needs 5.71 GB"):
        load_dataset("cifar10", 31, root=tmp_path)
