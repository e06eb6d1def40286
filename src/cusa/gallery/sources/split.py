"""The pictures of a data set's splits, out of its shards, with the captions of its tables; or the captions as texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from cusa.annotations.tables import CAPTIONS, IMAGES, SplitTables, read_schema, read_table
from cusa.common.files import sha256_of_file
from cusa.common.workflow_files import workflow_command
from cusa.errors import ConfigurationError, DataError
from cusa.gallery.sources.source import Entry, Wanted
from cusa.gallery.store import GalleryModality
from cusa.layout import DatasetFolder
from cusa.shards.reading import INDEX, ShardReader

ALL = "all"
LABEL = "label"


class SplitSource:
    """The pictures of one split or several; `all` stands for every split of the data set."""

    modality: ClassVar[GalleryModality] = "image"
    copied_bytes = 0

    def __init__(self, folder: DatasetFolder, splits: Sequence[str]) -> None:
        """Raises ConfigurationError for a split that the data set does not have."""
        self.folder = folder
        found = read_table(folder.annotations, IMAGES, ["split"])["split"].unique().to_pylist()
        self.splits = list(found) if list(splits) == [ALL] else list(dict.fromkeys(splits))
        if unknown := [split for split in self.splits if split not in found]:
            raise ConfigurationError(
                f"{folder.root} has the splits {', '.join(found)}, but not {', '.join(unknown)}; name one of them, or "
                f"`{ALL}` for every one."
            )
        has_labels = LABEL in read_schema(folder.annotations, IMAGES).names
        labels = read_table(folder.annotations, IMAGES, [LABEL])[LABEL] if has_labels else None
        self.labels = [LABEL] if labels is not None and labels.null_count < len(labels) else []

    @cached_property
    def total(self) -> int:
        """The number of pictures."""
        return sum(len(tables.image_rows) for tables in map(self._tables, self.splits))

    def describe(self) -> dict[str, Any]:
        """The data set, its splits, and the digests of its tables and of the shards' indexes."""
        files = [self.folder.table("images"), self.folder.table("captions")]
        files += [self.folder.shards(split) / INDEX for split in self.splits]
        for path in files:
            if not path.is_file():
                raise DataError(f"{path} does not exist; run `{workflow_command('shards')}` first.")
        digests = {str(path.relative_to(self.folder.root)): sha256_of_file(path) for path in files}
        place = str(self.folder.root.absolute())
        return {"kind": "split", "place": place, "splits": self.splits, "items": self.total, "digests": digests}

    def entries(self, wanted: Wanted) -> Iterator[Entry | None]:
        """Every picture, called by its image id, or by its split and its id if two splits have the same id."""
        first, twice = 0, self._ids_are_twice
        for split in self.splits:
            tables, reader = self._tables(split), ShardReader(self.folder.shards(split))
            if reader.rows.tolist() != tables.image_rows.tolist():
                raise DataError(
                    f"{reader.folder} holds {len(reader)} images, but the annotations list {len(tables.image_rows)} "
                    f"other ones; delete the folder and run `{workflow_command('shards')}` again."
                )
            captions: list[list[str]] = [[] for _ in range(len(reader))]
            for position, caption in zip(tables.image_of_caption, tables.captions["caption"].to_pylist(), strict=True):
                captions[position].append(caption)
            rows = tables.images.select(["image_id", *self.labels]).to_pylist()
            for position, row in enumerate(rows):
                if not wanted(first + position):
                    yield None
                    continue
                yield Entry(
                    f"{split}/{row['image_id']}" if twice else row["image_id"],
                    str(reader.folder.absolute() / f"shard-{reader.shard[position]:06d}.tar"),
                    int(reader.offset[position]),
                    int(reader.size[position]),
                    captions[position],
                    {"image_id": row["image_id"], "split": split, **{name: row[name] for name in self.labels}},
                    in_shard=True,
                    plain=reader.plain(position),
                )
            first += len(rows)

    def _tables(self, split: str) -> SplitTables:
        return SplitTables.open(self.folder, split, images=["image_id", *self.labels], captions=["caption"])

    @property
    def _ids_are_twice(self) -> bool:
        ids = pa.chunked_array(
            [chunk for each in self.splits for chunk in self._tables(each).images["image_id"].chunks]
        )
        return len(self.splits) > 1 and len(ids.unique()) < len(ids)


def captions_of_splits(folder: DatasetFolder, splits: Sequence[str]) -> list[str]:
    """The captions of some splits as they were written, each once, in the order of the table."""
    table = read_table(folder.annotations, CAPTIONS, ["caption", "split"])
    rows = zip(table["caption"].to_pylist(), table["split"].to_pylist(), strict=True)
    return list(dict.fromkeys(caption for caption, split in rows if split in splits or list(splits) == [ALL]))


def is_dataset_folder(folder: Path) -> bool:
    """Whether a folder is results/{dataset}, with the tables of a data set."""
    return DatasetFolder(folder).table("images").is_file()
