"""A gallery is read as it was written: rows, items, pictures; what is not there or does not fit is a sentence."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cusa.errors import DataError
from cusa.gallery.items import cast_items, items_table, joined_schema
from cusa.gallery.store import Gallery, write_gallery


def unit(rows, dimension=8, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"0123456789")
    items = items_table(
        ["a", "b", "c"],
        paths=[str(tmp_path / "a.bin"), str(tmp_path / "a.bin"), None],
        offsets=[None, 2, None],
        sizes=[None, 3, None],
        captions=[["one", "two"], [], ["three"]],
        columns={"label": ["x", "y", None], "path": ["own", "own", "own"]},
    )
    write_gallery(tmp_path / "out", unit(3), items, tmp_path / "run", "ab" * 32, source={"kind": "test"})
    return tmp_path / "out"


def test_a_gallery_is_read_as_it_was_written(folder):
    gallery = Gallery.open(folder)
    assert (gallery.rows, gallery.dimension, gallery.meta.modality, gallery.meta.head) == (3, 8, "image", "cross")
    assert np.array_equal(gallery.vectors[:], unit(3))
    assert np.array_equal(gallery.embeddings(1, 3), unit(3)[1:3])
    assert gallery.items["captions"].to_pylist() == [["one", "two"], [], ["three"]]
    assert gallery.items["label"].to_pylist() == ["x", "y", None]
    assert gallery.items["path_of_table"].to_pylist() == ["own"] * 3
    assert gallery.picture_bytes(0) == b"0123456789"
    assert gallery.picture_bytes(1) == b"234"
    assert len(gallery.unreadable) == 0


def test_meta_json_has_the_keys_of_the_contract_and_keeps_others(folder):
    content = json.loads((folder / "meta.json").read_text())
    assert set(content) == {
        *("schema", "model", "model_sha256", "modality", "head", "dimension", "dtype", "rows", "parts"),
        *("unreadable", "source", "versions", "files_sha256"),
    }
    assert content["parts"] == [{"embeddings": "embeddings.npy", "items": "items.parquet", "rows": 3}]
    (folder / "meta.json").write_text(json.dumps({**content, "index": {"kind": "flat"}, "later": 1}))
    meta = Gallery.open(folder).meta
    assert meta.index == {"kind": "flat"}
    assert meta.content()["later"] == 1


def test_vectors_of_several_parts_are_one_array(folder):
    vectors = unit(10, seed=1)
    content = json.loads((folder / "meta.json").read_text())
    parts = []
    for number, (first, end) in enumerate([(0, 4), (4, 4), (4, 10)]):
        place = folder / "parts" / f"{number:06d}"
        place.mkdir(parents=True)
        np.save(place / "embeddings.npy", vectors[first:end])
        names = [f"item {row}" for row in range(first, end)]
        pq.write_table(items_table(names, columns={"n": list(range(first, end))}), place / "items.parquet")
        files = {name: f"parts/{number:06d}/{name}.{ending}" for name, ending in FILES.items()}
        parts.append({**files, "rows": end - first})
    (folder / "meta.json").write_text(json.dumps({**content, "rows": 10, "parts": parts}))
    gallery = Gallery.open(folder)
    assert np.array_equal(gallery.vectors[:], vectors)
    assert np.array_equal(gallery.vectors[3:7], vectors[3:7])
    assert np.array_equal(gallery.vectors[::3], vectors[::3])
    assert np.array_equal(gallery.vectors[np.array([9, 0, 4])], vectors[[9, 0, 4]])
    assert np.array_equal(gallery.vectors[np.arange(10) % 2 == 0], vectors[::2])
    assert np.array_equal(gallery.vectors[9], vectors[9])
    assert np.array_equal(np.concatenate(list(gallery.vectors.blocks(3))), vectors)
    assert gallery.items["n"].to_pylist() == list(range(10))
    for row in (10, -1):
        with pytest.raises(IndexError):
            gallery.vectors[row]


FILES = {"embeddings": "npy", "items": "parquet"}


def test_rows_that_are_none_have_no_picture(folder):
    gallery = Gallery.open(folder)
    for row in (-1, 3):
        with pytest.raises(IndexError):
            gallery.picture_bytes(row)
    with pytest.raises(DataError, match="has no picture"):
        gallery.picture_bytes(2)


def test_pictures_that_are_gone_or_shorter_are_a_sentence(folder):
    gallery = Gallery.open(folder)
    (folder.parent / "a.bin").write_bytes(b"012")
    with pytest.raises(DataError, match="is shorter than it was"):
        gallery.picture_bytes(1)
    (folder.parent / "a.bin").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        gallery.picture_bytes(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 4}, "says 4 rows"),
        ({"dimension": 9}, r"holds float32 \[3, 8\], but .* says float32 \[3, 9\]"),
        ({"dtype": "float64"}, "does not describe a gallery"),
        ({"schema": 99}, "schema 99"),
        ({"model": None}, "does not describe a gallery"),
    ],
    ids=["rows", "dimension", "dtype", "schema", "model"],
)
def test_a_meta_json_that_does_not_fit_is_a_sentence(folder, change, message):
    content = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(content | change))
    with pytest.raises(DataError, match=message):
        Gallery.open(folder)


def test_what_is_no_gallery_or_is_unfinished_says_what_to_do(folder, tmp_path):
    with pytest.raises(DataError, match="cusa embed RUN ITEMS"):
        Gallery.open(tmp_path / "nothing")
    (folder / "meta.json").unlink()
    (folder / "parts").mkdir()
    with pytest.raises(DataError, match="not finished"):
        Gallery.open(folder)


def test_items_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match="occur twice"):
        write_gallery(tmp_path / "out", unit(2), items_table(["a", "a"]), "run", "00")
    with pytest.raises(DataError, match="2 items, but embeddings"):
        write_gallery(tmp_path / "out", unit(3), items_table(["a", "b"]), "run", "00")
    with pytest.raises(DataError, match="no column path"):
        write_gallery(tmp_path / "out", unit(1), pa.table({"item": ["a"]}), "run", "00")
    assert not (tmp_path / "out").exists()


WRONG = [
    ("item", [1, 2, 3], "int64 in the column `item`, expected string"),
    ("item", [b"a", b"b", b"c"], "binary in the column `item`, expected string"),
    ("path", [1, 2, 3], "int64 in the column `path`, expected string"),
    ("offset", ["a", "2", None], "string in the column `offset`, expected int64"),
    ("offset", [0.5, 2.0, None], "double in the column `offset`, expected int64"),
    ("size", [True, True, None], "bool in the column `size`, expected int64"),
    ("captions", ["a", "b", "c"], "string in the column `captions`, expected list<string>"),
    ("captions", [[1], [2], []], "list<int64> in the column `captions`, expected list<string>"),
]


@pytest.mark.parametrize(("name", "values", "says"), WRONG)
def test_columns_of_other_types_are_refused(folder, name, values, says):
    path = folder / "items.parquet"
    table = pq.read_table(path)
    changed = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(changed, path)
    with pytest.raises(DataError, match=re.escape(f"items.parquet has the type {says}; correct it, or delete ")):
        _ = Gallery.open(folder).items
    with pytest.raises(DataError, match=re.escape(f"the table of the items of {folder}2 has the type {says}.")):
        write_gallery(f"{folder}2", unit(3), changed, "run", "00")


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("item", ["a", None, None], "has 2 rows without a name in the column `item`"),
        ("captions", [["a", None], None, []], "has 1 nulls in the lists of the column `captions`"),
    ],
)
def test_nulls_in_names_and_captions_are_refused(folder, name, values, says):
    table = pq.read_table(folder / "items.parquet")
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values)), folder / "items.parquet")
    with pytest.raises(DataError, match=f"items.parquet {says}"):
        _ = Gallery.open(folder).items


def test_items_that_pandas_wrote_are_read(folder):
    """It knows no integers beside nulls, and has wider texts and categories."""
    table, before = pq.read_table(folder / "items.parquet"), Gallery.open(folder).items
    changed = {
        "item": table["item"].cast(pa.large_string()).dictionary_encode(),
        "path": table["path"].cast(pa.large_string()),
        "offset": table["offset"].cast(pa.float64()),
        "size": table["size"].cast(pa.int32()),
        "captions": table["captions"].cast(pa.large_list(pa.large_string())),
    }
    pq.write_table(
        pa.table({**{name: table[name] for name in table.column_names}, **changed}), folder / "items.parquet"
    )
    gallery = Gallery.open(folder)
    assert gallery.items.equals(before)
    assert gallery.picture_bytes(1) == b"234"


def test_columns_of_several_types_become_wider_numbers_or_text():
    tables = [
        items_table(["a"], columns={"n": [1], "m": [1], "k": [None]}),
        items_table(["b"], columns={"n": [0.5], "m": ["x"], "k": [7]}),
        items_table(["c"], columns={"n": [2]}),
    ]
    schema = joined_schema([table.schema for table in tables])
    joined = pa.concat_tables([cast_items(table, schema) for table in tables])
    assert joined["n"].to_pylist() == [1.0, 0.5, 2.0]
    assert joined["m"].to_pylist() == ["1", "x", None]
    assert joined["k"].to_pylist() == [None, 7, None]
