"""A reproduction of two claims at the smallest scale, from the runs that tests share."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from lgn_analysis import report
from lgn_analysis.report import Report

CLAIMS = ("C2", "C8")


@dataclass(frozen=True)
class Made:
    """What the reproduction returned, and the cache that it filled."""

    report: Report
    cache: Path

    @property
    def folder(self) -> Path:
        return self.report.folder


@pytest.fixture(scope="session")
def made(smoke_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("report")
    cache = folder / "cache"
    for spec in report.plan("smoke", claims=CLAIMS, cache=cache).missing:
        shutil.copytree(smoke_cache / spec.key, cache / spec.key)
    result = report.reproduce(
        "smoke", claims=CLAIMS, out=folder / "figures", cache=cache, progress=False
    )
    return Made(result, cache)
