from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from lgn_analysis.base.errors import DataError
from lgn_analysis.data import cifar
from lgn_analysis.data.cifar import read_cifar_binary, read_cifar_pickle

RNG = np.random.Generator(np.random.Philox(0))
X = RNG.integers(0, 256, size=(4, 3072)).astype(np.uint8)
FINE = np.array([3, 99, 0, 42])
COARSE = np.array([1, 19, 0, 7])


class Payload:
    """Unpickled by pickle.load, it runs ``call(*arguments)``."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def test_binary_records_are_a_label_byte_and_three_planes(tmp_path, write_cifar_binary):
    write_cifar_binary(tmp_path / "batch.bin", X, FINE)
    x, y = read_cifar_binary(tmp_path / "batch.bin", n_label_bytes=1)
    assert np.array_equal(x, X)
    assert np.array_equal(y, FINE)


def test_the_second_label_byte_of_cifar100_is_the_fine_label(tmp_path, write_cifar_binary):
    write_cifar_binary(tmp_path / "train.bin", X, COARSE, FINE)
    x, y = read_cifar_binary(tmp_path / "train.bin", n_label_bytes=2)
    assert np.array_equal(x, X)
    assert np.array_equal(y, FINE)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b""])
def test_a_torn_binary_batch_is_refused(tmp_path, write_cifar_binary, damage):
    path = tmp_path / "batch.bin"
    write_cifar_binary(path, X, FINE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="no whole number of 3073-byte CIFAR records; delete it"):
        read_cifar_binary(path, n_label_bytes=1)


def test_the_restricted_reader_gives_what_pickle_would(tmp_path, write_cifar_pickle):
    path = tmp_path / "data_batch_1"
    write_cifar_pickle(path, X, labels=FINE)
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in path.read_bytes(), "a Python 2 file"
    x, y = read_cifar_pickle(path, label_key="labels")
    assert np.array_equal(x, X)
    assert np.array_equal(y, FINE)
    # The fixture is one that pickle itself accepts, so that the two readers can be compared.
    path.write_bytes(path.read_bytes().replace(b"numpy.core.multi", b"numpy._core.multi"))
    batch = pickle.loads(path.read_bytes(), encoding="bytes")
    assert np.array_equal(batch[b"data"], x)
    assert batch[b"labels"] == y.tolist()
    assert np.array_equal(read_cifar_pickle(path, label_key="labels")[0], X), "NumPy 2's name"


def test_cifar100_pickles_give_their_fine_labels(tmp_path, write_cifar_pickle):
    write_cifar_pickle(tmp_path / "train", X, fine_labels=FINE, coarse_labels=COARSE)
    assert np.array_equal(read_cifar_pickle(tmp_path / "train", label_key="fine_labels")[1], FINE)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_runs_nothing(tmp_path, protocol):
    trace = tmp_path / "was-here"
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({"data": Payload(os.mkdir, str(trace))}, protocol=protocol))
    with pytest.raises(DataError, match=r"it names \w+\.mkdir, and CIFAR holds only arrays"):
        read_cifar_pickle(path, label_key="labels")
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists(), "the payload works where it is let"


@pytest.mark.parametrize(
    "call", [eval, getattr, __import__, np.load, np.frombuffer, pickle.loads, type]
)
def test_no_other_callable_is_reachable(tmp_path, call):
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(Payload(call, "x"), protocol=2))
    with pytest.raises(DataError, match="it names"):
        read_cifar_pickle(path, label_key="labels")


@pytest.mark.parametrize("named", ["numpy\ndtype", "numpy\nndarray"])
def test_a_pickle_cannot_set_attributes_on_what_it_names(tmp_path, named):
    """BUILD with a slot state does, on anything without its own __setstate__."""
    path = tmp_path / "data_batch_1"
    path.write_bytes(b"\x80\x02c" + named.encode() + b"\nN}U\4markU\1xs\x86b.")
    with pytest.raises(DataError, match="__setstate__"):
        read_cifar_pickle(path, label_key="labels")
    assert not hasattr(cifar._DType, "mark")
    assert not hasattr(cifar._Array, "mark")


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (X.astype(np.float32), FINE, "no row-major array of bytes"),
        (np.asfortranarray(X), FINE, "no row-major array of bytes"),
        (X[:, :3000], FINE, r"shape \(4, 3000\), not \[n, 3072\]"),
        (X[0], FINE, "not"),
        (X, FINE[:3], r"4 images and labels of shape \(3,\)"),
    ],
)
def test_a_batch_of_another_form_is_refused(tmp_path, write_cifar_pickle, x, labels, message):
    path = tmp_path / "data_batch_1"
    write_cifar_pickle(path, x, labels=labels)
    with pytest.raises(DataError, match=message) as caught:
        read_cifar_pickle(path, label_key="labels")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2, 3]),
        pickle.dumps({b"data": b"bytes", b"labels": []}),
        pickle.dumps({b"labels": [1]}),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, body):
    path = tmp_path / "data_batch_1"
    path.write_bytes(body)
    with pytest.raises(DataError, match=r"is not a pickled CIFAR batch.*download it again"):
        read_cifar_pickle(path, label_key="labels")


def test_a_torn_pickle_is_refused(tmp_path, write_cifar_pickle):
    path = tmp_path / "data_batch_1"
    write_cifar_pickle(path, X, labels=FINE)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is not a pickled CIFAR batch"):
        read_cifar_pickle(path, label_key="labels")


def test_a_missing_file_is_the_operating_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_cifar_pickle(tmp_path / "data_batch_1", label_key="labels")
