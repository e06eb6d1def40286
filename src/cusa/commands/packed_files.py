"""What `cusa init` makes of files that hold the pictures: Parquet files with bytes, and WebDataset tars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cusa.annotations.sources.parquet import is_picture_type
from cusa.annotations.sources.parquet_rows import parquet_schema
from cusa.config.dataset import SPLITS, split_named
from cusa.config.dataset_packed import PARQUET_ENDINGS, TAR_ENDINGS, matching_files

HELD_OUT = {"val": 0.1, "test": 0.1}
CAPTION_NAMES = ("caption", "captions", "text", "txt", "sentence", "sentences")


def packed_section(path: Path) -> dict[str, Any] | None:
    """The keys of `dataset` for a file or a folder of files that hold the pictures; None where they hold none.

    A folder that is named as a split is that split's place; else shares are drawn for val and test.
    """
    tars = matching_files(str(path), TAR_ENDINGS)
    if tars and tars[0].lower().endswith(TAR_ENDINGS):
        return {"format": "webdataset", **_places(path)}
    files = [file for file in matching_files(str(path), PARQUET_ENDINGS) if file.lower().endswith(PARQUET_ENDINGS)]
    columns = _columns(files)
    if columns is None:
        return None
    places = {"file": str(path)} if "split" in columns else _places(path)
    return {"format": "parquet", **places, "columns": columns}


def _places(path: Path) -> dict[str, Any]:
    folders = [child for child in sorted(path.iterdir()) if child.is_dir()] if path.is_dir() else []
    named = {split_named(child.name): str(child) for child in folders}
    if all(split in named for split in SPLITS):
        return {"annotations": {split: named[split] for split in SPLITS}}
    return {"file": str(path), "held_out": dict(HELD_OUT)}


def _columns(files: Sequence[str]) -> dict[str, str] | None:
    if not files:
        return None
    schema = parquet_schema(Path(files[0]))
    pictures = [column.name for column in schema if is_picture_type(column.type)]
    captions = [name for name in CAPTION_NAMES if name in schema.names]
    if not pictures or not captions:
        return None
    split = {"split": "split"} if "split" in schema.names else {}
    return {"image": pictures[0], "caption": captions[0], **split}
