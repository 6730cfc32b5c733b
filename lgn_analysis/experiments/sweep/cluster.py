"""Dask: any cluster that a scheduler's address reaches, without a shared file system.

A worker carries its record back as bytes, and the sweep alone writes the cache. A worker needs this
version of the package and the data sets; start it with one thread (``dask worker ADDRESS
--nthreads 1 --nworkers N``), since a run is single-threaded Python around its kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final

from lgn_analysis.base.errors import InvalidInputError, MissingDependencyError
from lgn_analysis.experiments.specs import RECORD_FORMAT

_TIMEOUT: Final = "10s"


def installed_version() -> str:
    """Return the version of this package and of its records, where it is called."""
    return f"{version('lgn_analysis')} with records of format {RECORD_FORMAT}"


@contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """Connect to a Dask scheduler and yield its ``concurrent.futures`` executor.

    Args:
        address: as the scheduler prints it, ``tcp://10.0.0.1:8786``.

    Raises:
        MissingDependencyError: Dask is not installed.
        InvalidInputError: nothing answers there, or a worker cannot do the runs.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingDependencyError(
            "--scheduler needs Dask: pip install 'lgn_analysis[cluster]'"
        ) from error
    try:
        client = Client(address, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InvalidInputError(
            f"no Dask scheduler answers at {address!r}; start one with `dask scheduler` and give "
            "the address that it prints, such as tcp://127.0.0.1:8786"
        ) from error
    with client:
        _check_workers(client)
        # pure: two sweeps at once that want the same run share one.
        yield client.get_executor(pure=True)


def _check_workers(client: Any) -> None:
    """Refuse a cluster whose records would be another version's, or none."""
    own = installed_version()
    try:
        versions: dict[str, Any] = client.run(installed_version, on_error="return")
    except Exception as error:
        versions = {"a worker": error}
    for worker, found in versions.items():
        if found != own:
            raise InvalidInputError(
                f"the Dask worker at {worker} cannot do the runs, it answered {found!r}; install "
                f"lgn_analysis {own} there, the version of this sweep"
            )
