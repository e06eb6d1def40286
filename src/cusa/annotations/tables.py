"""Names, schemas and reading of the Parquet tables whose row numbers are the ids that everything later uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cusa.common.files import atomic_file, made_again, parquet_damage, read_json
from cusa.common.workflow_files import workflow_command
from cusa.config.captions import PUBLISHED, CaptionCleaning
from cusa.errors import DataError
from cusa.layout import DatasetFolder

IMAGES = "images.parquet"
CAPTIONS = "captions.parquet"
PROBLEMS = "problems.json"
EXTENDED_POSITIVES = "extended_positives.parquet"
SENTENCE_PAIRS = "sentence_pairs.parquet"
CLASS_PROMPTS = "class_prompts.parquet"
JUDGED_PAIRS = "judged_pairs.parquet"


def split_rows(table: pa.Table, split: str) -> np.ndarray:
    """Row numbers (int64) of one split in images.parquet or captions.parquet."""
    return np.flatnonzero(pc.equal(table["split"], split).to_numpy())


def read_table(folder: str | Path, name: str, columns: list[str] | None = None) -> pa.Table:
    """Read one of the Parquet tables. Raises DataError when it is not there or is damaged."""
    path = _existing(folder, name)
    with parquet_damage(path, made_again(path)):
        return pq.read_table(path, columns=columns)


def read_schema(folder: str | Path, name: str) -> pa.Schema:
    """Read the schema of one of the Parquet tables. Raises DataError when it is not there or is damaged."""
    path = _existing(folder, name)
    with parquet_damage(path, made_again(path)):
        return pq.read_schema(path)


def _existing(folder: str | Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `{workflow_command('annotations')}` first.")
    return path


def skipped_rows(folder: str | Path) -> dict[str, int]:
    """How many rows were left out of the tables, by problem. Raises DataError when problems.json is damaged."""
    path = _existing(folder, PROBLEMS)
    skipped: dict[str, int] = read_json(path, made_again(path))["skipped"]
    return skipped


CAPTIONS_SCHEMA = pa.schema(
    [
        ("caption", pa.string()),
        ("cleaned", pa.string()),
        ("image", pa.int64()),
        ("split", pa.string()),
        ("caption_id", pa.int64()),
    ]
)
CLEANING = b"captions"  # the metadata of captions.parquet that says how captions were cleaned


def captions_schema(cleaning: CaptionCleaning, languages: bool = False) -> pa.Schema:
    """The schema of captions.parquet, with the column `language` if the data have `languages`.

    If captions are not cleaned as published, its metadata say how.
    """
    schema = CAPTIONS_SCHEMA.append(pa.field("language", pa.string())) if languages else CAPTIONS_SCHEMA
    return schema if cleaning == PUBLISHED else schema.with_metadata({CLEANING: cleaning.as_json().encode()})


def cleaning_of(folder: str | Path) -> CaptionCleaning:
    """How the captions of a folder of annotations were cleaned. Raises DataError when captions.parquet is missing."""
    metadata = read_schema(folder, CAPTIONS).metadata or {}
    return CaptionCleaning.model_validate_json(metadata[CLEANING]) if CLEANING in metadata else PUBLISHED


@dataclass(frozen=True)
class SplitTables:
    """The images and captions of one split, in row order; positions count from 0 within the split.

    `images` and `captions` have the columns that `open` was given, one row a position. `image_rows` and `caption_rows`
    (int64) are their row numbers in images.parquet and captions.parquet.
    """

    split: str
    image_rows: np.ndarray
    caption_rows: np.ndarray
    images: pa.Table
    captions: pa.Table

    @classmethod
    def open(
        cls, folder: DatasetFolder, split: str, images: Sequence[str] = (), captions: Sequence[str] = ()
    ) -> SplitTables:
        """Read a split. Raises DataError when the tables are not there, or have no image of the split."""
        image_table = read_table(folder.annotations, IMAGES, ["split", *images])
        caption_table = read_table(folder.annotations, CAPTIONS, ["split", "image", *captions])
        image_rows, caption_rows = split_rows(image_table, split), split_rows(caption_table, split)
        if not len(image_rows):
            raise DataError(f"{folder.annotations}/{IMAGES} has no image of the split `{split}`.")
        return cls(
            split,
            image_rows,
            caption_rows,
            image_table.filter(pc.equal(image_table["split"], split)),
            caption_table.filter(pc.equal(caption_table["split"], split)),
        )

    @cached_property
    def image_of_caption(self) -> np.ndarray:
        """The position of each caption's image, int64 [captions]."""
        return self.image_positions(self.captions["image"].to_numpy())

    def image_positions(self, image_rows: np.ndarray) -> np.ndarray:
        """Positions of images by their row numbers, int64. Raises DataError for a row of another split."""
        positions = np.searchsorted(self.image_rows, image_rows)
        inside = positions < len(self.image_rows)
        if not (inside.all() and np.array_equal(self.image_rows[positions], image_rows)):
            raise DataError(
                f"the tables name images that are not of the split `{self.split}`; run "
                f"`{workflow_command('annotations')}` again."
            )
        return positions


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet; the file is renamed into place when it is complete."""
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary)


TEXT_TABLES = {
    "extended_positives": EXTENDED_POSITIVES,
    "sentence_pairs": SENTENCE_PAIRS,
    "class_prompts": CLASS_PROMPTS,
    "judged_pairs": JUDGED_PAIRS,
}


def distinct_texts(folder: DatasetFolder, data: str) -> list[str]:
    """The texts of one of TEXT_TABLES, each once, sorted: those of sentence_pairs as they are, the others cleaned."""
    table = read_table(folder.annotations, TEXT_TABLES[data])
    columns = ["first", "second"] if data == "sentence_pairs" else ["cleaned"]
    return sorted({text for column in columns for text in table[column].to_pylist()})
