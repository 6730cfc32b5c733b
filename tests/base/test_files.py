"""A file is replaced whole or stays as it was, and a folder has one writer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lgn_analysis.base.errors import InvalidInputError, StorageError
from lgn_analysis.base.files import checksum, locked, remains, replacing

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX")


def test_a_checksum_is_sha256() -> None:
    """The published answer to "abc" (FIPS 180-4)."""
    assert checksum(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_is_replaced_only_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent, "a rename is atomic within one file system"
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


@POSIX
def test_a_link_in_the_way_is_replaced_and_not_followed(tmp_path: Path) -> None:
    outside, path = tmp_path / "outside", tmp_path / "run" / "file"
    outside.write_text("kept")
    path.parent.mkdir()
    path.symlink_to(outside)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert outside.read_text() == "kept"
    assert path.read_text() == "new"
    assert not path.is_symlink()


def test_a_place_that_cannot_be_written_to_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with (
        pytest.raises(StorageError, match=r"cannot write .*what stood there before is intact"),
        replacing(tmp_path / "file" / "below") as temporary,
    ):
        temporary.write_text("new")
    assert (tmp_path / "file").read_text() == "kept"


def test_remains_are_the_temporary_files_of_the_named_alone(tmp_path: Path) -> None:
    for name in (".a.csv.0a1b.tmp", ".b.csv.0a1b.tmp", "a.csv", ".a.csv"):
        (tmp_path / name).touch()
    assert remains(tmp_path, ["a.csv"]) == [tmp_path / ".a.csv.0a1b.tmp"]


def test_a_second_writer_is_refused_while_the_first_is_there(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        with pytest.raises(InvalidInputError, match="another process is training in"):
            locked(tmp_path / "run").__enter__()
        with locked(tmp_path / "other"):
            pass
    with locked(tmp_path / "run"):
        pass


HOLD = """
import sys, time
from pathlib import Path
from lgn_analysis.base.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InvalidInputError, match="wait until it has ended, or choose another"):
            locked(tmp_path / "run").__enter__()
        process.kill()
        process.wait()
    with locked(tmp_path / "run"):
        pass
