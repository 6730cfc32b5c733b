from __future__ import annotations

import gzip

import numpy as np
import pytest

from lgn_analysis.base.errors import DataError
from lgn_analysis.data.idx import read_idx

IMAGES = np.arange(4 * 28 * 28).reshape(4, 28, 28).astype(np.uint8)
LABELS = np.array([3, 1, 4, 1], dtype=np.uint8)


@pytest.mark.parametrize("name", ["file-idx-ubyte", "file-idx-ubyte.gz"])
def test_plain_and_gzipped_files_are_read_alike(tmp_path, write_idx, name):
    write_idx(tmp_path / name, IMAGES)
    assert np.array_equal(read_idx(tmp_path / name, item_shape=(28, 28)), IMAGES)
    write_idx(tmp_path / name, LABELS)
    assert np.array_equal(read_idx(tmp_path / name, item_shape=()), LABELS)


def test_the_header_is_the_published_one(tmp_path, write_idx):
    """Magic number 2051 for images, 2049 for labels, both big-endian."""
    write_idx(tmp_path / "images", IMAGES)
    write_idx(tmp_path / "labels", LABELS)
    assert (tmp_path / "images").read_bytes()[:8] == (2051).to_bytes(4) + (4).to_bytes(4)
    assert (tmp_path / "labels").read_bytes()[:8] == (2049).to_bytes(4) + (4).to_bytes(4)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda body: body[:-1], "announces 4 items, 3136 bytes, and holds only 3135"),
        (lambda body: body + b"\0", "holds more"),
        (lambda body: body[:10], "is not an IDX file"),
        (lambda body: b"", "starts with nothing"),
        (lambda body: b"<html>not found</html>", "starts with 3c 68 74 6d"),
        (lambda body: b"\0\0\x0d\3" + body[4:], "is not an IDX file"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_torn_and_foreign_files_are_refused(tmp_path, write_idx, damage, message, suffix):
    write_idx(tmp_path / "good", IMAGES)
    path = tmp_path / f"bad{suffix}"
    body = damage((tmp_path / "good").read_bytes())
    path.write_bytes(gzip.compress(body) if suffix else body)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, item_shape=(28, 28))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [lambda z: z[:-20], lambda z: b"junk" + z, lambda z: z[:60]])
def test_a_damaged_gzip_stream_is_refused(tmp_path, write_idx, damage):
    path = tmp_path / "images.gz"
    write_idx(path, IMAGES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="torn or no gzip file"):
        read_idx(path, item_shape=(28, 28))


def test_a_flipped_byte_in_a_gzip_stream_is_refused(tmp_path, write_idx):
    path = tmp_path / "images.gz"
    write_idx(path, IMAGES)
    body = bytearray(path.read_bytes())
    body[-5] ^= 0xFF  # in the trailing checksum
    path.write_bytes(bytes(body))
    with pytest.raises(DataError, match="torn or no gzip file"):
        read_idx(path, item_shape=(28, 28))


def test_images_of_another_size_are_refused(tmp_path, write_idx):
    write_idx(tmp_path / "images", np.zeros((4, 27, 28)))
    with pytest.raises(DataError, match=r"its items have shape \(27, 28\)"):
        read_idx(tmp_path / "images", item_shape=(28, 28))


def test_labels_are_not_taken_for_images(tmp_path, write_idx):
    write_idx(tmp_path / "labels", LABELS)
    with pytest.raises(DataError, match="is not an IDX file"):
        read_idx(tmp_path / "labels", item_shape=(28, 28))
