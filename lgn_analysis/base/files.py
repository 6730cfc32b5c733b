"""Atomic replacement of files by one rename, and a lock against a second writer."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from lgn_analysis.base.errors import InvalidInputError, StorageError

LOCK_FILE: Final = ".lock"


def checksum(content: bytes | memoryview) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it onto ``path`` once it is on the disk.

    Whatever goes wrong inside, ``path`` stays as it was. A process that is killed inside leaves the
    temporary file behind; see :func:`remains`.

    Raises:
        StorageError: the disk is full, or the place cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb"):  # exclusive: follows no link that is already there
            mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes its files unreadable for others
        with temporary.open("r+b") as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; what stood there before is intact"
        ) from error
    finally:
        with suppress(OSError):  # it is gone, or an error is being raised already
            temporary.unlink()


def _flush_folder(folder: Path) -> None:
    """Flush a rename to the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remains(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the temporary files that killed writers of the named files left in a folder."""
    return [path for name in names for path in folder.glob(f".{name}.*.tmp")]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, made where it is missing, for this process, until it leaves or dies.

    Raises:
        InvalidInputError: another process, or this one elsewhere, is at work in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InvalidInputError(
            f"another process is training in {folder}; wait until it has ended, or choose another "
            "directory"
        ) from None
    try:
        yield
    finally:
        lock.release()
