"""Every input format in files of exactly its published shape, and in damaged ones; all end as the same data set."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cusa.annotations.convert import convert
from cusa.annotations.tables import CAPTIONS, IMAGES, read_table
from cusa.config.dataset import DatasetSection, load_dataset
from cusa.errors import ConfigurationError, DataError

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def rows(shapes: Path) -> dict[str, list[dict[str, str]]]:
    """The shapes, as published; image paths are absolute, so that files may lie anywhere."""
    found = {}
    for split in SPLITS:
        found[split] = json.loads((shapes / f"{split}.json").read_text())
        for row in found[split]:
            row["image_path"] = str(shapes / row["image_path"])
    return found


def by_image(rows: list[dict[str, str]]) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for row in rows:
        captions.setdefault(row["image_path"], []).append(row["caption"])
    return captions


def dump(path: Path, content: object) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def write_published(folder: Path, rows) -> dict:
    for split in SPLITS:
        dump(folder / f"new_{split}.json", rows[split])
    return {"format": "published", "annotations": str(folder)}


def write_albef(folder: Path, rows) -> dict:
    """Train has one caption a row and an id, val and test have lists and none."""
    files = {}
    for split in SPLITS:
        if split == "train":
            content = [
                {"image": r["image_path"], "caption": r["caption"], "image_id": f"coco_{n}"}
                for n, r in enumerate(rows[split])
            ]
        else:
            content = [{"image": path, "caption": captions} for path, captions in by_image(rows[split]).items()]
        files[split] = dump(folder / f"coco_{split}.json", content)
    return {"format": "albef", "annotations": files}


def karpathy_images(rows) -> list[dict]:
    images = []
    for split in SPLITS:
        for number, (path, captions) in enumerate(by_image(rows[split]).items()):
            images.append(
                {
                    "filepath": str(Path(path).parent),
                    "filename": Path(path).name,
                    "split": "restval" if split == "train" and number % 2 else split,
                    "imgid": len(images),
                    "sentids": [1, 2],
                    "cocoid": 7,
                    "sentences": [{"raw": text, "tokens": text.split(), "imgid": 1, "sentid": 1} for text in captions],
                }
            )
    return images


def write_karpathy(folder: Path, rows) -> dict:
    file = dump(folder / "dataset_coco.json", {"images": karpathy_images(rows), "dataset": "coco"})
    return {"format": "karpathy", "file": file, "image_root": "/"}


def write_coco(folder: Path, rows) -> dict:
    files, roots = {}, {}
    for split in SPLITS:
        paths = list(by_image(rows[split]))
        images = [{"license": 1, "file_name": Path(path).name, "id": 100 + n} for n, path in enumerate(paths)]
        annotations = [
            {"image_id": 100 + paths.index(row["image_path"]), "id": n, "caption": row["caption"]}
            for n, row in enumerate(rows[split])
        ]
        content = {"info": {}, "licenses": [], "images": images, "annotations": annotations}
        files[split] = dump(folder / f"captions_{split}2017.json", content)
        roots[split] = str(Path(paths[0]).parent)
    return {"format": "coco", "annotations": files, "image_roots": roots}


def split_lists(folder: Path, rows) -> dict[str, str]:
    lists = {}
    for split in SPLITS:
        lists[split] = str(folder / f"{split}.txt")
        names = [Path(path).stem if split == "val" else Path(path).name for path in by_image(rows[split])]
        Path(lists[split]).write_text("\n".join(names))
    return lists


def flickr30k_lines(rows, line: str) -> str:
    text = ""
    for split in SPLITS:
        for path, captions in by_image(rows[split]).items():
            for number, caption in enumerate(captions):
                text += line.format(name=Path(path).name, number=number, caption=caption) + "\n"
    return text


def write_flickr30k_token(folder: Path, rows) -> dict:
    (folder / "results_20130124.token").write_text(
        flickr30k_lines(rows, "{name}#{number}\t{caption}") + "not-in-a-split.jpg#0\tA dog runs .\n"
    )
    root = str(Path(rows["train"][0]["image_path"]).parent)
    file, splits = str(folder / "results_20130124.token"), split_lists(folder, rows)
    return {"format": "flickr30k", "file": file, "splits": splits, "image_root": root}


def write_flickr30k_csv(folder: Path, rows) -> dict:
    heading = "image_name| comment_number| comment\n"
    (folder / "results.csv").write_text(heading + flickr30k_lines(rows, "{name}| {number}| {caption}"))
    return write_flickr30k_token(folder, rows) | {"file": str(folder / "results.csv")}


def write_table_csv(folder: Path, rows) -> dict:
    files = {}
    for split in SPLITS:
        files[split] = str(folder / f"{split}.csv")
        with Path(files[split]).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "text, in English", "who"])
            writer.writerows([r["image_path"], r["caption"], r["image_id"]] for r in rows[split])
    columns = {"image": "name", "caption": "text, in English", "image_id": "who"}
    return {"format": "table", "annotations": files, "columns": columns}


def one_table(rows) -> list[dict]:
    return [
        {
            "image": path,
            "caption": captions,
            "split": split,
            "id": Path(path).name,
            "kind": Path(path).stem.split("_")[1],
        }
        for split in SPLITS
        for path, captions in by_image(rows[split]).items()
    ]


def write_table_jsonl(folder: Path, rows) -> dict:
    (folder / "all.jsonl").write_text("\n".join(json.dumps(row) for row in one_table(rows)))
    columns = {"split": "split", "image_id": "id", "label": "kind"}
    return {"format": "table", "file": str(folder / "all.jsonl"), "columns": columns}


def write_table_parquet(folder: Path, rows) -> dict:
    pq.write_table(pa.Table.from_pylist(one_table(rows)), folder / "all.parquet")
    return write_table_jsonl(folder, rows) | {"file": str(folder / "all.parquet")}


def write_table_tsv(folder: Path, rows) -> dict:
    lines = ["image\tcaption\tsplit\tid\tkind"]
    for row in one_table(rows):
        lines += [
            "\t".join([row["image"], caption, row["split"], row["id"], row["kind"]]) for caption in row["caption"]
        ]
    (folder / "all.tsv").write_text("\n".join(lines))
    return write_table_jsonl(folder, rows) | {"file": str(folder / "all.tsv")}


WRITERS = {name.removeprefix("write_"): call for name, call in list(globals().items()) if name.startswith("write_")}
WRITERS.pop("shapes", None)


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
        assert [row["image_path"] for row in found] == [row["image_path"] for row in rows[split]]
        assert [row["caption"] for row in found] == [row["caption"].strip() for row in rows[split]]
    labels = read_table(tmp_path / "out", IMAGES)["label"].to_pylist()
    assert (labels[0] is not None) == (name in ("table_jsonl", "table_parquet", "table_tsv"))

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


@pytest.mark.parametrize("name", [name for name in WRITERS if not name.startswith(("table_", "flickr"))])
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
    images[0]["split"] = "dev"
    del images[1]["filename"]
    images[2]["sentences"] = []
    images[3]["sentences"][0] = {"tokens": []}
    images.append("x")
    dump(tmp_path / "k.json", {"images": images})
    message = refused(section({"format": "karpathy", "file": str(tmp_path / "k.json"), "image_root": "/"}), tmp_path)
    for says in (
        "5 rows that are not records",
        "has the split `dev`, expected train, val, test, restval",
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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,caption\na.jpg\n", "line 2 has more or fewer cells than the heading"),
        ("image,caption\na.jpg,b,c\n", "line 2 has more or fewer cells"),
        ("image,text\na.jpg,b\n", "has the columns image, text, but not dataset.columns.caption `caption`"),
        ('image,caption\na.jpg,"b\n', "is not a valid CSV file"),
        ("", "but not dataset.columns.image"),
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
    assert "line 49 is no valid JSON" in message
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
        ({"format": "table", "file": "a.xls", "columns": {"split": "s"}}, "a.xls does not end in one of .csv"),
        ({"format": "flickr30k", "file": "a", "splits": {"train": "b"}}, "splits lacks val, test"),
        ({"format": "albef", "annotations": {"train": "b"}}, "annotations lacks val, test"),
        ({"format": "karpathy"}, "key `dataset.file` is missing"),
    ],
)
def test_contradictions_are_sentences(content, says):
    with pytest.raises(ConfigurationError, match=says):
        section(content)
