"""Every input format in files of exactly its published shape, and in damaged ones; all end as the same data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from format_files import (
    PACKED,
    WRITERS,
    dump,
    karpathy_images,
    published_rows,
    write_albef,
    write_coco,
    write_flickr30k_csv,
    write_karpathy,
    write_table_parquet,
)

from cusa.annotations.convert import convert
from cusa.annotations.tables import CAPTIONS, IMAGES, read_table
from cusa.common.files import read_json
from cusa.config.dataset import DatasetSection, load_dataset
from cusa.errors import ConfigurationError, DataError

SPLITS = ("train", "val", "test")
WITH_LABELS = ("table_jsonl", "table_parquet", "table_tsv", "parquet_struct", "webdataset_gz")


@pytest.fixture(scope="module")
def rows(shapes: Path) -> dict[str, list[dict[str, str]]]:
    return published_rows(shapes)


def section(content: dict, **more) -> DatasetSection:
    return load_dataset({"name": "d", **content, **more})


@pytest.mark.parametrize("name", list(WRITERS))
def test_every_format_ends_as_the_same_data_set(rows, tmp_path, name):
    expected = {"train": 32, "val": 8, "test": 8}
    dataset = section(WRITERS[name](tmp_path, rows), expected_images=expected)
    convert(dataset, tmp_path / "out", tmp_path / "images")
    for split in SPLITS:
        found = json.loads((tmp_path / "out" / f"{split}.json").read_text())
        assert [row["image_id"] for row in found] == [row["image_id"] for row in rows[split]]
        if name in PACKED:
            for row, original in zip(found, rows[split], strict=True):
                assert Path(row["image_path"]).read_bytes() == Path(original["image_path"]).read_bytes()
                assert Path(row["image_path"]).is_relative_to(tmp_path / "images")
        else:
            assert [row["image_path"] for row in found] == [row["image_path"] for row in rows[split]]
        assert [row["caption"] for row in found] == [row["caption"].strip() for row in rows[split]]
    labels = read_table(tmp_path / "out", IMAGES)["label"].to_pylist()
    assert (labels[0] is not None) == (name in WITH_LABELS)

    # Whatever comes in, the published JSON comes out, and can go in again unchanged.
    again = section({"format": "published", "annotations": str(tmp_path / "out")})
    convert(again, tmp_path / "again", tmp_path / "images")
    for file in ("train.json", "val.json", "test.json"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    # COCO's own ids of captions have no place in it.
    captions = read_table(tmp_path / "out", CAPTIONS)
    assert captions.drop("caption_id") == read_table(tmp_path / "again", CAPTIONS).drop("caption_id")
    assert (captions["caption_id"].null_count == 0) == (name in ("karpathy", "coco"))


def refused(dataset: DatasetSection, tmp_path: Path) -> str:
    with pytest.raises(DataError) as caught:
        convert(dataset, tmp_path / "out", tmp_path / "images")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*partial"))
    return str(caught.value)


@pytest.mark.parametrize("name", [name for name in WRITERS if name in ("published", "albef", "karpathy", "coco")])
def test_json_that_is_cut_off_is_a_sentence(rows, tmp_path, name):
    dataset = section(WRITERS[name](tmp_path, rows))
    path = Path(list(dataset.files.values())[-1])
    path.write_text(path.read_text()[:-40])
    assert f"{path} is not valid JSON" in refused(dataset, tmp_path)


def test_another_number_of_images_than_expected(rows, tmp_path):
    dataset = section(write_karpathy(tmp_path, rows), expected_images={"train": 113_287, "val": 8})
    message = refused(dataset, tmp_path)
    assert "1 splits whose size is not dataset.expected_images" in message
    assert "train has 32 images, expected 113,287" in message


@pytest.mark.parametrize(("where", "counts"), [("train", (32, 8)), ("skip", (16, 8)), ("val", (16, 24))])
def test_restval_goes_where_it_is_told(rows, tmp_path, where, counts):
    convert(section(write_karpathy(tmp_path, rows), restval=where), tmp_path / "out", tmp_path / "images")
    splits = read_table(tmp_path / "out", IMAGES)["split"].to_pylist()
    assert (splits.count("train"), splits.count("val")) == counts


def test_malformed_karpathy_images(rows, tmp_path):
    images = karpathy_images(rows)
    images[0]["split"] = "holdout"
    del images[1]["filename"]
    images[2]["sentences"] = []
    images[3]["sentences"][0] = {"tokens": []}
    images.append("x")
    dump(tmp_path / "k.json", {"images": images})
    message = refused(section({"format": "karpathy", "file": str(tmp_path / "k.json"), "image_root": "/"}), tmp_path)
    for says in (
        "5 rows that are not records",
        "has the split `holdout`, expected train, val, test, restval",
        "has no `filename`",
        "has no list `sentences`",
        "has a sentence that has no `raw`",
        "is a str, expected an object",
    ):
        assert says in message


def test_malformed_albef_rows(rows, tmp_path):
    content = write_albef(tmp_path, rows)
    dump(
        Path(content["annotations"]["val"]), [{"image": "a.jpg", "caption": [1]}, {"image": 3, "caption": ""}, {"a": 1}]
    )
    message = refused(section(content), tmp_path)
    assert "has a list of something else than texts for `caption`" in message
    assert "has a int for `image`, expected text" in message
    assert "has no `image`" in message


def test_malformed_coco_files(rows, tmp_path):
    content = write_coco(tmp_path, rows)
    path = Path(content["annotations"]["test"])
    whole = json.loads(path.read_text())
    whole["annotations"].append({"image_id": 999, "caption": "whose?"})
    whole["images"].append({"id": 500, "file_name": Path(rows["test"][0]["image_path"]).name.upper()})
    dump(path, whole)
    message = refused(section(content), tmp_path)
    assert "is of the image 999, which the file does not list" in message
    assert "1 captions without a word" in message


def test_malformed_flickr30k_lines(rows, tmp_path):
    """The later release has one line without its second separator."""
    content = write_flickr30k_csv(tmp_path, rows)
    path = Path(content["file"])
    path.write_text(path.read_text() + "2199200615.jpg| 4   A dog runs across the grass .\n")
    with Path(content["splits"]["test"]).open("a") as file:
        file.write("\nno-such-image.jpg\n")
    message = refused(section(content), tmp_path)
    assert "is neither NAME#N<tab>CAPTION nor NAME|N|CAPTION: '2199200615.jpg| 4   A dog" in message
    assert "the list of test names no-such-image.jpg, which" in message
    convert(section(content, skip=["malformed_row"]), tmp_path / "out", tmp_path / "images")


def test_flickr30k_images_that_no_list_names_are_counted(rows, tmp_path):
    content = write_flickr30k_csv(tmp_path, rows)
    path = Path(content["file"])
    path.write_text(path.read_text() + "no-list.jpg| 0| A dog runs across the grass .\n")
    convert(section(content), tmp_path / "out", tmp_path / "images")
    found = read_json(tmp_path / "out/problems.json")
    assert (found["skipped"], found["notes"]) == ({}, {"left_out": 1})
    assert "has no-list.jpg, which no list of a split names" in found["note_examples"]["left_out"][0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,caption\na.jpg\n", "line 2 has more or fewer cells than the heading"),
        ("image,caption\na.jpg,b,c\n", "line 2 has more or fewer cells"),
        ("image,text\na.jpg,b\n", "has the columns image, text, but not dataset.columns.caption `caption`"),
        ('image,caption\na.jpg,"b\n', "line 2 has a quotation mark that opens a cell, and no line closes it"),
        ("", "is empty; expected a heading and rows"),
        ("a.jpg,b\nb.jpg,c\n", "has no heading, it seems: its first row is a.jpg, b. Set dataset.heading to false"),
        ("image,caption,caption\na.jpg,b,c\n", "has 2 columns `caption`; say by its number"),
        ("image caption\na.jpg b\n", "has one column, `image caption`, but not dataset.columns.image `image`"),
    ],
)
def test_damaged_csv(rows, tmp_path, text, says):
    files = {split: str(tmp_path / f"{split}.csv") for split in SPLITS}
    for path in files.values():
        Path(path).write_text(text)
    assert says in refused(section({"format": "table", "annotations": files}), tmp_path)


def test_damaged_jsonl_and_parquet(rows, tmp_path):
    content = write_table_parquet(tmp_path, rows)
    path = tmp_path / "all.jsonl"
    path.write_text(path.read_text() + '\n{"image": "a.jpg", \n' + json.dumps({"image": "a.jpg", "caption": "b"}))
    message = refused(section({**content, "file": str(path)}), tmp_path)
    assert "line 49 is not valid JSON" in message
    assert "line 50 has no `id`" in message
    (tmp_path / "all.parquet").write_bytes((tmp_path / "all.parquet").read_bytes()[:-10])
    assert "is not a complete Parquet file" in refused(section(content), tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"format": "table"}, "give either `annotations`.*or `file`"),
        ({"format": "table", "file": "a.csv"}, "`file` needs either columns.split or `held_out`"),
        (
            {"format": "table", "file": "a.csv", "held_out": {"val": 0.1}},
            "held_out has to give shares for val",
        ),
        (
            {"format": "table", "file": "a.xls", "columns": {"split": "s"}},
            "a.xls is neither text nor Parquet; save the",
        ),
        ({"format": "table", "file": "a.csv", "held_out": {"val": 0.1, "test": 0.1}, "image_name": "{0.x}"}, "braces"),
        (
            {"format": "table", "file": "a.csv", "held_out": {"val": 0.1, "test": 0.1}, "image_name": "{:0>999}"},
            "width",
        ),
        (
            {"format": "table", "file": "a.csv", "held_out": {"val": 0.1, "test": 0.1}, "encoding": "cp-1"},
            "is not an encoding",
        ),
        ({"format": "flickr30k", "file": "a", "splits": {"train": "b"}}, "splits lacks val, test"),
        ({"format": "albef", "annotations": {"train": "b"}}, "annotations lacks val, test"),
        ({"format": "karpathy"}, "key `dataset.file` is missing"),
    ],
)
def test_contradictions_are_sentences(content, says):
    with pytest.raises(ConfigurationError, match=says):
        section(content)


ODD_CAPTIONS = {
    "NaN": "has a NaN for `caption`",
    "null": "has a null for `caption`",
    "7": "has a int for `caption`",
    "true": "has a bool for `caption`",
    '{"en": "a"}': "has a dict for `caption`",
    '"half \\ud83d of it"': "has half of a character (the lone surrogate \\ud83d) in `caption`",
    '"nul\\u0000"': "has a NUL character in `caption`",
}


@pytest.mark.parametrize(("odd", "says"), ODD_CAPTIONS.items(), ids=list(ODD_CAPTIONS))
@pytest.mark.parametrize("name", ["published", "albef", "coco"])
def test_odd_values_in_place_of_a_caption_are_malformed_rows_that_can_be_skipped(rows, tmp_path, name, odd, says):
    content = WRITERS[name](tmp_path, rows)
    path = next(path for path in tmp_path.iterdir() if "train" in path.name)
    caption = json.dumps(rows["train"][3]["caption"])
    path.write_text(path.read_text().replace(caption, odd, 1))
    message = refused(section(content), tmp_path)
    assert "1 rows that are not records" in message
    assert says in message
    convert(section(content, skip=["malformed_row"]), tmp_path / "out", tmp_path / "images")
    assert len(json.loads((tmp_path / "out/train.json").read_text())) == 63


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("table_parquet", *PACKED)])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "gzip"])
def test_marks_of_encodings_and_gzip_change_nothing_in_any_format(rows, tmp_path, name, encoding):
    import gzip

    content = WRITERS[name](tmp_path, rows)
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        path.write_bytes(gzip.compress(data) if encoding == "gzip" else data.decode().encode(encoding))
    convert(section(content), tmp_path / "out", tmp_path / "images")
    for split in SPLITS:
        found = json.loads((tmp_path / "out" / f"{split}.json").read_text())
        assert [row["caption"] for row in found] == [row["caption"].strip() for row in rows[split]]


def test_ids_are_the_same_as_numbers_and_as_texts(rows, tmp_path):
    content = write_coco(tmp_path, rows)
    path = Path(content["annotations"]["train"])
    whole = json.loads(path.read_text())
    kinds = (str, float, int)
    for number, annotation in enumerate(whole["annotations"]):
        annotation["image_id"] = kinds[number % 3](annotation["image_id"])
    dump(path, whole)
    convert(section(content), tmp_path / "out", tmp_path / "images")
    assert len(json.loads((tmp_path / "out/train.json").read_text())) == 64


def test_json_lines_in_a_json_file_and_one_object_where_a_list_belongs(rows, tmp_path):
    content = write_albef(tmp_path, rows)
    path = Path(content["annotations"]["train"])
    path.write_text("\n".join(map(json.dumps, json.loads(path.read_text()))))
    convert(section(content), tmp_path / "out", tmp_path / "images")
    dump(path, {"a.jpg": ["a dog"]})
    assert f"{path} holds a JSON object; expected a list" in refused_again(section(content), tmp_path)


def refused_again(dataset: DatasetSection, tmp_path: Path) -> str:
    with pytest.raises(DataError) as caught:
        convert(dataset, tmp_path / "other", tmp_path / "images")
    return str(caught.value)
