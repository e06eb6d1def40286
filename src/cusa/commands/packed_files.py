"""`cusa init` for files that contain the pictures: Parquet files with bytes, and WebDataset tars."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from cusa.annotations.sources.parquet import columns_of_bytes, has_rows, picture_columns
from cusa.annotations.sources.parquet_rows import is_parquet, parquet_rows, parquet_schema
from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.source import Record
from cusa.annotations.sources.tar_members import tar_members
from cusa.annotations.sources.webdataset import CAPTION, METADATA, TEXT
from cusa.annotations.table_columns import find_columns, find_split, says_image
from cusa.commands.split_files import (
    FilesOfSplits,
    add_missing_splits,
    add_splits_of_column,
    draw_more,
    draw_splits,
    files_in,
    place_of,
    require_train,
    split_in_name,
    split_of_folder,
    splits_beside,
)
from cusa.commands.starting_section import Start
from cusa.commands.starting_tables import odd_captions
from cusa.common.image_files import IMAGE_ENDINGS
from cusa.config.data_files import PARQUET_ENDINGS, TAR_ENDINGS, matching_files
from cusa.config.dataset import load_dataset, split_named
from cusa.config.dataset_tables import Column
from cusa.errors import ConfigurationError

SAMPLED_ROWS = 500
BATCH_ROWS = 500
MOST_ENTRIES = 200_000  # files and folders; looking through them takes some seconds
VALUES_AT_ONCE = 65_536


def packed_start(path: Path) -> Start | None:
    """The keys of `dataset` for a file or a folder of files that hold the pictures; None if they hold none.

    A folder that `is_too_large` is not looked through.
    """
    if is_too_large(path):
        return None
    of_parquet: tuple[str, ...] = PARQUET_ENDINGS
    if is_parquet(path):  # a file that is named may end in anything
        of_parquet = (*PARQUET_ENDINGS, (path.suffix or path.name).lower())
    for endings, look in ((TAR_ENDINGS, _tars), (of_parquet, _parquet)):
        files = [Path(file) for file in matching_files(str(path), endings) if file.lower().endswith(endings)]
        if files and (start := look(path, files, endings)) is not None:
            if "held_out" in start.section and (few := _few_pictures(start.section)):
                draw_more(start.section, few, start.reasons, start.warnings)
            return start
    return None


def _few_pictures(section: dict[str, Any]) -> set[str]:
    """The texts that decide the draws of `held_out`, one for each picture; empty if there are many pictures."""
    drawn = {"train", *section["held_out"]}
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch).absolute() / "images"
        source = open_source(load_dataset({"name": "mine", **section}), made)
        source.sample_images(1)
        rows = list(islice(source.records(), SAMPLED_ROWS))
        if len(rows) == SAMPLED_ROWS:
            return set()
        paths = {Path(row.image_path) for row in rows if isinstance(row, Record) and row.split in drawn}
        return {f"{path.parent.name}{path.stem}" if path.is_relative_to(made) else str(path) for path in paths}


def is_too_large(folder: Path) -> bool:
    """Whether there are more than MOST_ENTRIES files and folders below a folder, as below / or a home folder."""
    waiting, count = [os.fspath(folder)] if folder.is_dir() else [], 0
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    count += 1
                    if count > MOST_ENTRIES:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:  # a folder that cannot be read, or is gone, holds nothing for us
            continue
    return False


def _tars(path: Path, files: Sequence[Path], endings: tuple[str, ...]) -> Start:
    start = Start({"format": "webdataset"})
    splits = _splits(path, files, endings)
    first = (splits.get("train") or files)[0]
    rows: list[dict[str, Any]] = []
    texts: list[bytes] = []
    odd: list[str] = []
    for member in islice(tar_members(first, (TEXT, METADATA)), 2 * SAMPLED_ROWS):
        if isinstance(member.content, str):
            continue
        if member.ending == TEXT:
            texts.append(member.content)
        elif isinstance(row := _json(member.content), dict):
            rows.append(row)
        else:
            odd.append(f"{member.name} holds {'no JSON' if row is None else f'a {type(row).__name__}'}")
    keys: dict[str, Any] = {}
    _require_samples(first, bool(texts or rows), odd)
    if texts:
        start.reasons.append("the captions are those in KEY.txt")
        if (several := sum(len(text.split(b"\n")) > 1 for text in map(bytes.strip, texts))) * 2 > len(texts):
            start.warnings.append(
                f"{several:,} of the first {len(texts):,} texts have several lines, and each text is one caption; "
                f'several captions of a picture stand in a list, in KEY{METADATA}: {{"{CAPTION}": [...]}}'
            )
    elif any(CAPTION in row for row in rows):
        start.reasons.append(f"the captions are the key `{CAPTION}` of KEY.json")
    elif rows:
        found = find_columns(files[0], rows, [], image="")
        keys["caption"] = str(found.captions[0])
        start.reasons.append(f"keys.caption is `{keys['caption']}`: it holds texts, and there is no KEY.txt")
        start.warnings += [warning.replace("columns.", "dataset.keys.") for warning in found.warnings]
    column, reason = find_split(rows)
    column = _place(start, path, files, splits, endings, column, [str(row.get(str(column))) for row in rows])
    if column is not None:
        keys["split"] = column
        start.reasons.append(f"keys.split is {reason}")
    if keys:
        start.section["keys"] = keys
    return start


def _require_samples(path: Path, has_captions: bool, odd: Sequence[str]) -> None:
    """Raise ConfigurationError for a tar without samples for training. `odd` are JSON files that are no objects."""
    has_pictures = any(tar_members(path, IMAGE_ENDINGS, contents=False))
    if not (has_pictures and has_captions):
        found = "captions, but no pictures" if has_captions else "pictures, but no captions"
        found = found if has_captions or has_pictures else "neither pictures nor captions"
        raise ConfigurationError(
            f"{path} has {found}; expected for each KEY a picture, such as KEY.jpg, and its "
            f"captions in KEY{TEXT}, or under a key of an object in KEY{METADATA}{f' ({odd[0]})' if odd else ''}."
        )


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _parquet(path: Path, files: Sequence[Path], endings: tuple[str, ...]) -> Start | None:
    splits = _splits(path, files, endings)
    first = next(filter(has_rows, splits.get("train") or files), files[0])
    if (pictures := _picture_columns(first)) is None:
        return None
    start = Start({"format": "parquet"})
    others = [name for name in parquet_schema(first).names if name not in pictures]
    rows = [row for _, row in islice(parquet_rows(first, others, BATCH_ROWS), SAMPLED_ROWS) if isinstance(row, dict)]
    if rest := ", ".join(f"`{name}`" for name in pictures[1:]):
        start.warnings.append(f"{rest} also holds pictures and is left out; see columns.image")
    found = find_columns(first, rows, [], image=pictures[0])
    start.reasons += [reason for reason in found.reasons if not reason.startswith("columns.split")]
    start.warnings += [*found.warnings, *odd_captions(rows, found.captions)]
    captions = found.captions if len(found.captions) > 1 else found.captions[0]
    columns: dict[str, Any] = {"image": found.image, "caption": captions}
    more = {"label": found.label, "language": found.language}
    columns |= {key: name for key, name in more.items() if name is not None}
    values = [str(row.get(str(found.split))) for row in rows]
    column = _place(start, path, files, splits, endings, found.split, values)
    if column is not None:
        columns["split"] = column
        start.reasons += [reason for reason in found.reasons if reason.startswith("columns.split")]
        names: Counter[str] = Counter()
        for file in files:
            members = parquet_rows(file, [str(column)], VALUES_AT_ONCE)
            names.update(str(row.get(str(column))) for _, row in members if isinstance(row, dict))
        add_splits_of_column(start.section, names, start.reasons, start.warnings)
    start.section["columns"] = columns
    return start


def _picture_columns(path: Path) -> list[str] | None:
    """The columns of pictures, the likeliest first; None if there is none.

    Raises ConfigurationError for a file without rows.
    """
    if columns_of_bytes(path) and not has_rows(path):
        raise ConfigurationError(f"{path} has no rows; expected at least one picture with a caption.")
    return sorted(picture_columns(path), key=says_image, reverse=True) or None


def _splits(path: Path, files: Sequence[Path], endings: tuple[str, ...]) -> FilesOfSplits:
    """The files of each split, by their names: those in the folder `path`, or those beside the file `path`."""
    if path.is_dir():
        return splits_beside(path, files, path)
    if split_in_name(path.name) is not None:
        return splits_beside(path, files_in(path.parent, endings), path.parent)
    folder = path.absolute().parent
    if split_of_folder(folder.name) is None:
        return {}
    folders = [child for child in sorted(folder.parent.iterdir()) if child.is_dir() and split_of_folder(child.name)]
    beside = [Path(file) for child in folders for file in matching_files(str(child), endings)]
    return splits_beside(path.absolute(), beside, folder.parent)


def _place(
    start: Start,
    path: Path,
    files: Sequence[Path],
    splits: FilesOfSplits,
    endings: tuple[str, ...],
    column: Column | None,
    values: Sequence[str],
) -> Column | None:
    """Add `annotations`, or `file` and `held_out`. Returns the column that says the split, None if none does.

    The names of the files go before a column, unless the column of one file names several splits.
    """
    several = len({split_named(value) for value in values} - {None}) > 1
    if column is not None and (several or len(splits) < 2):
        start.section["file"] = str(path)
        return column
    if path.is_dir():
        require_train(path, splits)
    if "train" in splits and len(splits) > 1:
        start.section["annotations"] = {split: place_of(members, endings) for split, members in splits.items()}
        add_missing_splits(start.section, splits, start.reasons, start.warnings)
        known = {file for members in splits.values() for file in members}
        if other := [file for file in files if path.is_dir() and file not in known]:
            start.warnings.append(
                f"{len(other):,} files are of no split by their names and are left out, for instance {other[0]}"
            )
        return None
    start.section["file"] = place_of(splits["train"], endings) if path.is_dir() and splits else str(path)
    draw_splits(start.section, "no name and no column", start.reasons)
    if splits and "train" not in splits:
        start.warnings.append(f"{path} is of {' and '.join(splits)} by its name, but no file of train is beside it")
    return None
