"""Joining the parts of a split's shards that several jobs have written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cusa.common.files import atomic_folder, link_or_copy, made_again, read_mapping, read_parquet, write_json
from cusa.errors import DataError
from cusa.shards.image_files import IMAGE_FILES, write_image_files
from cusa.shards.reading import INDEX, STATISTICS
from cusa.shards.writing import INDEX_SCHEMA


def join_shards(parts: Sequence[str | Path], folder: str | Path) -> None:
    """Make the folder of a split from its parts, given in order; the result equals that of `write_split` without parts.

    Tar files are linked, not copied, if the file system can. Raises DataError if a part is damaged, or was
    written with other settings than the first one.
    """
    written = [read_mapping(Path(part) / STATISTICS, made_again(part)) for part in parts]
    for part, statistics in zip(parts, written, strict=True):
        if statistics["settings"] != written[0]["settings"]:
            raise DataError(f"{part} was written with other settings than {parts[0]}; {made_again(part)}")
    with atomic_folder(folder) as temporary:
        for part, statistics in zip(parts, written, strict=True):
            for name in statistics["shards"]:
                link_or_copy(Path(part) / name, temporary / name)
        tables = [read_parquet(Path(part) / INDEX, made_again(part)) for part in parts]
        pq.write_table(pa.concat_tables(tables).cast(INDEX_SCHEMA), temporary / INDEX)
        sources = [read_parquet(Path(part) / IMAGE_FILES, made_again(part)) for part in parts]
        write_image_files(pa.concat_tables(sources), temporary)
        shards = {name: shard for statistics in written for name, shard in statistics["shards"].items()}
        samples = sum(statistics["samples"] for statistics in written)
        write_json(temporary / STATISTICS, written[0] | {"samples": samples, "shards": shards})
