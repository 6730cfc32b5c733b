"""What a reproduction would take, before it is begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.memory import format_bytes
from lgn_analysis.experiments import Preset, RunSpec, find_preset
from lgn_analysis.experiments.sweep.cache import RunCache
from lgn_analysis.experiments.sweep.costs import Estimate, duration, estimate_runs, slowness_of
from lgn_analysis.report.catalogue import experiment, numbers_of, select


@dataclass(frozen=True)
class Share:
    """What one experiment would take; a run that several share is in the share of each.

    Attributes:
        experiment: its name.
        claims: the claims it decides.
        runs: how many it has.
        missing: those that the cache lacks.
        failed: how many of the missing ones failed before.
        estimate: of the missing ones.
    """

    experiment: str
    claims: tuple[str, ...]
    runs: int
    missing: tuple[RunSpec, ...]
    failed: int
    estimate: Estimate

    def to_row(self, slowness: float = 1.0) -> dict[str, str]:
        """Return it in words, on a machine so many times as slow as the estimate's."""
        missing = len(self.missing)
        failed = f" ({self.failed} failed before)" if self.failed else ""
        return {
            "claims": ",".join(self.claims) or "–",
            "experiment": self.experiment,
            "runs": str(self.runs),
            "done": str(self.runs - missing),
            "missing": f"{missing}{failed}",
            "one worker": duration(slowness * self.estimate.seconds) if missing else "–",
            "a run": format_bytes(int(self.estimate.bytes)) if missing else "–",
        }


@dataclass(frozen=True)
class Plan:
    """The runs of a reproduction, those that are done and those that are missing.

    Attributes:
        preset: what is to be run.
        shares: an experiment each.
        runs: how many runs there are, each once.
        missing: those that the cache lacks, each once.
        estimate: of the missing ones.
        workers: how many run at once.
        slowness: time of a step on this machine over that of the estimate; None where not measured.
    """

    preset: Preset
    shares: tuple[Share, ...]
    runs: int
    missing: tuple[RunSpec, ...]
    estimate: Estimate
    workers: int
    slowness: float | None = None

    def __str__(self) -> str:
        table = pd.DataFrame([share.to_row(self.slowness or 1.0) for share in self.shares])
        head = f"{self.preset.name}: {self.preset.description}"
        return f"{head}\n{table.to_string(index=False)}\n{self.total}"

    @property
    def total(self) -> str:
        """The sum over all runs, each once, in one line."""
        missing = len(self.missing)
        if not missing:
            return f"{self.runs} runs, all done: nothing to run"
        at_once = min(self.workers, missing)
        devices = ", ".join(sorted({spec.device for spec in self.missing}))
        each = int(self.estimate.bytes)
        time = f"about {duration((self.slowness or 1.0) * self.estimate.wall(at_once))}"
        if self.slowness is not None:
            time = f"on this machine, {time}"
        return (
            f"{self.runs} runs, {self.runs - missing} done, {missing} missing on {devices}: {time} "
            f"with {at_once} at once, and up to "
            f"{format_bytes(at_once * each)} of memory ({format_bytes(each)} a run)"
        )


def plan(
    preset: str = "quick",
    *,
    claims: Sequence[str] = (),
    cache: Path = Path("runs/cache"),
    workers: int = 2,
    measure: bool = False,
) -> Plan:
    """Return what a reproduction would run, and about what it takes, without running anything.

    Args:
        preset: name of the preset.
        claims: only these; empty for all.
        cache: folder of finished runs.
        workers: how many run at once.
        measure: time this machine for a second, where the kernels are compiled already.

    Raises:
        InvalidInputError: an unknown preset or claim, or no worker.
    """
    if workers < 1:
        raise InvalidInputError(f"workers must be at least 1, got {workers}")
    chosen = find_preset(preset)
    store = RunCache(cache)
    shares = []
    every: list[RunSpec] = []
    for name in select(claims):
        specs = list({spec.key: spec for spec in experiment(name).specs(chosen)}.values())
        missing = tuple(store.missing(specs))
        shares.append(
            Share(
                experiment=name,
                claims=tuple(numbers_of(name)),
                runs=len(specs),
                missing=missing,
                failed=sum(store.failure(spec) is not None for spec in missing),
                estimate=estimate_runs(missing),
            )
        )
        every += specs
    missing = tuple(store.missing(every))
    return Plan(
        preset=chosen,
        shares=tuple(shares),
        runs=len({spec.key for spec in every}),
        missing=missing,
        estimate=estimate_runs(missing),
        workers=workers,
        slowness=slowness_of(missing) if measure and missing else None,
    )
