"""The shapes data set in the files of every input format, exactly as each is published."""

from __future__ import annotations

import csv
import json
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
