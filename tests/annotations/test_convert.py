"""From records to tables, and the report of everything that is wrong with a data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cusa.annotations.convert import convert, inspect
from cusa.annotations.tables import CAPTIONS, IMAGES, cleaning_of, read_table, split_rows
from cusa.common.files import read_json
from cusa.config.captions import PUBLISHED, CaptionCleaning
from cusa.config.dataset import PublishedDataset
from cusa.errors import DataError


@pytest.fixture
def copy(shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes, tmp_path / "data"))


def dataset(folder: Path, **settings) -> PublishedDataset:
    files = {split: str(folder / f"{split}.json") for split in ("train", "val", "test")}
    return PublishedDataset(name="shapes", format="published", annotations=files, **settings)


def edit(folder: Path, split: str, change) -> None:
    path = folder / f"{split}.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def test_tables_are_in_split_order_and_point_to_each_other(shapes, tmp_path):
    convert(dataset(shapes), tmp_path, tmp_path / "images", threads=2)
    images, captions = read_table(tmp_path, IMAGES), read_table(tmp_path, CAPTIONS)
    assert images["split"].to_pylist() == ["train"] * 32 + ["val"] * 8 + ["test"] * 8
    assert split_rows(captions, "val").tolist() == list(range(64, 80))
    for caption in captions.to_pylist():
        name = images["image_id"][caption["image"]].as_py()
        assert set(caption["cleaned"].split()) >= set(name.removesuffix(".jpg").split("_"))
    assert captions["cleaned"][0].as_py() == captions["caption"][0].as_py().lower().rstrip(".")


def test_captions_are_cleaned_as_chosen_and_the_table_says_how(copy, tmp_path):
    codes = {0: "Screw AB-12/3, BLUE", 1: "screw ab 12 3 blue", 2: "C++"}

    def number(rows):
        for row, caption in codes.items():
            rows[row]["caption"] = caption

    edit(copy, "train", number)
    none = CaptionCleaning(clean="none", max_words=None)
    convert(dataset(copy), tmp_path / "none", tmp_path / "images", cleaning=none)
    kept = read_table(tmp_path / "none", CAPTIONS)
    assert kept["cleaned"].to_pylist()[:3] == kept["caption"].to_pylist()[:3] == list(codes.values())
    assert cleaning_of(tmp_path / "none") == none

    convert(dataset(copy), tmp_path / "published", tmp_path / "images")
    cleaned = read_table(tmp_path / "published", CAPTIONS)
    assert cleaned["cleaned"].to_pylist()[:3] == ["screw ab 12 3 blue"] * 2 + ["c++"]
    assert len(cleaned) == len(kept)  # captions that become equal stay two
    assert cleaning_of(tmp_path / "published") == PUBLISHED


def test_the_json_is_the_published_format_and_goes_in_again_unchanged(shapes, tmp_path):
    convert(dataset(shapes), tmp_path / "one", tmp_path / "images")
    rows = json.loads((tmp_path / "one/train.json").read_text())
    assert set(rows[0]) == {"image_path", "caption", "image_id"}
    assert len(rows) == 64
    convert(dataset(tmp_path / "one"), tmp_path / "two", tmp_path / "images")
    for name in ("train.json", "val.json", "test.json", IMAGES, CAPTIONS):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_every_problem_is_reported_at_once_with_examples(copy, tmp_path):
    def spoil(rows):
        rows[0]["caption"] = "?!"
        rows[2]["image_path"] = "./pics/none.jpg"
        rows[3]["image_path"] = "./pics/none.jpg"
        rows[5]["image_path"] = "./pics/other.jpg"
        rows.append({"image_path": "./pics/x.jpg", "caption": "a"})
        rows.append("what")
        rows.append({"image_path": 3, "caption": "a", "image_id": "x"})

    edit(copy, "train", spoil)
    leak = json.loads((copy / "train.json").read_text())[10]
    edit(copy, "test", lambda rows: rows.append(leak))
    names = [row["image_id"] for row in json.loads((copy / "val.json").read_text())]
    (copy / "pics" / names[0]).write_bytes(b"")
    (copy / "pics" / names[2]).write_bytes((copy / "pics" / names[2]).read_bytes()[:-150])
    with pytest.raises(DataError) as caught:
        convert(dataset(copy), tmp_path / "out", tmp_path / "images")
    message = str(caught.value)
    for sentence in (
        "3 rows that are not records: correct them (or add malformed_row to dataset.skip).",
        "has no `image_id` (its keys: image_path, caption)",
        "is a str, expected an object",
        "has a int for `image_path`, expected text",
        "1 captions without a word after clean-up",
        "1 image ids that name two different files",
        "images in more than one split, which lets the test set leak",
        "1 image files that do not exist",
        "2 image files that cannot be decoded, or are too large: replace them (or add unreadable_image to dataset",
        "the file has zero bytes",
        "truncated",
    ):
        assert sentence in message
    assert not (tmp_path / "out").exists()


def test_captions_that_may_be_cells_without_a_value_are_counted(copy, tmp_path):
    rows = json.loads((copy / "train.json").read_text())
    rows[0]["caption"], rows[3]["caption"], rows[4]["caption"] = "nan", " None ", "none of them is red"
    (copy / "train.json").write_text(json.dumps(rows))
    convert(dataset(copy), tmp_path / "out", tmp_path / "images")
    found = read_json(tmp_path / "out/problems.json")
    assert (found["skipped"], found["notes"]) == ({}, {"no_value": 2})
    assert found["note_examples"]["no_value"] == [f"{rows[0]['image_id']}: 'nan'", f"{rows[3]['image_id']}: ' None '"]


def test_what_is_worth_telling_is_counted(copy, tmp_path, caplog):
    names = [row["image_id"] for row in json.loads((copy / "train.json").read_text())]
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(copy / "pics" / names[0], "GIF", save_all=True, append_images=frames[1:])
    Image.fromarray(np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)).save(copy / "pics" / names[4], "TIFF")
    with caplog.at_level("INFO"):
        convert(dataset(copy), tmp_path / "out", tmp_path / "images")
    found = read_json(tmp_path / "out/problems.json")
    assert (found["skipped"], found["notes"]) == ({}, {"several_pictures": 1, "grey_range": 1})
    assert found["note_examples"]["several_pictures"] == [f"{names[0]}: {copy / 'pics' / names[0]}"]
    assert "1 image files have several pictures (animations, pages): the first one is read" in caplog.text


def test_a_picture_of_too_many_pixels_can_be_skipped_or_allowed(copy, tmp_path):
    name = json.loads((copy / "train.json").read_text())[0]["image_id"]
    Image.new("1", (500, 400)).save(copy / "pics" / name, "PNG")
    for check in ("decode", "header"):
        limited = {"max_pixels": 199_999, "check_images": check}
        with pytest.raises(DataError, match="has 500 x 400 pixels, but dataset.max_pixels is 199,999; shrink it"):
            convert(dataset(copy, **limited), tmp_path / "out", tmp_path / "images")
        convert(dataset(copy, **limited, skip=["unreadable_image"]), tmp_path / check, tmp_path / "images")
        assert read_json(tmp_path / check / "problems.json")["skipped"] == {"unreadable_image": 1}
    convert(dataset(copy, max_pixels=200_000), tmp_path / "allowed", tmp_path / "images")
    assert read_json(tmp_path / "allowed/problems.json")["skipped"] == {}


def test_what_may_be_skipped_is_skipped_and_counted(copy, tmp_path):
    edit(copy, "train", lambda rows: rows[0].update(caption="..."))
    name = json.loads((copy / "val.json").read_text())[0]["image_id"]
    (copy / "pics" / name).unlink()
    with pytest.raises(DataError, match="1 image files that do not exist"):
        convert(dataset(copy, skip=["empty_caption"]), tmp_path / "out", tmp_path / "images")
    convert(dataset(copy, skip=["empty_caption", "missing_image"]), tmp_path / "out", tmp_path / "images")
    problems = read_json(tmp_path / "out/problems.json")
    assert problems["skipped"] == {"empty_caption": 1, "missing_image": 1}
    assert name in problems["examples"]["missing_image"][0]
    assert read_table(tmp_path / "out", IMAGES).num_rows == 47
    assert read_table(tmp_path / "out", CAPTIONS).num_rows == 96 - 1 - 2


def test_leaks_cannot_be_skipped(copy, tmp_path):
    leak = json.loads((copy / "train.json").read_text())[0] | {"image_id": "renamed"}
    edit(copy, "test", lambda rows: rows.append(leak))
    everything = ["missing_image", "unreadable_image", "empty_caption", "malformed_row"]
    with pytest.raises(DataError, match="in more than one split"):
        convert(dataset(copy, skip=everything), tmp_path / "out", tmp_path / "images")


def test_many_examples_are_cut_but_counted(copy, tmp_path):
    edit(copy, "train", lambda rows: [row.update(caption="") for row in rows[:9]])
    with pytest.raises(DataError, match="9 captions without a word(?s:.*)and 4 more"):
        convert(dataset(copy), tmp_path / "out", tmp_path / "images")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[{", "is not valid JSON"),
        ('{"a": 1}', "holds a JSON object; expected a list"),
        ("[]", "splits without a usable"),
    ],
)
def test_damaged_json(copy, tmp_path, content, says):
    (copy / "val.json").write_text(content)
    with pytest.raises(DataError, match=says):
        convert(dataset(copy), tmp_path / "out", tmp_path / "images")


def test_image_root_overrides_the_folder_of_the_json(copy, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (copy / "pics").rename(tmp_path / "elsewhere/pics")
    convert(dataset(copy, image_root=str(tmp_path / "elsewhere")), tmp_path / "out", tmp_path / "images")


def test_asking_before_converting(tmp_path):
    with pytest.raises(DataError, match="run `snakemake annotations` first"):
        read_table(tmp_path, IMAGES)


def test_a_missing_file_whose_name_differs_in_case_is_named(copy, tmp_path):
    first = json.loads((copy / "train.json").read_text())[0]["image_path"]
    (copy / first).rename((copy / first).with_suffix(".JPG"))
    with pytest.raises(DataError, match=rf"the file does not exist, but {Path(first).stem}.JPG does"):
        convert(dataset(copy), tmp_path / "out", tmp_path / "images")


def test_a_missing_file_whose_accents_are_written_otherwise_and_a_broken_link_are_told(copy, tmp_path):
    rows = json.loads((copy / "train.json").read_text())
    first, second = list(dict.fromkeys(row["image_path"] for row in rows))[:2]
    (copy / first).rename(copy / "pics/cafe\u0301.jpg")
    (copy / second).unlink()
    (copy / second).symlink_to("nowhere")
    for row in rows:
        row["image_path"] = "pics/caf\u00e9.jpg" if row["image_path"] == first else row["image_path"]
    (copy / "train.json").write_text(json.dumps(rows))
    with pytest.raises(DataError) as caught:
        convert(dataset(copy), tmp_path / "out", tmp_path / "images")
    assert "does not exist, but one does whose accents are other Unicode characters (NFC or NFD)" in str(caught.value)
    assert "does not exist: it is a symbolic link to something that does not exist" in str(caught.value)


def test_an_image_with_two_paths_or_in_two_splits_counts_once(copy, tmp_path):
    rows = {split: json.loads((copy / f"{split}.json").read_text()) for split in ("train", "val", "test")}
    leaked, moved = rows["train"][0], dict(rows["train"][-1])
    rows["test"] += [leaked] * 3
    rows["train"] += [{**moved, "image_path": leaked["image_path"]}] * 3
    for split, members in rows.items():
        (copy / f"{split}.json").write_text(json.dumps(members))
    assert inspect(dataset(copy), tmp_path).problems.counts == {"two_splits": 1, "two_paths": 1}


def test_a_long_text_where_a_path_belongs_is_a_missing_image_and_is_shortened(copy, tmp_path):
    def long(rows):
        rows[0]["image_path"] = rows[1]["image_path"] = "data:image/png;base64," + "A" * 5000 + "\n"

    edit(copy, "train", long)
    with pytest.raises(DataError, match="1 image files that do not exist") as error:
        convert(dataset(copy), tmp_path / "out", tmp_path / "images")
    assert len(str(error.value)) < 1000
    convert(dataset(copy, skip=["missing_image"]), tmp_path / "out", tmp_path / "images")
    assert read_json(tmp_path / "out/problems.json")["skipped"] == {"missing_image": 1}


def test_captions_of_one_split_with_one_id_are_told(shapes, tmp_path):
    from cusa.config.dataset import KarpathyDataset

    paths, splits = sorted((shapes / "pics").iterdir())[:4], ["train", "train", "val", "test"]
    rows = []
    for number, (path, split) in enumerate(zip(paths, splits, strict=True)):
        sentences = [{"raw": f"Number {number}", "sentid": number // 2}]
        numbers = {"cocoid": number, "imgid": number}
        rows.append({"filename": path.name, "filepath": "pics", "split": split, "sentences": sentences, **numbers})
    (tmp_path / "k.json").write_text(json.dumps({"images": rows}))
    section = KarpathyDataset(name="k", format="karpathy", file=str(tmp_path / "k.json"), image_root=str(shapes))
    convert(section, tmp_path / "out", tmp_path / "images")
    found = read_json(tmp_path / "out/problems.json")
    assert found["notes"] == {"two_captions": 1}
    assert found["note_examples"]["two_captions"] == ["0: 'Number 0' and 'Number 1'"]
