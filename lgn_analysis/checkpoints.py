"""A model is complete in its file: safetensors, nothing pickled, one rename commits everything.

Shape, relaxation, wiring and dtype stand in the file beside the tensors, so loading needs nothing
else. A training checkpoint adds the optimiser's tensors and what the run says of itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lgn_analysis.errors import CheckpointError, InvalidInputError
from lgn_analysis.network import LogicNetwork
from lgn_analysis.wiring import check_wiring

FORMAT: Final = "lgn_analysis"
FORMAT_VERSION: Final = 1

_MODEL: Final = "model/"
_EXTRA: Final = "extra/"
_DTYPES: Final = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: the model, further tensors by name, and further JSON-able facts."""

    model: LogicNetwork
    tensors: dict[str, Tensor]
    info: dict[str, Any]


def save(model: LogicNetwork, path: str | os.PathLike[str]) -> None:
    """Write the model to ``path``, complete: a reader finds the old file or the new one, whole.

    Raises:
        InvalidInputError: the model's dtype cannot be stored.
    """
    write_checkpoint(path, model)


def load(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> LogicNetwork:
    """Return the model in ``path``, in ``eval()`` mode.

    Raises:
        CheckpointError: the file is missing, torn, foreign, or of another format version.
    """
    return read_checkpoint(path).model.to(device)


def write_checkpoint(
    path: str | os.PathLike[str],
    model: LogicNetwork,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write a model with further tensors and facts; see :func:`save`."""
    dtype = str(model.dtype).removeprefix("torch.")
    if dtype not in _DTYPES:
        raise InvalidInputError(f"a {dtype} network cannot be stored; use float32 or float64")
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "network": model.config,
        "dtype": dtype,
        "info": dict(info or {}),
    }
    stored = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    stored |= {_EXTRA + name: tensor for name, tensor in (tensors or {}).items()}
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in stored.items()}
    with replacing(path) as temporary:
        save_file(on_cpu, temporary, metadata={"lgn_analysis": json.dumps(header)})


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Return what :func:`write_checkpoint` wrote; see :func:`load`."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            header = _header(path, metadata)
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
    tensors = {
        name.removeprefix(_EXTRA): tensor
        for name, tensor in stored.items()
        if name.startswith(_EXTRA)
    }
    state = {
        name.removeprefix(_MODEL): tensor
        for name, tensor in stored.items()
        if name.startswith(_MODEL)
    }
    return Checkpoint(_network(path, header, state), tensors, header["info"])


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it onto ``path`` once it is on the disk.

    Whatever goes wrong inside, ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.touch()
    mode = temporary.stat().st_mode
    try:
        yield temporary
        temporary.chmod(mode)  # safetensors makes its files unreadable for others
        with temporary.open("r+b") as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(metadata["lgn_analysis"])
        version = header["format_version"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} was not written by lgn_analysis") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by lgn_analysis")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, this package reads {FORMAT_VERSION}; "
            "use the version of lgn_analysis that wrote it"
        )
    if not isinstance(header.get("info"), dict):
        raise CheckpointError(f"{path} has a torn header: its part 'info' is missing")
    return header


def _network(path: Path, header: dict[str, Any], state: dict[str, Tensor]) -> LogicNetwork:
    try:
        dtype = _DTYPES[header["dtype"]]
        model = LogicNetwork.from_config(header["network"], dtype=dtype)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} describes no network that can be built: {error}") from error
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if expected != found:
        names = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        name = names[0]
        raise CheckpointError(
            f"{path} does not hold the network it describes: {name} should have shape "
            f"{expected.get(name)} and has {found.get(name)}"
        )
    for index, layer in enumerate(model.layers):
        try:
            check_wiring(state[f"layers.{index}.wiring"], layer.n_in, layer.n_out)
        except InvalidInputError as error:
            raise CheckpointError(f"{path}: layer {index}: {error}") from error
    model.load_state_dict(state)
    return model.eval()
