"""What is kept of a run that failed, so that it is shown, and made again on the next call."""

from __future__ import annotations

import json
import platform
import traceback
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from lgn_analysis.base.errors import DamagedFileError
from lgn_analysis.base.files import replacing

SUFFIX: Final = ".failure.json"


@dataclass(frozen=True)
class Failure:
    """A run that ended without a record.

    Attributes:
        key: the run's key.
        label: its short name.
        error: type and text of the exception, in one line.
        traceback: where it was raised; empty where the process died.
        when: time in UTC, ISO 8601.
        host: the machine.
        spec: the whole spec of the run, as plain data.
    """

    key: str
    label: str
    error: str
    traceback: str
    when: str
    host: str
    spec: dict[str, Any]

    @classmethod
    def of(cls, key: str, label: str, spec: Any, error: BaseException | str) -> Failure:
        """Return the failure of a run, now and on this machine."""
        if isinstance(error, str):
            message, trace = error, ""
        else:
            message = f"{type(error).__name__}: {error}"
            trace = "".join(traceback.format_exception(error))
        return cls(
            key=key,
            label=label,
            error=" ".join(message.split()),
            traceback=trace,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            host=platform.node(),
            spec=asdict(spec),
        )

    def to_row(self) -> dict[str, str]:
        """Return what a report shows of it."""
        return {name: getattr(self, name) for name in ("key", "label", "error", "when", "host")}

    def write(self, folder: Path) -> None:
        """Write ``KEY.failure.json`` into the folder of records, whole or not at all."""
        with replacing(folder / f"{self.key}{SUFFIX}") as path:
            path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def read_failure(folder: Path, key: str) -> Failure | None:
    """Return the failure that is kept of a run; None where there is none.

    Raises:
        DamagedFileError: what is there is no failure.
    """
    path = folder / f"{key}{SUFFIX}"
    try:
        return Failure(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DamagedFileError(f"{path} is damaged ({error}); delete it") from error


def forget_failure(folder: Path, key: str) -> None:
    """Remove what is kept of a run's failure, if anything is."""
    (folder / f"{key}{SUFFIX}").unlink(missing_ok=True)
