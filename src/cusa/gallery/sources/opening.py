"""Detects the kind of source that a user names, and opens it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cusa.annotations.sources.parquet import columns_of_bytes, picture_columns
from cusa.annotations.table_rows import table_kind
from cusa.common.files import expanded
from cusa.common.image_files import IMAGE_ENDINGS
from cusa.common.text import refuse_pipe
from cusa.config.data_files import PARQUET_ENDINGS, PATTERN_SIGNS, TABLE_ENDINGS, TAR_ENDINGS, matching_files
from cusa.errors import ConfigurationError, DataError
from cusa.gallery.sources.folder import FolderSource
from cusa.gallery.sources.parquet_pictures import ParquetPictures
from cusa.gallery.sources.source import Source
from cusa.gallery.sources.split import SplitSource, captions_of_splits, is_dataset_folder
from cusa.gallery.sources.tables import TableSource
from cusa.gallery.sources.tars import TarSource, tar_files
from cusa.gallery.sources.texts import texts_of_column, texts_of_lines, texts_of_list
from cusa.layout import DatasetFolder

CAPTIONS = ("caption", "captions")


@dataclass(frozen=True)
class Reading:
    """How items are read. `texts` names a file of texts, or with items the column of texts in them."""

    image_column: str | None = None
    text_column: str | None = None
    image_root: Path | None = None
    heading: bool = True
    splits: Sequence[str] = ()
    texts: str | None = None


def open_source(items: str | None, how: Reading | None = None, output: Path | None = None) -> Source:
    """The source that a user names: a folder, a table, tars, Parquet files, a data set's splits, or texts.

    `output` is the folder that is written to, in which no pictures are looked for. Raises DataError if there is no
    such file, ConfigurationError if it is not clear what is meant.
    """
    how = how or Reading()
    if how.texts is not None:
        return _texts(items, how.texts, how)
    if items is None:
        raise ConfigurationError("name what to embed: a folder, a table or tars; or a file of texts with --texts.")
    place = expanded(items)
    refuse_pipe(place)
    if place.is_dir():
        return _folder(place, how, output)
    _refuse_splits(place, how)
    if not place.exists():
        if not any(sign in items for sign in "{" + PATTERN_SIGNS):
            raise DataError(f"{place} does not exist; expected a folder, a table, or tars.")
        return _packed(items, how)
    name = place.name.lower()
    if name.endswith(TAR_ENDINGS):
        return TarSource([place], how.text_column)
    if name.endswith(IMAGE_ENDINGS):
        raise ConfigurationError(f"{place} is one picture; name the folder that it is in, or a table that names it.")
    if table_kind(place) == "parquet":
        return _parquet(place, how)
    return TableSource(place, how.image_column, how.text_column, how.image_root, how.heading)


def _parquet(place: Path, how: Reading) -> Source:
    """The pictures in a Parquet file, or else those that it names.

    Bytes that are no pictures, such as embeddings, may stand beside names of pictures. If there are no such names
    either, they are taken for broken pictures.
    """
    typed = columns_of_bytes(place)
    if how.image_column in typed or (how.image_column is None and picture_columns(place)):
        return ParquetPictures([place], how.image_column, how.text_column, how.image_root)
    try:
        return TableSource(place, how.image_column, how.text_column, how.image_root, how.heading)
    except ConfigurationError:
        if how.image_column is not None or not typed:
            raise
        return ParquetPictures([place], how.image_column, how.text_column, how.image_root)


def _folder(place: Path, how: Reading, output: Path | None) -> Source:
    if is_dataset_folder(place):
        if not how.splits:
            raise ConfigurationError(
                f"{place} holds the results of a data set; say with --split which of its splits, for instance "
                f"--split test, or --split all. To embed picture files in it, name the folder {place}/images."
            )
        return SplitSource(DatasetFolder(place), how.splits)
    _refuse_splits(place, how)
    found = FolderSource(place, output)
    if found.has_pictures:
        return found
    for endings in (TAR_ENDINGS, PARQUET_ENDINGS):
        if matching_files(str(place), endings):
            return _packed(str(place), how)
    if found.total:  # folders that cannot be read, which the embedding reports
        return found
    raise DataError(
        f"{place} has no picture ({', '.join(IMAGE_ENDINGS[:6])}, ...), no tar and no Parquet file in it or in its "
        "folders; hidden ones are left out."
    )


def _packed(place: str, how: Reading) -> Source:
    """The tars, or else the Parquet files, that a folder or a pattern names."""
    if (tars := tar_files(place)) and all(path.name.lower().endswith(TAR_ENDINGS) for path in tars):
        return TarSource(tars, how.text_column)
    found = [Path(path) for path in matching_files(place, PARQUET_ENDINGS)]
    if not found or not all(path.name.lower().endswith(PARQUET_ENDINGS) for path in found):
        raise DataError(f"{place} names no tar and no Parquet file; correct the pattern, or name a folder or a table.")
    if len(found) == 1:
        return _parquet(found[0], how)
    if not columns_of_bytes(found[0]):
        raise ConfigurationError(
            f"{place} names {len(found)} tables without bytes of pictures ({found[0].name}, ...); embed one table."
        )
    return ParquetPictures(found, how.image_column, how.text_column, how.image_root)


def _texts(items: str | None, texts: str, how: Reading) -> Source:
    if items is not None:
        place = expanded(items)
        if place.is_dir() and is_dataset_folder(place) and texts in CAPTIONS:
            splits = how.splits or ["all"]
            SplitSource(DatasetFolder(place), splits)  # SplitSource refuses unknown splits
            captions = captions_of_splits(DatasetFolder(place), splits)
            return texts_of_list(f"{place.absolute()}, captions of {', '.join(splits)}", captions)
        refuse_pipe(place)
        if not place.is_file():
            what = "is a folder" if place.is_dir() else "does not exist"
            raise DataError(f"{place} {what}; with --texts {texts}, expected a table with the column `{texts}`.")
        _refuse_tar(place, f"with --texts {texts}, expected a table with the column `{texts}`")
        return texts_of_column(place, texts, how.heading)
    path = expanded(texts)
    refuse_pipe(path)
    if not path.is_file():
        raise DataError(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; --texts names a file with a text per "
            "line, or a table with --text-column."
        )
    _refuse_tar(path, "--texts names a file with a text per line, or a table with --text-column")
    if path.name.lower().endswith(TABLE_ENDINGS):
        if how.text_column is None:
            raise ConfigurationError(f"{path} is a table; name its column of texts with --text-column.")
        return texts_of_column(path, how.text_column, how.heading)
    return texts_of_lines(path)


def _refuse_tar(path: Path, expected: str) -> None:
    if path.name.lower().endswith(TAR_ENDINGS):
        raise ConfigurationError(
            f"{path} is a tar, of which pictures are embedded, not texts; {expected} (CSV, TSV, JSON, JSONL, Parquet). "
            "To embed its pictures with their captions beside them, leave --texts out."
        )


def _refuse_splits(place: Path, how: Reading) -> None:
    if how.splits:
        raise ConfigurationError(
            f"--split is for the results of a data set, results/{{dataset}}, which {place} is not; leave it out."
        )
