"""From a CSV to its figure, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from lgn_analysis.base.errors import DamagedFileError, InvalidInputError
from lgn_analysis.plots import style
from lgn_analysis.report.catalogue import experiment, experiment_names, plot
from lgn_analysis.report.provenance import require_intact


def draw(name: str, folder: Path) -> list[Path]:
    """Draw one figure from its CSV alone and return the files written.

    Raises:
        InvalidInputError: there is no such figure, or its CSV is missing or empty.
    """
    frame = read_frame(name, folder)
    if frame.empty:
        raise InvalidInputError(
            f"{folder / name}.csv has no rows: its preset has no runs for it; choose another preset"
        )
    options = getattr(experiment(name), "FIGURE_OPTIONS", {})
    files = [folder / f"{name}.png", folder / f"{name}.pdf"]
    with explaining_missing_columns(name, folder), style():
        figure = plot(name).figure(frame, **options)
        # No dates and no versions inside: equal data make equal files.
        figure.savefig(files[0], metadata={"Software": None})
        figure.savefig(files[1], metadata={"CreationDate": None, "Producer": None})
    return files


@contextmanager
def explaining_missing_columns(name: str, folder: Path) -> Iterator[None]:
    """Turn a missing column into an error that names the CSV, which another version has written."""
    try:
        yield
    except KeyError as error:
        raise InvalidInputError(
            f"{folder / name}.csv has no column {error}: another version made it; "
            "run `lgn-analysis reproduce` again"
        ) from error


def read_frame(name: str, folder: Path) -> pd.DataFrame:
    """Return the tidy frame of an experiment, as it was written.

    Raises:
        InvalidInputError: there is no such experiment, or its CSV is missing.
        DamagedFileError: its CSV is not the one that its JSON speaks of.
    """
    if name not in experiment_names():
        raise InvalidInputError(
            f"unknown figure {name!r}; use one of {', '.join(experiment_names())}"
        )
    source = folder / f"{name}.csv"
    if not source.is_file():
        raise InvalidInputError(f"{source} is missing; `lgn-analysis reproduce` makes it")
    require_intact(folder, name)
    return read_table(source)


def read_table(path: Path) -> pd.DataFrame:
    """Return a CSV.

    Raises:
        DamagedFileError: the file is no CSV.
    """
    try:
        return pd.read_csv(path)
    except ValueError as error:  # of the text's encoding too
        message = " ".join(str(error).split())
        raise DamagedFileError(
            f"{path} is no CSV ({message}); `lgn-analysis reproduce` writes it again"
        ) from error


def drawable(folder: Path) -> list[str]:
    """Return the experiments whose CSV in a folder has rows; a preset may leave some without."""
    return [
        name
        for name in experiment_names()
        if (folder / f"{name}.csv").is_file() and len(read_frame(name, folder))
    ]
