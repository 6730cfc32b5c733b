"""CIFAR batches in both published forms: the binary one, and the pickled one without pickle's risk.

In either form an image is 3072 bytes: the red, green and blue planes of 32×32, row by row.

Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.base.errors import DataError

N_PIXELS: Final = 3 * 32 * 32
_AGAIN: Final = "delete it and download it again"


def read_cifar_binary(
    path: Path, *, n_label_bytes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images and labels of a binary batch: records of label byte(s), then pixels.

    Args:
        path: the file.
        n_label_bytes: 1 for CIFAR-10; 2 for CIFAR-100, whose second byte is the fine label.

    Returns:
        uint8 [n, 3072] and int64 [n].

    Raises:
        DataError: the size is not a whole number of records.
    """
    n_record = n_label_bytes + N_PIXELS
    raw = np.fromfile(path, dtype=np.uint8)
    if len(raw) == 0 or len(raw) % n_record:
        raise DataError(
            f"{path} has {len(raw)} bytes, which is no whole number of {n_record}-byte CIFAR "
            f"records; {_AGAIN}"
        )
    records = raw.reshape(-1, n_record)
    return records[:, n_label_bytes:], records[:, n_label_bytes - 1].astype(np.int64)


def read_cifar_pickle(path: Path, *, label_key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images and labels of a pickled batch, without executing code.

    A pickle may name any callable. Here only the three names that a NumPy array needs resolve, and
    those to inert records; the array is then rebuilt from its bytes.

    Args:
        path: the file.
        label_key: ``"labels"`` for CIFAR-10, ``"fine_labels"`` for CIFAR-100.

    Returns:
        uint8 [n, 3072] and int64 [n].

    Raises:
        DataError: a torn or foreign file, or one that names anything else.
    """
    try:
        with path.open("rb") as file:
            batch = _ArraysOnlyUnpickler(file, encoding="bytes").load()
        pixels = _rebuild_pixels(batch[b"data"])
        labels = np.asarray(batch[label_key.encode()], dtype=np.int64)
        if labels.shape != (len(pixels),):
            raise ValueError(f"{len(pixels)} images and labels of shape {labels.shape}")
    except OSError:
        raise
    except Exception as error:  # a foreign pickle can fail in any way
        raise DataError(
            f"{path} is not a pickled CIFAR batch ({type(error).__name__}: {error}); {_AGAIN}"
        ) from error
    return pixels, labels


class _Array:
    """Stands in for a NumPy array: keeps the state that the pickle gives it, and does nothing."""

    def __init__(self, *arguments: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _DType:
    """Stands in for a NumPy dtype."""

    def __init__(self, code: object, *flags: object) -> None:
        self.code = code

    # Without it a pickle could set attributes on this very class.
    def __setstate__(self, state: object) -> None:
        pass


_STAND_INS: Final[dict[tuple[str, str], type]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
}


# In Python: the one in C allocates as many objects as a few bytes may claim that there are.
class _ArraysOnlyUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and CIFAR holds only arrays")
        return _STAND_INS[module, name]


def _rebuild_pixels(array: object) -> NDArray[np.uint8]:
    if not isinstance(array, _Array):
        raise ValueError("its data is no array")
    _version, shape, dtype, column_major, body = array.state
    if not isinstance(dtype, _DType) or dtype.code not in (b"u1", "u1") or column_major:
        raise ValueError("its data is no row-major array of bytes")
    if len(shape) != 2 or shape[1] != N_PIXELS or len(body) != shape[0] * N_PIXELS:
        raise ValueError(f"its data has shape {shape}, not [n, {N_PIXELS}]")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)
