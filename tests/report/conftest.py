"""A reproduction of two claims at the smallest scale, in this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from lgn_analysis import report
from lgn_analysis.report import Report
from tests.experiments.serial import Serial

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
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("report")
    result = report.reproduce(
        "smoke",
        claims=CLAIMS,
        out=folder / "figures",
        cache=folder / "cache",
        executor=Serial(),
        progress=False,
    )
    return Made(result, folder / "cache")
