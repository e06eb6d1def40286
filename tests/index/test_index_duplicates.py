"""Rows that are the same or nearly are marked, and others are not."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pyarrow as pa
import pytest
from gallery_files import clustered, save_gallery, save_picture, unit
from PIL import Image

from cusa.index.build import build_index
from cusa.index.changes import add_gallery, remove_items
from cusa.index.duplicates import renumbered
from cusa.index.folder import SearchIndex
from cusa.index.options import IndexOptions

pytestmark = pytest.mark.usefixtures("one_thread")


def lines(index: SearchIndex) -> list[tuple[int, int, str]]:
    columns = (index.duplicates[name].to_pylist() for name in ("row", "group", "kind"))
    return list(zip(*columns, strict=True))


@pytest.fixture
def out(tmp_path):
    """Twelve pictures; 12 is a copy of the file of 3, 13 a JPEG of 5, 14 a small 5, 15 has the embedding of 7 only."""
    pictures = [save_picture(tmp_path / f"{number}.png", number, side=96) for number in range(12)]
    shutil.copy(pictures[3], tmp_path / "12.png")
    with Image.open(pictures[5]) as picture:
        picture.save(tmp_path / "13.jpg", quality=60)
        picture.resize((64, 64)).save(tmp_path / "14.png")
    save_picture(tmp_path / "15.png", 99)
    pictures += [tmp_path / name for name in ("12.png", "13.jpg", "14.png", "15.png")]
    rows = clustered(12, 16, clusters=12)
    rng = np.random.default_rng(0)
    near = unit(rows[[3, 5, 5]] + 0.02 * rng.standard_normal((3, 16)))
    near[0] = unit(rows[[3]] + 1e-6)[0]
    # The picture of row 1 has an embedding close to that of row 0, as different pictures of one thing have.
    rows[1] = unit(rows[[0]] + 0.02 * rng.standard_normal((1, 16)))[0]
    return save_gallery(tmp_path / "out", np.concatenate([rows, near, rows[[7]]]), pictures=pictures)


def test_copies_are_marked_and_pictures_that_only_lie_close_are_not(out):
    build_index(out)
    index = SearchIndex.open(out)
    same = [(3, 3, "same"), (7, 7, "same"), (12, 3, "same"), (15, 7, "same")]
    near = [(5, 5, "near"), (13, 5, "near"), (14, 5, "near")]
    assert lines(index) == sorted(same + near)
    assert index.groups[[0, 1, 12, 13, 14, 15]].tolist() == [0, 1, 3, 5, 5, 7]
    build_index(out, options=IndexOptions(duplicates="same"))
    assert lines(SearchIndex.open(out)) == sorted(same)
    build_index(out, options=IndexOptions(duplicates="none"))
    assert lines(SearchIndex.open(out)) == []


def test_after_a_removal_the_others_stay_marked(out):
    build_index(out)
    remove_items(out, ["0000.png", "0003.png", "0005.png"])
    # Rows 7, 13, 14 and 15 are rows 4, 10, 11 and 12 now; of the copies 3 and 12 one is left.
    expected = [(4, 4, "same"), (10, 10, "near"), (11, 10, "near"), (12, 4, "same")]
    assert lines(SearchIndex.open(out)) == expected


def test_added_rows_are_compared_with_the_old_ones(out, tmp_path):
    build_index(out)
    index = SearchIndex.open(out)
    content = Image.open(io.BytesIO(index.picture_bytes(9)))
    content.resize((80, 80)).save(tmp_path / "copy.png")
    more = save_gallery(
        tmp_path / "more",
        index.vectors(np.array([9])) @ np.eye(16, dtype=np.float32),
        ["copy.png"],
        pictures=[tmp_path / "copy.png"],
    )
    add_gallery(out, more)
    found = lines(SearchIndex.open(out))
    assert (16, 9, "same") in found
    assert [line for line in lines(index) if line not in found] == []


def test_pictures_that_are_gone_are_told(out, tmp_path, caplog):
    (tmp_path / "13.jpg").unlink()
    build_index(out)
    assert "1 pictures that may be copies of others cannot be read any more" in caplog.text
    assert (14, 5, "near") in lines(SearchIndex.open(out))


def test_texts_with_equal_embeddings_are_the_same(tmp_path):
    rows = clustered(6, 8)
    rows[4] = rows[1]
    build_index(save_gallery(tmp_path / "out", rows, list("abcdef"), modality="text"))
    assert lines(SearchIndex.open(tmp_path / "out")) == [(1, 1, "same"), (4, 1, "same")]


def test_the_first_row_of_a_group_says_what_the_others_are():
    table = pa.table({"row": [0, 2, 4, 6], "group": [0, 0, 0, 0], "kind": ["same", "near", "same", "near"]})
    without_first = renumbered(table, np.array([-1, 0, 1, 2, 3, 4, 5]))
    assert without_first.to_pylist() == [
        {"row": 1, "group": 1, "kind": "near"},
        {"row": 3, "group": 1, "kind": "near"},
        {"row": 5, "group": 1, "kind": "near"},
    ]
    assert renumbered(table, np.array([0, 1, -1, 2, 3, 4, -1]))["kind"].to_pylist() == ["same", "same"]
    assert renumbered(table, np.array([0, 1, -1, 2, -1, 4, -1])).num_rows == 0
