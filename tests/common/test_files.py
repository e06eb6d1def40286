"""Files and folders appear complete or not at all, and failures of disks are reported in sentences."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import mounted_tmpfs
from safetensors.numpy import save_file

from cusa.common.files import (
    array_damage,
    atomic_file,
    atomic_folder,
    expanded,
    gigabytes,
    parquet_damage,
    read_array,
    read_parquet,
    require_space,
    require_writable,
    write_json,
)
from cusa.common.program import run
from cusa.errors import DataError
from cusa.teachers.store import write_features


def test_a_failed_write_leaves_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_file_that_a_library_keeps_from_others_gets_the_usual_permissions(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_file(tmp_path / "a.safetensors") as temporary:
            save_file({"a": np.zeros(2)}, temporary)
    finally:
        os.umask(before)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path):
    """As with `--output /dev/stdout`; /dev/null would be gone for all programs of the machine."""
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "pipe").read_text)
        with atomic_file(tmp_path / "pipe") as temporary:
            temporary.write_text("all of it")
        assert read.result() == "all of it"
    assert (tmp_path / "pipe").is_fifo()
    program = "from cusa.common.files import write_json; write_json('/dev/stdout', [1])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[\n 1\n]\n"
    assert Path("/dev/stdout").is_symlink()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link", "link-to-link"])
def test_a_name_of_an_open_file_is_written_to_and_what_is_there_stays(tmp_path, name):
    """As with `cusa schema --output /dev/fd/1 >> x`, where the name leads to an ordinary file."""
    (tmp_path / "link").symlink_to("/dev/fd/1")
    (tmp_path / "link-to-link").symlink_to("link")
    (tmp_path / "x").write_text("before\n")
    program = f"from cusa.common.files import write_json; write_json({name!r}, [1])"
    with (tmp_path / "x").open("a") as stream:
        subprocess.run([sys.executable, "-c", program], stdout=stream, check=True, cwd=tmp_path)
    assert (tmp_path / "x").read_text() == "before\n[\n 1\n]\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "link-to-link", "x"]
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no /dev/shm")
def test_files_in_memory_are_replaced_as_others_are():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for content in ([1], [2]):
            write_json(f"{folder}/x.json", content)
        assert json.loads(Path(f"{folder}/x.json").read_text()) == [2]
        with pytest.raises(RuntimeError), atomic_file(f"{folder}/x.json") as temporary:
            assert temporary.parent == Path(folder)
            raise RuntimeError


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f/old").touch()
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "f") as temporary:
        (temporary / "new").touch()
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == ["f", "old"]
    with atomic_folder(tmp_path / "f") as temporary:
        (temporary / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["f", "new"]


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "says"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission is denied")],
)
def test_disks_fail_in_sentences(code, says):
    def main():
        raise OSError(code, os.strerror(code), "results/x")

    with pytest.raises(SystemExit, match=f"Error: results/x: .*{says}"):
        run(main)


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


def test_a_read_only_folder_is_named_before_anything_is_written(tmp_path):
    require_writable(tmp_path / "results/data")
    with (
        mounted_tmpfs(tmp_path / "results", "ro") as results,
        pytest.raises(DataError, match=rf"^{results} cannot be written .* choose another place: --directory"),
    ):
        require_writable(results / "data")


def test_features_that_will_not_fit_are_refused_before_they_are_computed(tmp_path):
    def parts():
        raise AssertionError("computed")
        yield

    with (
        mounted_tmpfs(tmp_path / "small", "size=1m") as small,
        pytest.raises(DataError, match=r"features.npy needs 0.03 GB, but \S+/small has 1.05 MB free; free some space"),
    ):
        write_features(small / "f", 100_000, 64, "float32", parts(), {})


def test_a_really_full_disk(tmp_path):
    """A file system of one megabyte."""
    with mounted_tmpfs(tmp_path / "small", "size=1m") as small:
        code = (
            "import sys; from pathlib import Path; from cusa.common.files import atomic_file\n"
            "from cusa.common.program import run\n"
            "def main():\n"
            "    with atomic_file(sys.argv[1]) as temporary:\n"
            "        temporary.write_bytes(bytes(10_000_000))\n"
            "run(main)"
        )
        arguments = [sys.executable, "-c", code, str(small / "f")]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "the disk is full" in done.stderr
        assert not list(small.iterdir())


ADVICE = "make it again."


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_an_array_with_a_damaged_header_is_an_array_or_a_sentence(tmp_path, version):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.arange(12, dtype=np.float32).reshape(3, 4), version=version)
    sound, refused = path.read_bytes(), 0
    for place in range(len(sound) - 48):
        for wrong in (0, 0x0A, ord("("), ord("'"), ord("9"), sound[place] ^ 0x80):
            path.write_bytes(sound[:place] + bytes([wrong]) + sound[place + 1 :])
            try:
                assert isinstance(read_array(path, ADVICE), np.ndarray)
            except DataError as error:
                refused += 1
                assert str(error).startswith(f"{path} is not a complete npy file (")
                assert str(error).endswith("make it again.")
    assert refused > len(sound)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x93NUMPY", b"\x93NUMPY\1\0\xff\xff{", b"<html>"])
def test_what_is_no_array_is_a_sentence(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match="is not a complete npy file"):
        read_array(tmp_path / "a.npy", ADVICE)
    with pytest.raises(DataError, match="none.npy does not exist; make it again"):
        read_array(tmp_path / "none.npy", ADVICE)


def test_a_parquet_file_is_read_as_it_is(tmp_path):
    """Also below a folder that looks like a part of a partitioned data set."""
    table = pa.table({"colour": ["blue"], "number": [1]})
    (tmp_path / "colour=red").mkdir()
    pq.write_table(table, tmp_path / "colour=red/a.parquet")
    assert read_parquet(tmp_path / "colour=red/a.parquet").equals(table)
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "colour=red/a.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"cut\.parquet is not a complete Parquet file"):
        read_parquet(tmp_path / "cut.parquet")
    with pytest.raises(DataError, match=r"missing\.parquet does not exist"):
        read_parquet(tmp_path / "missing.parquet")


@pytest.mark.parametrize("place", [".", "folder", ""])
def test_a_folder_is_no_file_to_write(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="is a folder; name a file to write"), atomic_file(place):
        pass


@pytest.mark.parametrize("writing", [atomic_file, atomic_folder])
def test_nothing_is_written_below_a_file(tmp_path, writing):
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match="file/x cannot be written: .*file is not a folder"),
        writing(tmp_path / "file/x"),
    ):
        pass


def test_the_home_of_nobody_stays_a_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a") == tmp_path / "a"
    assert str(expanded("~nobody9/a")) == "~nobody9/a"


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), RuntimeError("could not open")])
def test_a_file_that_may_not_be_read_is_not_called_damaged(error, tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    path.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for another user; tests may run as root
    says = "a.npy cannot be read .permission denied.; give yourself the right"
    with pytest.raises(DataError, match=says), array_damage(path, "delete it."):
        raise error
    with pytest.raises(DataError, match=says), parquet_damage(path, "delete it."):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_too_many_open_files_are_no_damage_and_damage_stays_damage(tmp_path):
    path = tmp_path / "a.npy"
    with pytest.raises(DataError, match=r"cannot be opened .*; raise the limit"), array_damage(path, "delete it."):
        raise OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(DataError, match=r"is not a complete npy file .cut.; delete"), array_damage(path, "delete it."):
        raise ValueError("cut")


@pytest.mark.parametrize(("count", "shown"), [(245_760, "0.25 MB"), (9_999_999, "10.00 MB"), (10_000_000, "0.01 GB")])
def test_what_a_small_disk_has_is_told_in_megabytes(count, shown):
    assert gigabytes(count) == shown


def test_a_small_disk_that_is_too_small_says_by_how_much(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    with pytest.raises(DataError, match=r"the state needs 0.30 MB, but .* has 0.10 MB free; free some space"):
        require_space(tmp_path / "state", 300_000, "the state")
