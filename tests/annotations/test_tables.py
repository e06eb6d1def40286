"""One split of the tables, wherever its rows are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cusa.annotations.tables import CAPTIONS, IMAGES, SplitTables, write_table
from cusa.errors import DataError
from cusa.layout import DatasetFolder


@pytest.fixture
def folder(tmp_path) -> DatasetFolder:
    """Splits that are mixed: nothing says that the rows of one stand together."""
    folder = DatasetFolder(tmp_path)
    folder.annotations.mkdir()
    images = {"image_id": ["a", "b", "c", "d"], "split": ["test", "train", "test", "test"]}
    captions = {"caption": list("vwxyz"), "image": [3, 1, 0, 0, 2], "split": ["test", "train", "test", "test", "test"]}
    write_table(folder.annotations / IMAGES, pa.table(images))
    write_table(folder.annotations / CAPTIONS, pa.table(captions))
    return folder


def test_positions_count_within_the_split(folder):
    tables = SplitTables.open(folder, "test", images=["image_id"], captions=["caption"])
    assert tables.image_rows.tolist() == [0, 2, 3]
    assert tables.caption_rows.tolist() == [0, 2, 3, 4]
    assert tables.images["image_id"].to_pylist() == ["a", "c", "d"]
    assert tables.captions["caption"].to_pylist() == ["v", "x", "y", "z"]
    assert tables.image_of_caption.tolist() == [2, 0, 0, 1]


def test_an_image_of_another_split_is_a_sentence(folder):
    tables = SplitTables.open(folder, "test")
    for row in (1, 7):
        with pytest.raises(DataError, match="images that are not of the split `test`"):
            tables.image_positions(np.array([row]))


def test_a_split_without_images_is_a_sentence(folder):
    with pytest.raises(DataError, match=r"images.parquet has no image of the split `val`"):
        SplitTables.open(folder, "val")
