"""`cusa init` looks at data and writes a configuration that works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from format_files import WRITERS

from cusa.annotations.convert import convert
from cusa.annotations.sources.splits import drawn_split
from cusa.commands.starting_configuration import look_at, starting_configuration
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
        ("a.json", "[]", "has no rows; expected at least one"),
        ("a.json", '{"images": [{"id": 1}], "annotations": []}', "looks like one of COCO's files"),
        ("a.csv", "url,caption\nhttps://x.y/a.jpg,a dog runs\n", "`url` holds addresses; download the images first"),
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


def table(folder: Path, shapes: Path, text: str, name: str = "t.csv") -> Path:
    (folder / "images").symlink_to(shapes / "pics")
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def names(shapes) -> list[str]:
    return sorted(path.name for path in (shapes / "pics").iterdir())


def test_addresses_are_no_captions_and_a_folder_beside_is_found(tmp_path, shapes, names):
    rows = [f"https://example.org/a/very/long/path/{name}?w=100&h=100,a picture of it,{name}" for name in names]
    section = started(table(tmp_path, shapes, "url,caption,file\n" + "\n".join(rows)))
    assert section["columns"] == {"image": "file", "caption": "caption"}
    assert section["image_root"] == str(tmp_path / "images")
    converts(section, tmp_path)


def test_no_heading_semicolons_and_another_ending(tmp_path, shapes, names):
    path = table(tmp_path, shapes, "\n".join(f"{name};a picture, number {n}" for n, name in enumerate(names)), "t.txt")
    section = started(path)
    assert (section["heading"], section["columns"]) == (False, {"image": 0, "caption": 1})
    converts(section, tmp_path)


def test_several_columns_of_captions_ids_without_endings_and_a_split_by_its_values(tmp_path, shapes, names):
    parts = ["training"] * 32 + ["dev"] * 8 + ["testing"] * 8
    rows = [f"{Path(name).stem},one of them,two of them,{part}" for name, part in zip(names, parts, strict=True)]
    start = look_at(table(tmp_path, shapes, "id,c_0,c_1,phase\n" + "\n".join(rows)))
    assert start.section["columns"] == {"image": "id", "caption": ["c_0", "c_1"], "split": "phase"}
    assert start.section["image_name"] == "{}.jpg"
    assert not start.warnings
    converts(start.section, tmp_path)
    said = "\n".join(start.lines())
    assert "columns.image is `id`: 100% of the values with .jpg are files in" in said
    assert f"    train: {tmp_path}/images/{names[0]}: one of them" in said


def test_five_captions_as_a_list_in_one_cell(tmp_path, shapes, names):
    rows = [f'"[""a first one"", ""a second one""]","[0, 1]",{name}' for name in names]
    section = started(table(tmp_path, shapes, "raw,sentids,filename\n" + "\n".join(rows)))
    assert section["columns"] == {"image": "filename", "caption": "raw"}
    converts(section, tmp_path)
    assert "a second one" in (tmp_path / "out/train.json").read_text()


def test_what_is_unsure_is_said(tmp_path, shapes, names):
    rows = [f"{name},a picture,{'train' if n < 40 else 'holdout'}" for n, name in enumerate(names)]
    start = look_at(table(tmp_path, shapes, "image,caption,split\n" + "\n".join(rows)))
    assert "the split column has `holdout` (8 rows), which name no split" in start.warnings[0]
    assert "no row of the split column is of val or test; dataset.held_out: {val: 0.1, test: 0.1}" in start.warnings[1]
    (tmp_path / "images").unlink()
    start = look_at(tmp_path / "t.csv")
    assert any("does not exist; correct dataset.image_root" in line for line in start.lines())


@pytest.mark.parametrize("content", [{}, []])
def test_json_with_the_images_as_keys_or_as_a_list(tmp_path, shapes, names, content):
    if isinstance(content, dict):
        content = {name: ["one caption", "another caption"] for name in names}
    else:
        content = [{"img": name, "texts": [{"raw": "one caption"}]} for name in names]
    section = started(table(tmp_path, shapes, json.dumps(content), "t.json"))
    assert section["format"] == "table"
    converts(section, tmp_path)


@pytest.mark.parametrize("kind", ["parquet_struct", "parquet_bytes", "webdataset_gz"])
def test_files_that_hold_the_pictures_are_recognised(rows, tmp_path, kind):
    content = WRITERS[kind](tmp_path, rows)
    place = {"parquet_struct": tmp_path / "data", "parquet_bytes": tmp_path, "webdataset_gz": tmp_path / "all.tar.gz"}
    section = yaml.safe_load(starting_configuration(place[kind]))["dataset"]
    assert section["format"] == content["format"]
    if kind == "parquet_bytes":
        assert section["annotations"] == content["annotations"]
        assert section["columns"] == {"image": "jpg", "caption": "text"}
