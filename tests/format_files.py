"""The shapes data set in the files of every input format, exactly as each is published."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SPLITS = ("train", "val", "test")


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
    """Train has one caption per row and an id, val and test have lists and none."""
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


def write_parquet_struct(folder: Path, rows) -> dict:
    """As Hugging Face's datasets saves a column of images, in two files: lists of captions, a column of splits."""
    table = [
        {
            "image": {"bytes": Path(row["image"]).read_bytes(), "path": row["id"]},
            "caption": row["caption"],
            "split": row["split"],
            "kind": row["kind"],
        }
        for row in one_table(rows)
    ]
    (folder / "data").mkdir()
    half = len(table) // 2
    for number, part in enumerate((table[:half], table[half:])):
        pq.write_table(
            pa.Table.from_pylist(part), folder / f"data/part-{number:05d}-of-00002.parquet", row_group_size=5
        )
    columns = {"split": "split", "label": "kind"}
    return {"format": "parquet", "file": str(folder / "data/part-*.parquet"), "columns": columns}


def write_parquet_bytes(folder: Path, rows) -> dict:
    """A folder of files for each split, and a row with the picture's bytes for each caption."""
    files = {}
    for split in SPLITS:
        table = {
            "jpg": [Path(row["image_path"]).read_bytes() for row in rows[split]],
            "text": [row["caption"] for row in rows[split]],
            "who": [row["image_id"] for row in rows[split]],
        }
        files[split] = str(folder / split)
        (folder / split).mkdir()
        pq.write_table(pa.table(table), folder / split / "0000.parquet")
    columns = {"image": "jpg", "caption": "text", "image_id": "who"}
    return {"format": "parquet", "annotations": files, "columns": columns}


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_samples(path: Path, samples: list[dict], mode: str = "w") -> None:
    """A tar as img2dataset writes it: KEY.jpg, KEY.txt with the first caption, and KEY.json."""
    with tarfile.open(path, mode) as tar:
        for number, row in enumerate(samples):
            key = f"{number:09d}"
            add_member(tar, f"{key}.jpg", Path(row["image"]).read_bytes())
            metadata = {"key": key, "status": "success", "width": 64, **row}
            add_member(tar, f"{key}.txt", row["caption"][0].encode())
            add_member(tar, f"{key}.json", json.dumps(metadata).encode())


def write_webdataset_shards(folder: Path, rows) -> dict:
    """Plain tars of ten samples, named by braces."""
    places = {}
    for split in SPLITS:
        samples = [row for row in one_table(rows) if row["split"] == split]
        count = -(-len(samples) // 10)
        for number in range(count):
            write_samples(folder / f"{split}-{number:05d}.tar", samples[10 * number : 10 * number + 10])
        places[split] = str(folder / f"{split}-{{00000..{count - 1:05d}}}.tar")
    return {"format": "webdataset", "annotations": places, "keys": {"caption": "caption", "image_id": "id"}}


def write_webdataset_gz(folder: Path, rows) -> dict:
    """One compressed tar, whose JSON files say the split."""
    write_samples(folder / "all.tar.gz", one_table(rows), "w:gz")
    keys = {"caption": "caption", "image_id": "id", "split": "split", "label": "kind"}
    return {"format": "webdataset", "file": str(folder / "all.tar.gz"), "keys": keys}


WRITERS = {name.removeprefix("write_"): call for name, call in list(globals().items()) if name.startswith("write_")}
WRITERS.pop("shapes", None)
WRITERS.pop("samples")
# Those whose files hold the pictures.
PACKED = [name for name in WRITERS if name.startswith(("parquet_", "webdataset_"))]


def published_rows(shapes: Path) -> dict[str, list[dict[str, str]]]:
    """The shapes, as published; image paths are absolute, so that files may lie anywhere."""
    found = {split: json.loads((shapes / f"{split}.json").read_text()) for split in ("train", "val", "test")}
    for row in (row for members in found.values() for row in members):
        row["image_path"] = str(shapes / row["image_path"])
    return found
