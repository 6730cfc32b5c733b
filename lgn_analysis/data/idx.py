"""The IDX format of MNIST and Fashion-MNIST.

A big-endian header, ``00 00 08 <n_dims>`` for unsigned bytes and one uint32 per dimension, then
the values; usually gzipped.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.base.errors import DataError

_UNSIGNED_BYTE = 0x08
_PIECE = 2**20


def read_idx(path: Path, *, item_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the array of an IDX file of bytes, gzipped (``.gz``) or plain.

    Args:
        path: the file.
        item_shape: the shape of one item: ``()`` for labels, ``(28, 28)`` for images.

    Returns:
        uint8 [n, *item_shape].

    Raises:
        DataError: another format or item shape, or a file that is torn or has bytes to spare.
    """
    n_dims = 1 + len(item_shape)
    expected = f"an IDX file of bytes with items of shape {item_shape}"
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * n_dims)
            if header[:4] != bytes([0, 0, _UNSIGNED_BYTE, n_dims]) or len(header) < 4 + 4 * n_dims:
                raise DataError(
                    f"{path} is not {expected}: it starts with {header[:4].hex(' ') or 'nothing'}; "
                    "delete it and download it again"
                )
            n, *shape = struct.unpack(f">{n_dims}I", header[4:])
            if tuple(shape) != item_shape:
                raise DataError(
                    f"{path} is not {expected}: its items have shape {tuple(shape)}; put "
                    "the data set's own file there"
                )
            n_bytes = n * math.prod(item_shape)
            # One byte more than announced, so that a foreign file shows and none is read whole; in
            # pieces, so that a header cannot ask for memory that the file has no use for.
            body = bytearray()
            while piece := file.read(min(_PIECE, n_bytes + 1 - len(body))):
                body += piece
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path} is torn or no gzip file ({error}); delete it and download it again"
        ) from error
    if len(body) != n_bytes:
        found = f"only {len(body)}" if len(body) < n_bytes else "more"
        raise DataError(
            f"{path} announces {n} items, {n_bytes} bytes, and holds {found}; delete it and "
            "download it again"
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(n, *item_shape)
