"""A record: the folder of one finished run, its tables as CSVs, and what it was in ``spec.json``.

``spec.json`` holds a checksum of every table, so that a table that was changed, lost or damaged
after the run is not taken for its result.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pandas as pd

from lgn_analysis.base.errors import DamagedFileError
from lgn_analysis.base.files import checksum

FACTS: Final = "spec.json"


@contextmanager
def new_record(folder: Path, key: str) -> Iterator[Path]:
    """Yield a folder that is the record ``key`` in ``folder`` when the block has ended well."""
    made = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=folder))
    try:
        yield made
        install(made, folder / key)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def install(made: Path, place: Path) -> None:
    """Rename a whole record into its place, unless another sweep was there first."""
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def write_record(
    folder: Path, tables: Mapping[str, pd.DataFrame], facts: Mapping[str, Any]
) -> None:
    """Write the tables that have rows, and the facts with their checksums."""
    sums = {}
    for name, frame in tables.items():
        if not frame.empty:
            content = frame.to_csv(index=False).encode()
            (folder / f"{name}.csv").write_bytes(content)
            sums[f"{name}.csv"] = checksum(content)
    text = json.dumps({**facts, "checksums": sums}, indent=2)
    (folder / FACTS).write_text(text, encoding="utf-8")


def read_record(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the tables of a record by their names.

    Raises:
        DamagedFileError: a file is not what was written.
    """
    try:
        sums: dict[str, str] = json.loads((folder / FACTS).read_bytes())["checksums"]
        contents = {name: (folder / name).read_bytes() for name in sums}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(_damaged(folder, f"{type(error).__name__}: {error}")) from error
    for name, content in contents.items():
        if checksum(content) != sums[name]:
            raise DamagedFileError(_damaged(folder, f"{name} is not what its checksum says"))
    return {
        name.removesuffix(".csv"): pd.read_csv(io.BytesIO(content))
        for name, content in contents.items()
    }


def _damaged(folder: Path, why: str) -> str:
    return f"the record {folder} is damaged ({why}); delete the folder, and the run is made again"
