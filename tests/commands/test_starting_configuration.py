"""`cusa init` looks at data and writes a configuration that works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from format_files import WRITERS

from cusa.annotations.convert import convert
from cusa.annotations.sources.table import drawn_split
from cusa.commands.starting_configuration import starting_configuration
from cusa.config.dataset import load_dataset
from cusa.errors import ConfigurationError

SPLITS = ("train", "val", "test")


@pytest.fixture
def rows(shapes) -> dict[str, list[dict[str, str]]]:
    found = {split: json.loads((shapes / f"{split}.json").read_text()) for split in SPLITS}
    for row in (row for members in found.values() for row in members):
        row["image_path"] = str(shapes / row["image_path"])
    return found


def started(path: Path, **options) -> dict:
    return yaml.safe_load(starting_configuration(path, **options))["dataset"]


def converts(section: dict, tmp_path: Path) -> None:
    convert(load_dataset(section), tmp_path / "out", tmp_path / "images")
    for split in SPLITS:
        assert json.loads((tmp_path / "out" / f"{split}.json").read_text())


@pytest.mark.parametrize("kind", ["table_jsonl", "table_parquet", "table_tsv"])
def test_a_table_with_a_split(rows, tmp_path, kind):
    content = WRITERS[kind](tmp_path, rows)
    section = started(Path(content["file"]), name="d")
    assert section["columns"] == {"image": "image", "caption": "caption", "split": "split"}
    converts(section, tmp_path)


def test_a_table_without_a_split_and_with_a_folder_of_pictures(shapes, rows, tmp_path):
    data = tmp_path / "my data"
    data.mkdir()
    (data / "pictures").symlink_to(shapes / "pics")
    members = [row for split in SPLITS for row in rows[split]]
    lines = ["n,picture,what one sees"]
    lines += [f'1,{Path(row["image_path"]).name},"{row["caption"]}"' for row in members]
    (data / "captions.csv").write_text("\n".join(lines))
    section = started(data / "captions.csv")
    assert section["name"] == "captions"
    assert section["columns"] == {"image": "picture", "caption": "what one sees"}
    assert section["held_out"] == {"val": 0.1, "test": 0.1}
    assert section["image_root"] == str(data / "pictures")
    converts(section, tmp_path)


@pytest.mark.parametrize("kind", ["published", "albef", "coco", "karpathy"])
def test_json_of_every_kind(rows, tmp_path, kind):
    content = WRITERS[kind](tmp_path, rows)
    section = started(Path(content["file"]) if kind == "karpathy" else tmp_path)
    assert section["format"] == kind
    roots = {key: content[key] for key in ("image_root", "image_roots") if key in content}
    converts({**section, **roots}, tmp_path)


def test_the_draw_depends_on_the_id_and_the_seed_alone():
    shares = {"val": 0.1, "test": 0.2}
    drawn = [drawn_split(f"image{number}", shares, 0) for number in range(5000)]
    assert drawn == [drawn_split(f"image{number}", shares, 0) for number in range(5000)]
    assert drawn != [drawn_split(f"image{number}", shares, 1) for number in range(5000)]
    assert 0.08 < drawn.count("val") / 5000 < 0.12
    assert 0.17 < drawn.count("test") / 5000 < 0.23


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "x,y\n1,2\n", "has the columns x, y, none of which holds names of images"),
        ("a.csv", "x\na.jpg\n", "has the columns x, none of which holds captions"),
        ("a.csv", "x,y\n", "has no rows; expected at least one"),
        ("a.json", "[]", "is neither a table .* nor one of Karpathy's files; .*name their folder"),
        ("a.token", "a.jpg#0\tb", "use format: flickr30k"),
    ],
)
def test_data_that_cannot_be_told_apart(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError, match=says):
        starting_configuration(tmp_path / name)


def test_folders_without_json(tmp_path):
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(ConfigurationError, match=r"has no JSON file for val, test \(it holds train.json\)"):
        starting_configuration(tmp_path)
    with pytest.raises(ConfigurationError, match="does not exist"):
        starting_configuration(tmp_path / "none")
