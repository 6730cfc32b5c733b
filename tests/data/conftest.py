"""Small files in the true on-disk formats, written byte by byte from their descriptions."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest


class _Python2Pickler(pickle._Pickler):
    """Pickles as Python 2 did: text and bytes are both byte strings (opcodes U and T)."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_byte_string(self, value: str | bytes) -> None:
        body = value.encode() if isinstance(value, str) else value
        if len(body) < 256:
            self.write(b"U" + bytes([len(body)]) + body)
        else:
            self.write(b"T" + struct.pack("<i", len(body)) + body)

    dispatch[str] = save_byte_string
    dispatch[bytes] = save_byte_string


def _write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    body = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)


def _write_cifar_binary(path: Path, x: np.ndarray, *labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [np.asarray(y, dtype=np.uint8)[:, None] for y in labels]
    path.write_bytes(np.concatenate([*columns, x], axis=1).tobytes())


def _write_cifar_pickle(path: Path, x: np.ndarray, **labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    batch: dict[str, Any] = {"batch_label": "training batch 1 of 5", "data": x}
    batch |= {key: [int(k) for k in y] for key, y in labels.items()}
    batch["filenames"] = [f"image_{i}.png" for i in range(len(x))]
    with path.open("wb") as file:
        _Python2Pickler(file, protocol=2).dump(batch)
    # NumPy 2 renamed the module that the published files name.
    body = path.read_bytes().replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    path.write_bytes(body)


@pytest.fixture
def write_idx() -> Callable[..., None]:
    return _write_idx


@pytest.fixture
def write_cifar_binary() -> Callable[..., None]:
    return _write_cifar_binary


@pytest.fixture
def write_cifar_pickle() -> Callable[..., None]:
    return _write_cifar_pickle


def _write_openml_cache(
    root: Path,
    *,
    data_id: int,
    name: str,
    attributes: list[tuple[str, tuple[str, ...] | None]],
    target: str,
    lines: list[str],
) -> None:
    """Write what scikit-learn keeps of an OpenML data set; values None make a numeric column."""
    declared = [
        f"@attribute {n} {'numeric' if values is None else '{' + ','.join(values) + '}'}"
        for n, values in attributes
    ]
    arff = "\n".join([f"@relation {name}", *declared, "@data", *lines, ""])
    table = [[v.strip() for v in line.split(",")] for line in lines]
    features = [
        {
            "index": str(k),
            "name": n,
            "data_type": "numeric" if values is None else "nominal",
            "is_target": "true" if n == target else "false",
            "is_ignore": "false",
            "is_row_identifier": "false",
            "number_of_missing_values": str(sum(row[k] == "?" for row in table)),
        }
        | ({} if values is None else {"nominal_value": list(values)})
        for k, (n, values) in enumerate(attributes)
    ]
    download = f"data/v1/download/{data_id}/{name}.arff"
    description = {
        "id": str(data_id),
        "name": name,
        "version": "1",
        "description": "",
        "format": "ARFF",
        "status": "active",
        "url": f"https://openml.invalid/{download}",
        "default_target_attribute": target,
        "md5_checksum": hashlib.md5(arff.encode()).hexdigest(),
    }
    quality = [{"name": "NumberOfInstances", "value": str(float(len(lines)))}]
    contents = {
        f"api/v1/json/data/{data_id}": json.dumps({"data_set_description": description}),
        f"api/v1/json/data/features/{data_id}": json.dumps(
            {"data_features": {"feature": features}}
        ),
        f"api/v1/json/data/qualities/{data_id}": json.dumps(
            {"data_qualities": {"quality": quality}}
        ),
        download: arff,
    }
    for path, text in contents.items():
        file = root / "openml" / "openml.org" / f"{path}.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(text.encode()))


@pytest.fixture
def write_openml_cache() -> Callable[..., None]:
    return _write_openml_cache
