"""A gallery of splits of the data set. Their embeddings and pictures exist, so no model runs here, and no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from cusa import __version__
from cusa.annotations.tables import SplitTables
from cusa.common.workflow_files import workflow_command
from cusa.config.losses import HeadName
from cusa.errors import DataError
from cusa.gallery.items import FIELDS
from cusa.gallery.store import Gallery, write_gallery
from cusa.layout import DatasetFolder
from cusa.metrics.scores import unit_float32
from cusa.runs.record import RunFolder
from cusa.shards.reading import ShardReader


def gallery_of_splits(run: str | Path, splits: Sequence[str], output: str | Path, head: HeadName = "cross") -> Gallery:
    """Write the images of some splits as a gallery, with the embeddings that the workflow has stored in a run.

    The pictures are those in the shards; if these are not on this disk, the files of the data set. Paths in the
    folder of the data set are relative to `output`, so that results can be moved. Beside the columns of every gallery,
    the items have `image_id`, `split` and, if the data have labels, `label`. Raises DataError when the embeddings,
    the tables or the index of the shards are missing or do not fit.
    """
    run, output = Path(run).absolute(), Path(output).absolute()
    folder, record = DatasetFolder.of_run(run), RunFolder(run)
    tables, embeddings = [], []
    for split in splits:
        images = SplitTables.open(folder, split, ["image_id", "image_path", "label"], ["caption"])
        stored = record.embeddings(split, f"image_{head}", len(images.image_rows))
        embeddings.append(unit_float32(np.asarray(stored, dtype=np.float32)))
        tables.append(_items(folder, images, output))
    items = pa.concat_tables(tables)
    items = items.set_column(0, "item", _names(items["item"], items["image_id"]))
    if items["label"].null_count == len(items):
        items = items.drop_columns("label")
    return write_gallery(
        output,
        np.concatenate(embeddings),
        items,
        run,
        record.record.weights_sha256,
        head=head,
        source={"dataset": record.record.configuration.dataset, "splits": list(splits)},
        versions={"cusa": __version__, "numpy": np.__version__},
    )


def _items(folder: DatasetFolder, tables: SplitTables, output: Path) -> pa.Table:
    """The items of one split, each with the path of its image file as its name."""
    rows = len(tables.image_rows)
    reader = ShardReader(folder.shards(tables.split))
    if not np.array_equal(reader.rows, tables.image_rows):
        raise DataError(
            f"{reader.folder} has other images than the split {tables.split} of {folder.annotations}; run "
            f"`{workflow_command('shards')}` again."
        )
    shards = [reader.folder / f"shard-{number:06d}.tar" for number in range(int(reader.shard.max()) + 1)]
    at_hand = np.array([shard.is_file() for shard in shards])[reader.shard]
    real = os.path.realpath(output)  # a link on the way would lead `..` elsewhere
    names = pa.array([os.path.relpath(os.path.realpath(shard), real) for shard in shards])
    in_shards = pa.DictionaryArray.from_arrays(pa.array(reader.shard, pa.int32()), names).cast(pa.string())
    paths = tables.images["image_path"].combine_chunks()
    columns = {
        "item": paths,
        "path": pa.array(np.where(at_hand, in_shards.to_numpy(zero_copy_only=False), _absolute(paths))),
        "offset": pa.array(reader.offset, pa.int64(), mask=~at_hand),
        "size": pa.array(reader.size, pa.int64(), mask=~at_hand),
        "captions": _captions(tables, rows),
        "image_id": tables.images["image_id"].combine_chunks(),
        "split": pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), [tables.split]).cast(pa.string()),
        "label": tables.images["label"].combine_chunks(),
    }
    return pa.table(columns).cast(pa.schema([*FIELDS.items(), *((name, pa.string()) for name in list(columns)[5:])]))


def _absolute(paths: pa.Array) -> np.ndarray:
    here = Path.cwd()
    return np.array([str(here / path) for path in paths.to_pylist()], dtype=object)


def _captions(tables: SplitTables, rows: int) -> pa.Array:
    """The captions of each image as lists, in the order of the table of captions."""
    order = np.argsort(tables.image_of_caption, kind="stable")
    starts = np.searchsorted(tables.image_of_caption[order], np.arange(rows + 1))
    captions = tables.captions["caption"].combine_chunks().take(pa.array(order))
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), captions)


def _names(paths: pa.ChunkedArray, image_ids: pa.ChunkedArray) -> pa.Array:
    """The paths from the folder that all images are in; the ids of the images if two images have the same path."""
    names = paths.to_pylist()
    if len(set(names)) < len(names):
        return pa.array(image_ids.to_pylist(), pa.string())
    common = os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120 (names need not be paths here)
    start = len(common) + 1 if common and common != "/" else len(common)
    return pa.array([name[start:] for name in names], pa.string())
