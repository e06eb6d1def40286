"""`cusa init`: a starting configuration for the user's own data, derived from the data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from cusa.annotations.sources.rows import json_items
from cusa.annotations.table_rows import table_rows
from cusa.config.dataset import SPLITS, Columns, load_dataset
from cusa.errors import ConfigurationError

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
IMAGE_NAME = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?)$", re.IGNORECASE)
SAMPLED_ROWS = 200
HELD_OUT = {"val": 0.1, "test": 0.1}
CAPTIONS = """
# Captions stay as they are. This line cleans them as the paper does: lower case, no punctuation, at most 64 words.
# captions: {clean: published}
"""


def starting_configuration(path: str | Path, images: str | Path | None = None, name: str | None = None) -> str:
    """The YAML text of an overlay for the data in `path`: a table, a JSON file, or a folder of {split}.json files.

    `images` is the folder that image paths start from; without it, the folder of `path` and the folders in it are
    tried. `name` is the name of the data set. Raises ConfigurationError when the format of the data is not recognised.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist; name a table, a JSON file or a folder of JSON files.")
    section = _folder(path) if path.is_dir() else _table(path, images) if _is_table(path) else _json(path)
    if images is not None:
        section["image_root"] = str(images)
    dataset = {"name": name or re.sub(r"[^A-Za-z0-9_.\-]+", "-", path.stem).strip("-.") or "mine", **section}
    load_dataset(dataset)
    overlay = {"dataset": dataset, "benchmarks": {"eccv_caption": None, "image_retrieval": None, "sts": None}}
    text = f"# Written by `cusa init {path}`; every key is explained in config/README.md.\n"
    return text + yaml.safe_dump(overlay, sort_keys=False, allow_unicode=True) + CAPTIONS


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLE_ENDINGS


def _folder(path: Path) -> dict[str, Any]:
    files = {split: _matching_file(path, rf"(.*[_-])?{split}\d*\.json") for split in SPLITS}
    if missing := [split for split, file in files.items() if file is None]:
        names = ", ".join(sorted(child.name for child in path.iterdir())[:8])
        raise ConfigurationError(
            f"{path} has no JSON file for {', '.join(missing)} (it holds {names}); expected train.json, val.json and "
            "test.json, or names such as new_train.json and captions_train2017.json."
        )
    annotations = {split: str(file) for split, file in files.items()}
    first = Path(annotations["train"])
    if first.read_bytes()[:64].lstrip().startswith(b"{"):
        return {"format": "coco", "annotations": annotations}
    row: Any = next(json_items(first), None)
    kind = "albef" if isinstance(row, dict) and "image" in row else "published"
    return {"format": kind, "annotations": annotations}


def _matching_file(folder: Path, pattern: str) -> Path | None:
    return next((child for child in sorted(folder.iterdir()) if re.fullmatch(pattern, child.name)), None)


def _json(path: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".token":
        raise ConfigurationError(
            f"{path} is Flickr30K's token file, which does not say the split of an image; use format: flickr30k with a "
            "list of images for each split, see config/README.md."
        )
    if path.read_bytes()[:64].lstrip().startswith(b"{"):
        image: Any = next(json_items(path, "images"), None)
        if isinstance(image, Mapping) and "sentences" in image:
            return {"format": "karpathy", "file": str(path)}
    raise ConfigurationError(
        f"{path} is neither a table ({', '.join(TABLE_ENDINGS)}) nor one of Karpathy's files; if there is one JSON "
        "file per split, name their folder."
    )


def _table(path: Path, images: str | Path | None) -> dict[str, Any]:
    found = [row for _, row in islice(table_rows(path), SAMPLED_ROWS) if isinstance(row, dict)]
    rows = [{str(column): value for column, value in row.items()} for row in found]
    if not rows:
        raise ConfigurationError(f"{path} has no rows; expected at least one image with a caption.")
    texts = {column: list(_texts(rows, column)) for column in rows[0]}
    image = _first(column for column, values in texts.items() if values and all(map(IMAGE_NAME.search, values)))
    splits = _first(column for column, values in texts.items() if values and set(values) <= set(SPLITS))
    others = {column: values for column, values in texts.items() if column not in (image, splits) and values}
    if image is None or not others:
        wanted = "names of images" if image is None else "captions"
        raise ConfigurationError(
            f"{path} has the columns {', '.join(texts)}, none of which holds {wanted}; name the columns yourself in "
            "dataset.columns, see config/README.md."
        )
    caption = max(others, key=lambda column: sum(map(len, others[column])) / len(others[column]))
    columns = Columns(image=image, caption=caption, split=splits)
    section: dict[str, Any] = {"format": "table", "file": str(path), "columns": columns.model_dump(exclude_none=True)}
    if splits is None:
        section["held_out"] = dict(HELD_OUT)
    if images is None and (root := _image_root(path, texts[image][0])) is not None and root != path.parent:
        section["image_root"] = str(root)
    return section


def _texts(rows: list[dict[str, Any]], column: str) -> Iterator[str]:
    for row in rows:
        value = row.get(column)
        for member in value if isinstance(value, list) else [value]:
            if isinstance(member, str):
                yield member


def _first(names: Iterator[str]) -> str | None:
    return next(names, None)


def _image_root(path: Path, image: str) -> Path | None:
    """The folder that contains the image: the folder of the table, or a folder in it; None if none contains it."""
    folders = [path.parent, *sorted(child for child in path.parent.iterdir() if child.is_dir())]
    return next((folder for folder in folders if (folder / image).is_file()), None)
