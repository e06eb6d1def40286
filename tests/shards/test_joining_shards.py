"""Parts of a split's shards, written by several jobs, become the same files as one job writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cusa.common import files
from cusa.config.shards import Shards
from cusa.errors import DataError
from cusa.shards.joining import join_shards
from cusa.shards.writing import write_split

SETTINGS = Shards(shorter_side=24, samples_per_shard=10)  # 32 images: four shards, the last one of two


def written_in_parts(annotations: Path, folder: Path, parts: int) -> list[Path]:
    folders = [folder / f"{part}-of-{parts}" for part in range(parts)]
    for part, path in enumerate(folders):
        write_split(annotations, "train", path, SETTINGS, part=part, parts=parts)
    return folders


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("parts", [1, 3, 7])  # of seven, three have no shard
def test_they_become_the_files_that_one_job_writes(annotations, tmp_path, parts):
    write_split(annotations, "train", tmp_path / "whole", SETTINGS)
    join_shards(written_in_parts(annotations, tmp_path, parts), tmp_path / "joined")
    assert content(tmp_path / "joined") == content(tmp_path / "whole")


def test_tar_files_take_no_more_space(annotations, tmp_path):
    first, _ = written_in_parts(annotations, tmp_path, 2)
    join_shards([first, tmp_path / "1-of-2"], tmp_path / "joined")
    assert (tmp_path / "joined/shard-000000.tar").samefile(first / "shard-000000.tar")


def test_a_file_system_without_hard_links_gets_copies(annotations, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(files.os, "link", refuse)
    parts = written_in_parts(annotations, tmp_path, 2)
    join_shards(parts, tmp_path / "joined")
    assert content(tmp_path / "joined")["shard-000003.tar"] == content(parts[1])["shard-000003.tar"]


def test_a_part_of_other_settings_is_refused(annotations, tmp_path):
    first, second = written_in_parts(annotations, tmp_path, 2)
    statistics = json.loads((second / "shards.json").read_text())
    statistics["settings"]["quality"] = 50
    (second / "shards.json").write_text(json.dumps(statistics))
    with pytest.raises(DataError, match=r"1-of-2 was written with other settings than .*0-of-2; delete .*1-of-2"):
        join_shards([first, second], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()
