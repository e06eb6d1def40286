"""Environment variables and `~` in the paths of the configuration."""

from __future__ import annotations

import getpass
import re

import pytest

from cusa.config import check_files, load
from cusa.config.paths import expand_variables
from cusa.errors import ConfigurationError


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NOTHING", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "keys",
    [
        "dataset.file", "dataset.annotations", "dataset.annotations.train", "dataset.image_root",
        "dataset.image_roots.val", "dataset.splits.test", "dataset.format", "teachers.image.name",
        "teachers.image.unicom.weights", "teachers.text.name", "student.name", "student.towers.image.name",
        "student.pretrained",
        "experiments.mine.student.name", "checkpoints.theirs.file", "checkpoints.theirs.student",
        "benchmarks.image_retrieval.cub", "benchmarks.image_retrieval.labelled_images.birds",
        "benchmarks.sts.senteval", "benchmarks.sts.sentence_pairs.mine", "benchmarks.eccv_caption.pmrp_files",
        "benchmarks.more.mine.file", "stream.url", "search.gallery",
    ],
)  # fmt: skip
def test_variables_in_every_path(place, keys):
    def at(value: str) -> dict:
        for key in reversed(keys.split(".")):
            value = {key: value}
        return value

    assert expand_variables(at("$DATA/a b.json")) == at(f"{place}/a b.json")
    assert expand_variables(at("${DATA}/x")) == at(f"{place}/x")
    with pytest.raises(ConfigurationError) as caught:
        expand_variables(at("$NOTHING/x"))
    assert str(caught.value) == (
        f"Configuration key `{keys}` is '$NOTHING/x', but the environment variable NOTHING is not set; set it, or "
        "write the path."
    )


@pytest.mark.parametrize(
    "mapping",
    [
        {"dataset": {"name": "$DATA", "columns": {"caption": "$DATA"}}},
        {"stream": {"url": "pipe:curl -u $KEY https://x/{shard}"}},
        {"stream": {"url": "https://x/$DATA/{shard}"}},
        {"dataset": {"file": "5$/x.json", "image_root": "~/pictures"}},
        {"train": {"epochs": 3}, "seeds": [1], "experiments": {"cusa": None}},
    ],
)
def test_other_values_stay_as_they_are(place, mapping):
    assert expand_variables(mapping) == mapping


def test_a_file_with_such_a_name_keeps_it(place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "$NOTHING").mkdir()
    assert expand_variables({"dataset": {"image_root": "$NOTHING"}}) == {"dataset": {"image_root": "$NOTHING"}}


def test_the_home_folder_of_nobody(place):
    mapping = {"dataset": {"file": "~no-such-user/x.csv"}, "student": {"name": "~no-such-user/clip"}}
    with pytest.raises(ConfigurationError) as caught:
        expand_variables(mapping)
    assert len(str(caught.value).splitlines()) == 2
    assert "key `dataset.file` is '~no-such-user/x.csv', but there is no home folder for ~no-such-user here" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("https://example.org/x.csv", "names https://example.org/x.csv, which is an address; download it"),
        ("s3://bucket/x.csv", "names s3://bucket/x.csv, which is an address; download it"),
        ("", "names an empty path, which names no file"),
    ],
)
def test_addresses_and_empty_paths_are_told(tiny_configuration, path, says):
    dataset = {"name": "x", "format": "table", "file": path, "columns": {"split": "split"}}
    with pytest.raises(ConfigurationError, match=re.escape(f"Configuration key `dataset.file` {says}")):
        check_files(load({**tiny_configuration, "dataset": dataset}))


def test_home_folders_are_found_in_all_paths(place, tiny_configuration, shapes, tiny_clip):
    (place / "data").symlink_to(shapes)
    (place / "clip").symlink_to(tiny_clip)
    (place / "theirs.pth").write_bytes(b"")
    dataset = {**tiny_configuration["dataset"], "annotations": "~/data", "image_root": f"~{getpass.getuser()}"}
    configuration = load(
        {
            **tiny_configuration,
            "dataset": dataset,
            "student": {"name": "~/clip"},
            "checkpoints": {"theirs": {"file": "~/theirs.pth", "student": "~/clip"}},
        }
    )
    check_files(configuration)
    assert configuration.active_checkpoints["theirs"].path == str(place / "theirs.pth")
    # As earlier releases wrote it: nothing is converted again.
    assert '"annotations": "~/data"' in configuration.dataset.as_json()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (
            "annotations",
            {"train": "folder", "val": "x", "test": "x"},
            "names folder, which is a folder; expected a file",
        ),
        ("annotations", {"train": "x" * 300, "val": "x", "test": "x"}, r"cannot be looked at \(File name too long\)"),
        ("annotations", {"train": "file/x", "val": "x", "test": "x"}, r"names file/x, which does not exist \(relative"),
        ("image_root", "file", "`dataset.image_root` names file, which is a file; expected a folder"),
    ],
)
def test_files_and_folders_are_told_apart(place, monkeypatch, tiny_configuration, key, value, says):
    monkeypatch.chdir(place)
    (place / "folder").mkdir()
    (place / "file").write_text("")
    configuration = load({**tiny_configuration, "dataset": {**tiny_configuration["dataset"], key: value}})
    with pytest.raises(ConfigurationError, match=says):
        check_files(configuration)
