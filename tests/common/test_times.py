"""Files that lost their times are told from files that were made again or edited."""

from __future__ import annotations

import os

import pytest

from cusa.common.times import (
    FOLDER_TIME,
    description,
    is_newer,
    is_same,
    lost_times,
    newest_time,
    none_is_newer,
    set_times,
)


@pytest.fixture
def recorded(tmp_path):
    """Three outputs, one of them a folder, with the times that were recorded when they were made."""
    times = {}
    for number, name in enumerate(("a", "b", "folder")):
        path, time = tmp_path / name, 1e9 + 100.0 * number
        if name == "folder":
            path.mkdir()
            (path / FOLDER_TIME).touch()
            os.utime(path / FOLDER_TIME, (time, time))
        else:
            path.write_text(name)
        os.utime(path, (time, time))
        times[str(path)] = time
    return times


def test_files_with_the_times_of_their_records_have_lost_nothing(recorded):
    assert not lost_times(recorded)
    os.utime(next(iter(recorded)))  # one was edited
    assert not lost_times(recorded)


def test_files_that_all_have_another_time_were_copied_without_times(recorded, tmp_path):
    for path in (*recorded, tmp_path / "folder" / FOLDER_TIME):
        os.utime(path, (2e9, 2e9))
    assert lost_times(recorded)
    assert set_times(recorded)
    assert not lost_times(recorded)
    assert (tmp_path / "folder" / FOLDER_TIME).stat().st_mtime == 1e9 + 200


def test_links_have_times_of_their_own(recorded, tmp_path):
    for name, target in (("link", "a"), ("broken", "nowhere")):
        (tmp_path / name).symlink_to(target)
        os.utime(tmp_path / name, (2e9, 2e9), follow_symlinks=False)
    assert newest_time([str(tmp_path)]) == 2e9
    assert set_times({str(tmp_path / name): 1e9 + 500 for name in ("link", "broken")})
    assert {(tmp_path / name).lstat().st_mtime for name in ("link", "broken", "a")} == {1e9 + 500}


def test_times_of_files_that_are_not_there_say_nothing(tmp_path):
    assert not lost_times({str(tmp_path / "a"): 1.0})
    assert not lost_times({})
    assert set_times({str(tmp_path / "a"): 1.0})
    assert newest_time([str(tmp_path)]) is None


def test_the_newest_time(recorded, tmp_path):
    assert newest_time([str(tmp_path)]) == 1e9 + 200


def test_a_file_is_the_same_by_its_bytes(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    described = description(path)
    assert is_same(path, described)
    path.write_text("[2]")
    assert not is_same(path, described)
    assert not is_same(path, {})
    assert not is_same(tmp_path / "gone", described)


def test_of_two_files_the_later_one_is_newer(recorded, tmp_path):
    a, b, gone = tmp_path / "a", tmp_path / "b", tmp_path / "gone"
    assert is_newer(b, a)
    assert not is_newer(a, b)
    assert not is_newer(a, a)
    assert not any(is_newer(*pair) for pair in ((gone, a), (a, gone)))
    assert none_is_newer([a, gone], b)
    assert not none_is_newer([b], a)
    assert not none_is_newer([], gone)
