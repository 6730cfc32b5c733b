"""Checkpoints: one safetensors file holds a complete model; nothing is pickled.

Shape, relaxation, wiring and dtype stand in the file beside the tensors, so loading needs nothing
else. A training checkpoint adds the optimiser's tensors and the state of the run. The file has a
format version and a checksum of its header and of every tensor, and is written by one rename.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lgn_analysis.base.errors import CheckpointError, InvalidInputError
from lgn_analysis.base.files import checksum, replacing
from lgn_analysis.base.validation import seed_number, usable_device
from lgn_analysis.gates.wiring import check_wiring
from lgn_analysis.network import LogicNetwork, require_plain

FORMAT: Final = "lgn_analysis"
FORMAT_VERSION: Final = 2

_HEADER: Final = "lgn_analysis"
_HEADER_CHECKSUM: Final = "lgn_analysis.sha256"
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
        InvalidInputError: the model's dtype cannot be stored, or it was changed by hand to one that its
            configuration and tensors do not describe. (Hooks are not stored, as PyTorch stores none.)
        StorageError: the disk is full, or the place cannot be written to.
    """
    write_checkpoint(path, model)


def load(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> LogicNetwork:
    """Return the model in ``path``, in ``eval()`` mode.

    Raises:
        CheckpointError: the file is missing, torn, damaged, foreign, or of another format version.
    """
    device = usable_device(device)
    return read_checkpoint(path).model.to(device)


def write_checkpoint(
    path: str | os.PathLike[str],
    model: LogicNetwork,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write a model with further tensors and facts; see :func:`save`."""
    require_plain(model, "a checkpoint", hooks=False, any_parametrisation=True)
    dtype = str(model.dtype).removeprefix("torch.")
    if dtype not in _DTYPES:
        raise InvalidInputError(f"a {dtype} network cannot be stored; use float32 or float64")
    stored = {_MODEL + name: tensor.clone() for name, tensor in _tensors(model).items()}
    stored |= {_EXTRA + name: tensor for name, tensor in (tensors or {}).items()}
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in stored.items()}
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "network": model.config | {"seed": seed_number(model.seed)},
        "dtype": dtype,
        "info": dict(info or {}),
        "checksums": _checksums(on_cpu),
    }
    text = json.dumps(header)
    metadata = {_HEADER: text, _HEADER_CHECKSUM: checksum(text.encode())}
    with replacing(path) as temporary:
        try:
            save_file(on_cpu, temporary, metadata=metadata)
        except SafetensorError as error:  # so it calls what the system refuses to write
            raise OSError(str(error)) from error


def _tensors(model: LogicNetwork) -> dict[str, Tensor]:
    """Return what the network that a model's configuration describes has in its ``state_dict``.

    The model's own ``state_dict`` may have hooks, lack buffers that are not persistent, and have the
    confidences of a relaxation that is the model's no longer.
    """
    tensors: dict[str, Tensor] = {}
    for index, layer in enumerate(model.layers):
        names = ("logits", "wiring", *(["confidence"] if layer.relaxation.adaptive else []))
        tensors |= {f"layers.{index}.{name}": getattr(layer, name).detach() for name in names}
    return tensors


def _checksums(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return a checksum of each tensor's name, dtype, shape and bytes."""
    sums = {}
    for name, tensor in tensors.items():
        content = tensor.reshape(-1).view(torch.uint8).numpy().data
        kind = f"{name} {tensor.dtype} {tuple(tensor.shape)} {checksum(content)}"
        sums[name] = checksum(kind.encode())
    return sums


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
    if _checksums(stored) != header["checksums"]:
        raise CheckpointError(_damaged(path))
    state, tensors = (
        {name.removeprefix(kind): t for name, t in stored.items() if name.startswith(kind)}
        for kind in (_MODEL, _EXTRA)
    )
    return Checkpoint(_network(path, header, state), tensors, header["info"])


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    text, written = metadata.get(_HEADER), metadata.get(_HEADER_CHECKSUM)
    if text is not None and written not in (None, checksum(text.encode())):
        raise CheckpointError(_damaged(path))
    try:
        header: dict[str, Any] = json.loads(text or "")
        version, foreign = header["format_version"], header.get("format") != FORMAT
    except (KeyError, TypeError, ValueError):
        foreign = True
    if foreign:
        raise CheckpointError(f"{path} was not written by lgn_analysis")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, this package reads {FORMAT_VERSION}; "
            "use the version of lgn_analysis that wrote it"
        )
    if written is None or not isinstance(header.get("checksums"), dict):
        raise CheckpointError(_damaged(path))
    if not isinstance(header.get("info"), dict):
        raise CheckpointError(f"{path} has a torn header: its part 'info' is missing")
    return header


def _damaged(path: Path) -> str:
    return f"{path} is damaged: it is not what its checksum says was written; use another copy"


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
