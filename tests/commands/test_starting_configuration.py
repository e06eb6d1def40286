"""`cusa init` looks at data and writes a configuration that works."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from format_files import WRITERS, add_member

from cusa.annotations.convert import convert, inspect
from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.source import Record
from cusa.annotations.sources.splits import drawn_split
from cusa.commands.starting_configuration import look_at, starting_configuration
from cusa.config import check_files, load, read_files
from cusa.config.dataset import load_dataset
from cusa.errors import ConfigurationError, CusaError

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
    with pytest.raises(ConfigurationError, match=r"train.json has no rows"):
        starting_configuration(tmp_path)
    (tmp_path / "train.json").rename(tmp_path / "test.json")
    with pytest.raises(ConfigurationError, match=r"are of test by their names, and none is of train"):
        starting_configuration(tmp_path)
    (tmp_path / "test.json").rename(tmp_path / "notes.doc")
    with pytest.raises(ConfigurationError, match=r"has neither one table .* \(it holds notes.doc\)"):
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


@pytest.mark.parametrize(
    ("heading", "values", "found"),
    [
        ("lang", ["en", "de", "zh-Hant"], "lang"),
        ("Language", ["English", "Brazilian Portuguese"], "Language"),
        ("lang", ["en"], None),  # one language needs no scores of its own
        ("lang", ["en", "?"], None),
        ("kind", ["en", "de"], None),
    ],
)
def test_a_column_of_languages_is_found_by_its_name_and_values(tmp_path, shapes, names, heading, values, found):
    lines = [f"{name},a picture,{values[n % len(values)]}" for n, name in enumerate(names)]
    start = look_at(table(tmp_path, shapes, f"image,caption,{heading}\n" + "\n".join(lines)))
    assert start.section["columns"].get("language") == found
    assert start.section["columns"]["caption"] == "caption"
    (tmp_path / "scratch").mkdir()
    counts = inspect(load_dataset(start.section), tmp_path / "scratch").languages
    assert counts == ({} if found is None else Counter(values[n % len(values)] for n in range(len(names))))


@pytest.mark.parametrize("names_of", [("train", "test"), ("train", "dev"), ("train",)])
def test_a_split_that_no_row_has_is_drawn_from_train_alone(tmp_path, shapes, names, names_of):
    split_of = {name: names_of[0] if n < 30 else names_of[-1] for n, name in enumerate(names)}
    lines = [f"{name},a picture,{split}" for name, split in split_of.items()]
    start = look_at(table(tmp_path, shapes, "image,caption,split\n" + "\n".join(lines)))
    missing = {"val", "test"} - set(names_of) - ({"val"} if "dev" in names_of else set())
    assert set(start.section["held_out"]) == missing
    assert any("no row of the split column is of" in each and "held_out draws" in each for each in start.warnings)
    records = open_source(load_dataset(start.section), tmp_path / "made").records()
    found = {Path(record.image_path).name: record.split for record in records if isinstance(record, Record)}
    assert all(Counter(found.values())[split] >= 2 for split in SPLITS)
    assert all(found[name] in ("train", *missing) for name, split in split_of.items() if split == "train")
    assert not any(found[name] in missing for name, split in split_of.items() if split != "train")


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


# Splits in the names of files


def write_hub(folder: Path, rows, kind: str, names: dict[str, str], parts: int = 3) -> None:
    """The shapes in `parts` files a split, named like {name}-00000-of-00003; `names` gives the name of a split."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in names.items():
        for number in range(parts):
            some, path = rows[split][number::parts], folder / f"{name}-{number:05d}-of-{parts:05d}.{kind}"
            path.parent.mkdir(exist_ok=True)
            if kind == "parquet":
                images = [{"bytes": Path(row["image_path"]).read_bytes(), "path": None} for row in some]
                table = {"image": images, "filename": [row["image_id"] for row in some]}
                pq.write_table(pa.table(table | {"caption": [row["caption"] for row in some]}), path)
            else:
                with tarfile.open(path, "w") as tar:
                    for key, row in enumerate(some):
                        add_member(tar, f"{key:05d}.jpg", Path(row["image_path"]).read_bytes())
                        add_member(tar, f"{key:05d}.txt", row["caption"].encode())


def counts(section: dict, tmp_path: Path) -> list[int]:
    """The captions of each split when the data set is converted."""
    convert(load_dataset(section), tmp_path / "out", tmp_path / "images")
    return [len(json.loads((tmp_path / "out" / f"{split}.json").read_text())) for split in SPLITS]


VAL_NAMES = ["val", "validation", "dev", "valid"]


@pytest.mark.parametrize("kind", ["parquet", "tar"])
@pytest.mark.parametrize("val", VAL_NAMES)
@pytest.mark.parametrize("place", ["", "data", "data/test-00001-of-00003"])
def test_names_of_files_with_pictures_say_the_splits(rows, tmp_path, kind, val, place):
    write_hub(tmp_path / "hub/data", rows, kind, {"train": "train", "val": val, "test": "test"})
    given = tmp_path / "hub" / place
    start = look_at(given if place.count("-") == 0 else given.with_name(f"{given.name}.{kind}"))
    expected = {"train": "train", "val": val, "test": "test"}
    assert start.section["annotations"] == {
        split: str(tmp_path / "hub/data" / f"{name}-*.{kind}") for split, name in expected.items()
    }
    assert "held_out" not in start.section
    assert counts(start.section, tmp_path) == [64, 16, 16]
    said = "\n".join(start.lines())
    assert "annotations: the names of the files say their split: train (3), val (3), test (3)" in said
    assert said.count("    train: ") == 3
    assert not start.warnings


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_a_split_without_a_file_is_drawn_from_train_and_this_is_said(rows, tmp_path, kind):
    write_hub(tmp_path / "hub", rows, kind, {"train": "train", "val": "validation"}, parts=1)
    start = look_at(tmp_path / "hub")
    assert start.section["annotations"] == {
        "train": str(tmp_path / f"hub/train-00000-of-00001.{kind}"),
        "val": str(tmp_path / f"hub/validation-00000-of-00001.{kind}"),
    }
    assert start.section["held_out"] == {"test": 0.1}
    assert "no file is of test by its name; held_out draws about a tenth of the images of train" in start.warnings[0]
    train, val, test = counts(start.section, tmp_path)
    assert (train + test, val) == (64, 16)
    assert test > 0


def test_folders_named_as_splits_hold_the_files(rows, tmp_path):
    for split, name in (("train", "train"), ("val", "dev"), ("test", "testing")):
        write_hub(tmp_path / "default" / name, rows, "parquet", {split: "part"}, parts=2)
    start = look_at(tmp_path)
    assert start.section["annotations"]["val"] == str(tmp_path / "default/dev")
    assert counts(start.section, tmp_path) == [64, 16, 16]
    assert (
        look_at(tmp_path / "default/train/part-00000-of-00002.parquet").section["annotations"]
        == (start.section["annotations"])
    )


def test_a_column_that_names_several_splits_goes_before_names_of_files(rows, tmp_path):
    content = WRITERS["parquet_struct"](tmp_path, rows)
    for number, path in enumerate(sorted((tmp_path / "data").iterdir())):
        path.rename(path.with_name(f"test-{number:05d}.parquet"))
    start = look_at(tmp_path / "data")
    assert start.section["file"] == str(tmp_path / "data")
    assert start.section["columns"]["split"] == "split"
    assert content["format"] == start.section["format"]
    assert counts(start.section, tmp_path) == [64, 16, 16]


def test_the_json_files_of_a_tar_say_the_split(rows, tmp_path):
    WRITERS["webdataset_gz"](tmp_path, rows)
    start = look_at(tmp_path / "all.tar.gz")
    assert start.section["keys"] == {"split": "split"}
    assert "held_out" not in start.section


def test_captions_of_parquet_files_are_found_by_their_values(rows, tmp_path):
    images = [Path(row["image_path"]).read_bytes() for row in rows["train"]]
    texts = [row["caption"] for row in rows["train"]]
    table = {"n": list(range(len(images))), "img": images, "caption_0": texts, "caption_1": texts}
    pq.write_table(pa.table(table), tmp_path / "all.parquet")
    start = look_at(tmp_path / "all.parquet")
    assert start.section["columns"] == {"image": "img", "caption": ["caption_0", "caption_1"]}
    assert start.section["held_out"] == {"val": 0.1, "test": 0.1}
    assert any("columns.caption is `caption_0`, `caption_1`" in reason for reason in start.reasons)


def test_files_that_belong_to_no_split_and_names_that_may_mean_two_are_told(rows, tmp_path):
    write_hub(tmp_path, rows, "tar", {"train": "train", "val": "val", "test": "extra"}, parts=1)
    start = look_at(tmp_path)
    assert any("1 files are of no split by their names and are left out" in warning for warning in start.warnings)
    write_hub(tmp_path, rows, "tar", {"test": "eval"}, parts=1)
    with pytest.raises(ConfigurationError, match=r"eval-.*tar stands beside .*val-.*tar, so it may be of val or of"):
        look_at(tmp_path)


def write_tables(folder: Path, rows, kind: str, names: dict[str, str]) -> None:
    for split, name in names.items():
        path = folder / f"{name}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "jsonl":
            lines = [json.dumps({"file_name": row["image_path"], "text": row["caption"]}) for row in rows[split]]
        else:
            lines = ["file_name,text", *(f'{row["image_path"]},"{row["caption"]}"' for row in rows[split])]
        path.write_text("\n".join(lines))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("pattern", ["{}", "mine_{}_2017", "{}/metadata"])
@pytest.mark.parametrize("is_folder", [True, False])
def test_names_of_tables_say_the_splits(rows, tmp_path, kind, pattern, is_folder):
    names = {"train": "train", "val": "valid", "test": "test"}
    names = {split: pattern.format(name) for split, name in names.items()}
    write_tables(tmp_path / "d", rows, kind, names)
    given = tmp_path / "d" if is_folder or "/" in pattern else tmp_path / f"d/{names['val']}.{kind}"
    start = look_at(given)
    assert start.section["annotations"] == {split: str(tmp_path / f"d/{name}.{kind}") for split, name in names.items()}
    assert start.section["columns"] == {"image": "file_name", "caption": "text"}
    assert "held_out" not in start.section
    assert counts(start.section, tmp_path) == [64, 16, 16]


def test_a_table_of_train_and_one_of_val_leave_test_to_a_draw_from_train(rows, tmp_path):
    write_tables(tmp_path, rows, "csv", {"train": "train", "val": "dev"})
    start = look_at(tmp_path / "train.csv")
    assert start.section["held_out"] == {"test": 0.1}
    train, val, test = counts(start.section, tmp_path)
    assert (train + test, val) == (64, 16)


def test_a_draw_from_a_small_train_gives_each_missing_split_some_images(shapes, tmp_path):
    """With the seed 0, none of these images is drawn for test."""
    names = [f"{number}.jpg" for number in range(400)]
    few = [name for name in names if drawn_split(name, {"test": 0.1}, 0) == "train"][:20]
    for split, images in {"train": few, "val": ["val.jpg"]}.items():
        for image in images:
            shutil.copy(next((shapes / "pics").iterdir()), tmp_path / image)
        (tmp_path / f"{split}.csv").write_text("file_name,text\n" + "\n".join(f"{each},a picture" for each in images))
    start = look_at(tmp_path / "train.csv")
    assert start.section["split_seed"] > 0
    drawn = [drawn_split(each, start.section["held_out"], start.section["split_seed"]) for each in few]
    assert drawn.count("test") >= 2
    assert any("of the images of train are drawn; with split_seed" in reason for reason in start.reasons)


def test_a_table_of_test_alone_is_read_with_a_warning(rows, tmp_path):
    write_tables(tmp_path, rows, "csv", {"test": "test"})
    start = look_at(tmp_path / "test.csv")
    assert set(start.section["held_out"]) == {"val", "test"}
    assert "is of test by its name, but no file of train is beside it" in start.warnings[0]


def test_several_tables_of_one_split_are_a_pattern(rows, tmp_path):
    write_tables(tmp_path, rows, "csv", {"train": "train-0", "val": "val-0", "test": "test"})
    (tmp_path / "train-1.csv").write_text((tmp_path / "train-0.csv").read_text())
    start = look_at(tmp_path)
    assert start.section["annotations"]["train"] == str(tmp_path / "train-*.csv")
    assert start.section["annotations"]["test"] == str(tmp_path / "test.csv")
    assert load_dataset(start.section).files["annotations.train[1]"] == str(tmp_path / "train-1.csv")
    assert "the first pairs as they are read:" in list(start.lines())


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_tables_that_differ_in_numbers_are_one_data_set(rows, tmp_path, kind):
    write_tables(tmp_path, rows, kind, {"train": "part-00000", "val": "part-00001", "test": "part-00002"})
    (tmp_path / "readme.md").write_text("three parts")
    start = look_at(tmp_path)
    assert start.section["file"] == str(tmp_path)
    assert start.section["held_out"]
    counted = inspect(load_dataset(start.section), tmp_path).captions
    assert sum(counted.values()) == sum(map(len, rows.values()))


def test_tables_of_one_split_that_are_not_alike_are_a_sentence(rows, tmp_path):
    write_tables(tmp_path, rows, "csv", {"train": "train-dogs", "val": "val", "test": "train-cats"})
    with pytest.raises(ConfigurationError, match=r"2 files are of train by their names: .*train-cats.csv"):
        look_at(tmp_path)


def test_cocos_files_of_two_years_are_a_sentence(tmp_path):
    for name in ("captions_train2014", "captions_train2017", "captions_val2017", "captions_test2017"):
        (tmp_path / f"{name}.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(ConfigurationError, match=r"2 files are of train by their names: .*captions_train2014.json"):
        look_at(tmp_path)


def test_a_folder_of_pictures_alone_says_that_captions_are_missing(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ConfigurationError, match=r"has pictures, but no captions; .* `cusa import-model --help`"):
        look_at(tmp_path)


def test_json_files_of_single_pictures_are_no_tables(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.json").write_text(json.dumps({"caption": "a dog", "url": "http://x"}))
    with pytest.raises(ConfigurationError, match="has neither one table nor"):
        look_at(tmp_path)


def test_words_of_languages_are_no_splits(rows, tmp_path):
    write_tables(tmp_path, rows, "csv", {"train": "captions_tr", "test": "captions_te"})
    assert look_at(tmp_path / "captions_tr.csv").section["file"] == str(tmp_path / "captions_tr.csv")


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("image,caption\na.jpg,a dog, a cat\n", "t.csv", "line 2 has more or fewer cells than the heading"),
        (
            '[["a.jpg", "a dog"]]',
            "t.json",
            "row 0 is a list of cells without the names of their columns, expected an object",
        ),
    ],
)
def test_where_no_row_can_be_read_the_reason_of_the_first_one_is_told(tmp_path, text, name, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=f"has no row that can be read; the first one: .*{reason}"):
        look_at(tmp_path / name)


@pytest.mark.parametrize("count", [1, 6, 12, 40])
def test_a_small_table_is_drawn_so_that_each_split_has_two_images(tmp_path, shapes, names, count):
    names = names[:count]
    start = look_at(table(tmp_path, shapes, "image,caption\n" + "\n".join(f"{name},a dog" for name in names)))
    drawn = [drawn_split(name, start.section["held_out"], start.section.get("split_seed", 0)) for name in names]
    assert all(drawn.count(split) >= 2 for split in SPLITS) == (count > 1)
    assert ("1 images are too few to draw 2 for each of train, val and test" in start.warnings) == (count == 1)


def test_empty_cells_of_the_split_column_are_counted(tmp_path, shapes, names):
    rows = [{"image": name, "caption": "a dog", "split": SPLITS[n % 3] if n else None} for n, name in enumerate(names)]
    start = look_at(table(tmp_path, shapes, json.dumps(rows), "t.json"))
    assert start.warnings[0].startswith("1 rows of the split column are empty; add one")


def test_a_small_table_gets_a_batch_that_its_pairs_fill(tmp_path, shapes, names):
    lines = [f"{name},a dog,{SPLITS[min(n // 20, 2)]}" for n, name in enumerate(names)]
    start = look_at(table(tmp_path, shapes, "image,caption,split\n" + "\n".join(lines)))
    assert yaml.safe_load(start.text)["train"] == {"batch_size": 16}
    assert "train.batch_size is 16: train has 20 pairs, and a step takes 128 by default" in start.reasons
    (tmp_path / "t.csv").write_text("image,caption,split\n" + "\n".join(lines * 7))
    start = look_at(tmp_path / "t.csv")
    assert "train" not in yaml.safe_load(start.text)


@pytest.mark.parametrize("count", [20, 60])
def test_paths_of_another_machine_lose_their_start(tmp_path, shapes, names, count):
    lines = [f"C:\\Users\\me\\images\\{name},a dog" for name in names[:count]]
    start = look_at(table(tmp_path, shapes, "image,caption\n" + "\n".join(lines)))
    assert not start.warnings
    assert start.section["image_prefix"] == "C:/Users/me"
    dataset = load_dataset(start.section)
    found = [record for record in open_source(dataset, tmp_path / "made").records() if isinstance(record, Record)]
    assert all(Path(record.image_path).is_file() for record in found)
    counts = Counter(record.split for record in found)
    assert min(counts[split] for split in SPLITS) >= 2  # as promised where images are few


def test_paths_of_windows_are_found(tmp_path, shapes, names):
    start = look_at(table(tmp_path, shapes, "image,caption\n" + "\n".join(f"images\\{name},a dog" for name in names)))
    assert not start.warnings


ODD_NAMES = [
    "a\nb.csv",
    "a: b #c.csv",
    "x\x85y.csv",
    "~x.csv",
    "null",
    "1:30",
    "$NO.csv",
    "*.csv",
    "é 日本.csv",
    "a" * 200,
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_the_file_of_an_odd_name_is_found_again(name, shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{path},a picture of {number}\n" for number, path in enumerate((shapes / "pics").iterdir()))
    (tmp_path / name).write_text("image,caption\n" + rows)
    (tmp_path / "mine.yaml").write_text(starting_configuration(name), encoding="utf-8")
    configuration = load(read_files([tmp_path / "mine.yaml"]))
    check_files(configuration)
    assert Path(configuration.dataset.files["file"]).absolute() == tmp_path / name


def test_a_name_that_is_not_utf_8_is_told(tmp_path):
    path = tmp_path / os.fsdecode(b"n\xef.csv")
    path.write_text("image,caption\na.jpg,a picture\n")
    with pytest.raises(ConfigurationError, match="has a name that is not UTF-8, which no configuration can hold"):
        look_at(path)


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("endings", "says"),
    [
        ((), "has neither pictures nor captions"),
        (("jpg",), "has pictures, but no captions"),
        (("txt",), "has captions, but no pictures"),
        (("csv",), "has neither"),
    ],
    ids=str,
)
def test_a_tar_without_samples_is_told(endings, says, tmp_path):
    path = write_tar(tmp_path / "all.tar", [(f"{number}.{end}", b"x") for number in range(3) for end in endings])
    with pytest.raises(ConfigurationError, match=f"all.tar {says}.* expected for each KEY a picture, such as KEY.jpg"):
        look_at(path)


def test_texts_of_a_tar_with_the_mark_of_utf_16_are_read(shapes, tmp_path):
    pictures = [path.read_bytes() for path in (shapes / "pics").iterdir()]
    members = []
    for number, content in enumerate(pictures):
        caption = f"ein Käfer {number}"
        text = (f"{number}.txt", caption.encode("utf-16"))
        members += [(f"{number}.jpg", content), text]
    lines = list(look_at(write_tar(tmp_path / "all.tar", members)).lines())
    assert any("ein Käfer 0" in line for line in lines), lines


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xd8\xff\xe0", "is not text, but a JPEG picture; name a file of text, such as a table"),
        (b"\x89PNG\r\n\x1a\n", "is not text, but a PNG picture"),
        (b"%PDF-1.7", "is not text, but a PDF document"),
        (b"image,caption\n" + b"a.jpg,K\xe4fer und K\xe4se\n" * 9, r"cusa init --encoding cp1252"),
        (
            b"image,caption\n" + b"a.jpg,a\0b\n" * 3,
            "`caption` is left out, because every value has a NUL character; remove",
        ),
    ],
    ids=["jpeg", "png", "pdf", "cp1252", "NUL"],
)
def test_what_is_no_table_is_called_what_it_is(content, says, tmp_path):
    (tmp_path / "data.csv").write_bytes(content)
    with pytest.raises(CusaError, match=says):
        look_at(tmp_path / "data.csv")


def test_an_encoding_that_is_said_is_read_and_written(shapes, tmp_path):
    rows = [f"{path},ein Käfer {number}" for number, path in enumerate((shapes / "pics").iterdir())]
    (tmp_path / "t.csv").write_bytes("\n".join(["image,caption", *rows]).encode("cp1252"))
    start = look_at(tmp_path / "t.csv", encoding="cp1252")
    assert start.section["encoding"] == "cp1252"
    assert any("ein Käfer" in line for line in start.lines())
    with pytest.raises(ConfigurationError, match="--encoding cp9999 is none that Python knows"):
        look_at(tmp_path / "t.csv", encoding="cp9999")


def test_data_of_which_no_row_can_be_read_are_told_before_anything_is_written(shapes, tmp_path):
    picture = next((shapes / "pics").iterdir()).read_bytes()
    members = [part for key in "abc" for part in ((f"{key}.jpg", picture), (f"{key}.txt", b"a\0b"))]
    start = look_at(write_tar(tmp_path / "all.tar", members))
    with pytest.raises(
        ConfigurationError, match="no row of the data can be read; the first one: .*has a NUL character"
    ):
        list(start.lines())


def test_a_title_above_the_heading_is_told(tmp_path, shapes, names):
    rows = "".join(f"{name},a shape of number {number}\n" for number, name in enumerate(names))
    path = table(tmp_path, shapes, f"My captions,\nimage,caption\n{rows}")
    assert any("if that is a title, remove the lines above the heading" in each for each in look_at(path).warnings)


def test_columns_of_one_name_are_numbered(tmp_path, shapes, names):
    """Captions may be in all of them; other keys take the first."""
    part = {n: "train" if n < 32 else "val" if n < 40 else "test" for n in range(len(names))}
    rows = [f"{name},,one of them,two of them,{part[n]},{part[n]}" for n, name in enumerate(names)]
    start = look_at(table(tmp_path, shapes, "image,image,text,text,split,split\n" + "\n".join(rows)))
    assert start.section["columns"] == {"image": 0, "caption": [2, 3], "split": 4}
    assert not start.warnings
    assert "columns.caption is 2, 3, counted from 0: several columns are called `text`" in start.reasons
    converts(start.section, tmp_path)
    assert "two of them" in (tmp_path / "out/train.json").read_text()


@pytest.mark.parametrize("key", ["annotations", "data"])
def test_a_list_of_rows_under_a_key_is_a_table(tmp_path, shapes, names, key):
    """Annotations without a list of images are none of COCO's."""
    path = tmp_path / "a.json"
    rows = [
        {"file_name": str(shapes / "pics" / name), "text": f"a shape of number {n}"} for n, name in enumerate(names)
    ]
    path.write_text(json.dumps({"version": "1.0", key: rows}))
    start = look_at(path)
    assert start.section["format"] == "table"
    assert start.section["columns"] == {"image": "file_name", "caption": "text"}
    converts(start.section, tmp_path)


def test_lists_of_the_splits_in_one_object(tmp_path, shapes, names):
    part = {n: "train" if n < 32 else "dev" if n < 40 else "test" for n in range(len(names))}
    rows = {split: [] for split in ("train", "dev", "test")}
    for number, name in enumerate(names):
        rows[part[number]].append({"image": str(shapes / "pics" / name), "caption": f"a shape {number}"})
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    start = look_at(path)
    assert start.section["columns"] == {"image": "image", "caption": "caption", "split": "split"}
    converts(start.section, tmp_path)
    assert len(json.loads((tmp_path / "out/val.json").read_text())) == 8


def test_objects_with_captions_and_splits_keyed_by_image(tmp_path, shapes, names):
    part = {n: "train" if n < 32 else "val" if n < 40 else "test" for n in range(len(names))}
    content = {name: {"captions": ["one", "a second one"], "part": part[n]} for n, name in enumerate(names)}
    section = started(table(tmp_path, shapes, json.dumps(content), "t.json"))
    assert section["columns"] == {"image": "image", "caption": "captions", "split": "part"}
    converts(section, tmp_path)


@pytest.mark.parametrize("parts", [("0", "1", "2"), ("True", "False", "False"), ("fold a", "fold b", "fold c")])
def test_names_that_mean_no_split_are_left_to_split_names(tmp_path, shapes, names, parts):
    """The configuration is written, because it is the place to say what they mean."""
    part = {n: parts[0] if n < 32 else parts[1] if n < 40 else parts[2] for n in range(len(names))}
    rows = [f"{name},a picture,{part[n]}" for n, name in enumerate(names)]
    start = look_at(table(tmp_path, shapes, "image,caption,split\n" + "\n".join(rows)))
    said = "\n".join(start.lines())
    assert "    none before dataset.split_names says what the names of splits mean" in said
    assert f"the split column has `{parts[0]}` (32 rows)" in start.warnings[0]
    if len(set(parts)) == 3:
        converts(start.section | {"split_names": dict(zip(parts, SPLITS, strict=True))}, tmp_path)


def test_a_name_that_may_mean_val_or_test_is_told_and_no_test_is_advised(tmp_path, shapes, names):
    part = {n: "train" if n < 32 else "dev" if n < 40 else "Eval" for n in range(len(names))}
    rows = [f"{name},a picture,{part[n]}" for n, name in enumerate(names)]
    start = look_at(table(tmp_path, shapes, "image,caption,split\n" + "\n".join(rows)))
    assert start.warnings == [
        "`Eval` (8 rows) stands beside `dev` in the split column, so it may mean test; say in dataset.split_names what "
        "it means, for instance {Eval: test}"
    ]
    converts(start.section | {"split_names": {"Eval": "test"}}, tmp_path)


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_first_row_whose_id_is_an_image_is_no_heading(tmp_path, shapes, names, separator):
    """Names without an ending do not look like images, but they are files with one."""
    rows = [f"{Path(name).stem}{separator}a picture {n}" for n, name in enumerate(names)]
    start = look_at(table(tmp_path, shapes, "\n".join(rows)))
    assert (start.section["heading"], start.section["columns"]) == (False, {"image": 0, "caption": 1})
    assert f"heading is false: `{Path(names[0]).stem}` of the first row is the image {names[0]}" in start.reasons
    converts(start.section, tmp_path)
    written = [json.loads((tmp_path / f"out/{split}.json").read_text()) for split in SPLITS]
    assert sum(map(len, written)) == len(names)


def test_pictures_as_text_are_no_captions(tmp_path, shapes, names):
    """Base64 in a TSV, as some releases have it, and as its heading in one without a heading."""
    rows = [f"{Path(name).stem}\t/9j/4AAQSkZJRgABAQ{'A' * 200}{n}" for n, name in enumerate(names)]
    with pytest.raises(
        ConfigurationError, match=r"none of which holds captions \(`/9j/.*` holds the text .base64. of"
    ) as e:
        look_at(table(tmp_path, shapes, "\n".join(rows), "t.tsv"))
    assert "A" * 60 not in str(e.value)


@pytest.mark.parametrize("sign", ["|", "; ", "\\n"])
def test_captions_that_seem_to_stand_in_one_cell_are_told(tmp_path, shapes, names, sign):
    rows = [{"image": name, "caption": f"a red circle{sign}one circle on white"} for name in names]
    text = "\n".join(json.dumps(row) for row in rows).replace("\\\\n", "\\n")
    start = look_at(table(tmp_path, shapes, text, "t.jsonl"))
    count = f"{len(names)} of the first {len(names)} values of `caption` have "
    assert [warning for warning in start.warnings if warning.startswith(count)]
    one = "\n".join(
        json.dumps(row | {"caption": "a circle; a red one" if n == 0 else "a circle"}) for n, row in enumerate(rows)
    )
    (tmp_path / "one").mkdir()
    assert not [w for w in look_at(table(tmp_path / "one", shapes, one, "t.jsonl")).warnings if "between words" in w]


@pytest.mark.parametrize(
    ("caption", "says"),
    [
        ("a cat &amp; a dog", "have entities of HTML"),
        ("a cat&#39;s nose", "have entities of HTML"),
        ("caf\ufffd noir", "have U.FFFD, which stands where"),
        ("caf\u00c3\u00a9 noir", "have UTF-8 that was read as cp1252"),
        ("the cat\u00e2\u20ac\u2122s nose", "have UTF-8 that was read as cp1252"),
    ],
)
def test_captions_that_other_programs_have_damaged_are_told(tmp_path, shapes, names, caption, says):
    rows = [{"image": [name], "caption": caption} for name in names]
    start = look_at(table(tmp_path, shapes, "\n".join(map(json.dumps, rows)), "t.jsonl"))
    (warning,) = start.warnings
    assert re.search(f"{len(names)} of the first {len(names)} values of `caption` {says}", warning)


def test_sound_captions_with_accents_and_semicolons_are_not_doubted(tmp_path, shapes, names):
    rows = [
        {"image": name, "caption": f"S\u00c3O Paulo & caf\u00e9 n\u00b0 {n}; \u20ac 5"} for n, name in enumerate(names)
    ]
    start = look_at(table(tmp_path, shapes, "\n".join(map(json.dumps, rows)), "t.jsonl"))
    assert not [warning for warning in start.warnings if "have " in warning and "between words" not in warning]
