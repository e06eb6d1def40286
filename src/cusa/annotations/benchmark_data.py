"""Tables of the benchmarks' own data: labelled images and sentence pairs."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from cusa.annotations.labelled_images import labelled_images, require_two_classes
from cusa.annotations.sentence_pairs import ScoredPair, own_pairs, senteval_pairs
from cusa.annotations.tables import CAPTIONS, CAPTIONS_SCHEMA, IMAGES, SENTENCE_PAIRS, write_table


def convert_labelled_images(name: str, path: str | Path, folder: str | Path) -> None:
    """Write images.parquet (and an empty captions.parquet) of labelled images, all in the split `test`.

    `name` is a key of labelled_images.ARCHIVES or the user's own name. The column `role` is query or gallery if the
    data set has this division, and null if every image searches all the others. Raises DataError if the data
    are damaged or incomplete, or of one class.
    """
    images = labelled_images(name, path)
    require_two_classes(name, path, images)
    table = pa.table(
        {
            "image_id": pa.array([f"{number:08d}" for number in range(len(images))], pa.string()),
            "image_path": pa.array([image.path.as_posix() for image in images], pa.string()),
            "split": pa.array(["test"] * len(images), pa.string()),
            "label": pa.array([image.label for image in images], pa.string()),
            "role": pa.array([image.role for image in images], pa.string()),
        }
    )
    folder = Path(folder)
    write_table(folder / IMAGES, table)
    write_table(folder / CAPTIONS, CAPTIONS_SCHEMA.empty_table())


def convert_sentence_pairs(name: str, path: str | Path, folder: str | Path) -> None:
    """Write sentence_pairs.parquet, with the task and the subset of each pair.

    `name` is `senteval`, or the user's own name for a TSV file. Raises DataError if the data are damaged or
    incomplete.
    """
    pairs = senteval_pairs(path) if name == "senteval" else own_pairs(path, name)
    columns: dict[str, pa.Array] = {
        column: pa.array([getattr(pair, column) for pair in pairs]) for column in ScoredPair._fields
    }
    write_table(Path(folder) / SENTENCE_PAIRS, pa.table(columns))
