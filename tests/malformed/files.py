"""Files that hold no data set, and all that is said of them.

``{file}`` stands for the file's path, and a last … for what a library adds in words of its own.
"""

from __future__ import annotations

import gzip
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from lgn_analysis.data.cifar import read_cifar_binary, read_cifar_pickle
from lgn_analysis.data.idx import read_idx
from lgn_analysis.data.tabular import read_uci_rows


@dataclass(frozen=True)
class File:
    """A file that is not what its reader reads, and what is said, in full."""

    name: str
    body: bytes
    read: Callable[[Path], object]
    sentence: str


_read_labels = partial(read_idx, item_shape=())
_read_images = partial(read_idx, item_shape=(28, 28))
_read_zipped = partial(read_idx, item_shape=())
_read_batch = partial(read_cifar_binary, n_label_bytes=1)
_read_pickle = partial(read_cifar_pickle, label_key="labels")
_read_table = partial(read_uci_rows, n_columns=3)
_LABELS: Final = bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + bytes([3, 1, 4, 1])
_AGAIN: Final = "; delete it and download it again"
_NO_BATCH: Final = "{file} is not a pickled CIFAR batch "


class Payload:
    """Runs ``os.mkdir`` where it is unpickled by pickle itself."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, ("MARK",)


FILES: Final = [
    File(
        "IDX of floats",
        b"\0\0\x0d\1" + _LABELS[4:],
        _read_labels,
        "{file} is not an IDX file of bytes with items of shape (): it starts with 00 00 0d 01"
        + _AGAIN,
    ),
    File(
        "IDX that is a web page",
        b"<html>not found</html>",
        _read_images,
        "{file} is not an IDX file of bytes with items of shape (28, 28): it starts with 3c 68 74 6d"
        + _AGAIN,
    ),
    File(
        "IDX of nothing",
        b"",
        _read_labels,
        "{file} is not an IDX file of bytes with items of shape (): it starts with nothing"
        + _AGAIN,
    ),
    File(
        "IDX of other images",
        bytes([0, 0, 8, 3]) + struct.pack(">3I", 1, 27, 28) + bytes(27 * 28),
        _read_images,
        "{file} is not an IDX file of bytes with items of shape (28, 28): its items have shape (27, 28); "
        "put the data set's own file there",
    ),
    File(
        "IDX that is torn",
        _LABELS[:-1],
        _read_labels,
        "{file} announces 4 items, 4 bytes, and holds only 3" + _AGAIN,
    ),
    File(
        "IDX that announces terabytes",
        bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 28, 28),
        _read_images,
        "{file} announces 4294967295 items, 3367254359280 bytes, and holds only 0" + _AGAIN,
    ),
    File(
        "gzip that is torn.gz",
        gzip.compress(_LABELS)[:-9],
        _read_zipped,
        "{file} is torn or no gzip file (Compressed file ended before the end-of-stream marker was "
        "reached)" + _AGAIN,
    ),
    File(
        "gzip that is none.gz",
        _LABELS,
        _read_zipped,
        "{file} is torn or no gzip file (Not a gzipped file …",
    ),
    File(
        "CIFAR that is torn",
        bytes(3072),
        _read_batch,
        "{file} has 3072 bytes, which is no whole number of 3073-byte CIFAR records" + _AGAIN,
    ),
    File(
        "CIFAR of nothing",
        b"",
        _read_batch,
        "{file} has 0 bytes, which is no whole number of 3073-byte CIFAR records" + _AGAIN,
    ),
    File(
        "a pickle that runs a command",
        pickle.dumps({"data": Payload()}, protocol=2),
        _read_pickle,
        _NO_BATCH + "(UnpicklingError: it names posix.mkdir, and CIFAR holds only arrays)" + _AGAIN,
    ),
    File(
        "a pickle of something else",
        pickle.dumps([1, 2]),
        _read_pickle,
        _NO_BATCH + "(TypeError: list indices must be integers or slices, not bytes)" + _AGAIN,
    ),
    File("a pickle that is torn", pickle.dumps([1, 2])[:-2], _read_pickle, _NO_BATCH + "(…"),
    File(
        "a pickle that claims two thousand million objects",
        b"\x80\x02]r" + struct.pack("<I", 2**31 - 1) + b".",
        _read_pickle,
        _NO_BATCH + "(TypeError: list indices must be integers or slices, not bytes)" + _AGAIN,
    ),
    File(
        "a table that is torn",
        b"a,b,c\na,b",
        _read_table,
        "{file}, line 2 has 2 columns instead of 3; the file is torn or another one: download it again",
    ),
    File(
        "a table that is a web page",
        b"<html>",
        _read_table,
        "{file}, line 1 has 1 columns instead of 3; the file is torn or another one: download it again",
    ),
]
