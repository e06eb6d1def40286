"""The data files that a place names: what takes long is said, and so are parts that are not there."""

from __future__ import annotations

import pytest

from cusa.config import data_files
from cusa.config.data_files import TAR_ENDINGS, matching_files, missing_parts
from cusa.config.dataset import load_dataset
from cusa.errors import ConfigurationError


def test_a_folder_that_is_looked_through_for_long_is_told_once(tmp_path, monkeypatch, caplog):
    for number in range(4):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "a.tar").touch()
        (tmp_path / f"{number}" / "a.jpg").touch()
    assert len(matching_files(str(tmp_path), TAR_ENDINGS)) == 4
    assert not caplog.messages
    monkeypatch.setattr(data_files, "SILENT", -1.0)
    assert len(matching_files(str(tmp_path), TAR_ENDINGS)) == 4
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}: looking for .tar, .tar.gz, .tgz in all folders below it")
    assert message.endswith(f"name a smaller folder, or the files by a pattern ({tmp_path}/*.tar)")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            ["d/a-00001-of-00003.parquet"],
            ["1 of the 3 parts d/a-*-of-00003.parquet are read; d/a-00000-of-00003.parquet"],
        ),
        ([f"d/a-{number:05d}-of-00002.tar" for number in range(2)], []),
        (["d/a.tar", "e/a.tar", "train-0001.parquet"], []),
        (
            ["en/test-00000-of-00001.parquet", "de/test-00000-of-00001.parquet"],
            ["test-00000-of-00001.parquet is read from 2 folders (en, de); if they are versions"],
        ),
    ],
)
def test_parts_that_are_missing_and_parts_of_several_folders_are_told(files, says):
    found = missing_parts(files)
    assert len(found) == len(says)
    assert all(sentence.startswith(start) for sentence, start in zip(found, says, strict=True))


def test_a_key_of_another_format_says_which_formats_have_it():
    with pytest.raises(ConfigurationError) as error:
        load_dataset({"name": "mine", "format": "published", "file": "a.csv", "annotations": "d"})
    unknown, advice = str(error.value).splitlines()
    assert unknown.startswith("Configuration key `dataset.file` is unknown")
    assert advice.startswith(
        "Configuration key `dataset.format` is 'published', here or in config/config.yaml, and `file`"
    )
    assert advice.endswith("'table', 'parquet', 'webdataset'; set the format of your data.")


@pytest.mark.parametrize("separator", ["tab", "\\t", ", ", ""])
def test_a_separator_of_several_characters_is_told_how_a_tab_is_written(separator):
    section = {"name": "mine", "format": "table", "file": "a.csv", "held_out": {"val": 0.1}, "separator": separator}
    with pytest.raises(
        ConfigurationError, match=r'characters, expected one, for instance .;.; a tab is "\\t" in double'
    ):
        load_dataset(section)
