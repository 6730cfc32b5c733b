"""``lgn-analysis reproduce`` and ``figures``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from lgn_analysis.base.errors import InvalidInputError, SweepError
from lgn_analysis.cli.output import echo
from lgn_analysis.cli.parsing import WHOLE

_LONG = ("paper",)
"""Presets whose whole plan is printed before they begin."""


def reproduce(
    *,
    preset: str = "quick",
    claims: Annotated[
        tuple[str, ...],
        arg(metavar="C1,C2,…", help_behavior_hint="(default: all; repeatable)"),
        tyro.conf.UseAppendAction,
    ] = (),
    out: Annotated[
        Path | None, arg(metavar="DIR", help_behavior_hint="(default: runs/PRESET)")
    ] = None,
    cache: Annotated[Path, arg(metavar="DIR")] = Path("runs/cache"),
    workers: Annotated[int, WHOLE] = 2,
    scheduler: Annotated[
        str | None, arg(metavar="ADDRESS", help_behavior_hint="(default: local processes)")
    ] = None,
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    retry: bool = True,
    progress: bool = True,
) -> None:
    """Run the experiments behind the claims, draw their figures, write ledger and report.

    Finished runs are kept in the cache: stop it with Ctrl-C or kill it, start it again, and no
    finished run is repeated. Presets and claims can be run in pieces: the report speaks of every
    CSV in --out.

    What it takes: lgn-analysis reproduce --preset fashion --dry-run

    Some claims: lgn-analysis reproduce --preset fashion --claims C1,C2 --claims M2

    A cluster: lgn-analysis reproduce --preset paper --scheduler tcp://10.0.0.1:8786

    Args:
        preset: the scale: smoke (seconds, decides nothing), quick (minutes), cpu (digits and mnist5k,
            about an hour), fashion (Fashion-MNIST whole and deep, about an hour) or paper (the paper's
            own sizes, on GPUs).
        claims: run only what decides these, separated by commas.
        out: folder for CSVs, figures, claims.md and report.html; one for each preset, whose verdicts
            would not mix.
        cache: folder of finished runs; several sweeps may share it.
        workers: local processes, one thread each.
        scheduler: address that `dask scheduler` prints; its workers do the runs and send the
            records back, so no shared folder is needed. Needs the extra `cluster`.
        dry_run: only print which runs are done or missing, and what time and memory they take.
        retry: make runs again that failed in an earlier call.
        progress: show progress bars.
    """
    from lgn_analysis import report

    chosen = _split(claims)
    if claims and not chosen:
        raise InvalidInputError("--claims names none; leave it out for all claims")
    out = Path("runs") / preset if out is None else out
    for flag, folder in (("--out", out), ("--cache", cache)):
        _require_folder(flag, folder)
    plan = report.plan(preset, claims=chosen, cache=cache, workers=workers, measure=dry_run)
    echo(plan if dry_run or preset in _LONG else plan.total)
    if dry_run:
        return
    result = report.reproduce(
        preset,
        claims=chosen,
        out=out,
        cache=cache,
        workers=workers,
        scheduler=scheduler,
        retry=retry,
        progress=progress,
    )
    width = max(len(verdict.claim.id) for verdict in result.verdicts)
    for verdict in result.verdicts:
        effect = report.format_effect(verdict)
        echo(f"{verdict.claim.id:<{width}}  {verdict.outcome:<17}  {effect}")
    echo(f"{report.tally(result.verdicts)}: see {result.page}")
    for failure in result.failures:
        echo(f"failed: {failure.label} ({failure.key}): {failure.error}")
    if result.failures:
        raise SweepError(
            f"{len(result.failures)} runs failed and are left out; {cache}/KEY.failure.json holds "
            "what was raised, and the same command tries them again"
        )


def figures(
    names: Annotated[tuple[str, ...], tyro.conf.Positional, arg(metavar="NAME …")] = (),
    *,
    folder: Annotated[Path, arg(metavar="DIR")] = Path("figures"),
    readme: Annotated[
        Path | None, arg(metavar="FILE", help_behavior_hint="(default: none)")
    ] = None,
    progress: bool = False,
) -> None:
    """Draw figures, and write the ledger and the report, again, from the CSVs alone.

    Args:
        names: which figures, such as gap; default all whose CSV is there.
        folder: where the CSVs are and the figures go.
        readme: also write the table of claims between the markers of this file.
        progress: show a progress bar.
    """
    from lgn_analysis import report

    _require_folder("--folder", folder)
    verdicts = report.rebuild(folder, names, progress=progress)
    if readme is not None:
        report.update_readme(readme, folder)
    echo(f"{report.tally(verdicts)}: see {folder / 'claims.md'} and {folder / 'report.html'}")


def _require_folder(flag: str, path: Path) -> None:
    """Raise where a file stands where a folder is to be, now and not after hours."""
    for place in (path, *path.parents):
        if place.exists():
            if not place.is_dir():
                raise InvalidInputError(f"{flag} {path}: {place} is a file; name a folder")
            return


def _split(claims: tuple[str, ...]) -> tuple[str, ...]:
    """Return the claims of ``--claims C1,c2 --claims C13``, each once."""
    words = (word.strip().upper() for given in claims for word in given.split(","))
    return tuple(dict.fromkeys(word for word in words if word))
