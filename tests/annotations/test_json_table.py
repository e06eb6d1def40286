"""Tables in JSON that are one object; lists and lines are in sources/test_table.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from cusa.annotations.json_table import json_table
from cusa.annotations.sources.source import MalformedRow
from cusa.config.dataset_tables import Columns
from cusa.errors import DataError

ROWS = [{"image": "0.jpg", "caption": "a dog"}, {"image": "1.jpg", "caption": "a cat"}]


def placed(folder: Path, content: object, **columns: object) -> list[tuple[str, object]]:
    """The places and the rows of a JSON file with this content, or with this text."""
    path = folder / "my rows.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    read = json_table(path, Columns.model_validate(columns), None)
    return [(place.removeprefix(f"{path}, "), row) for place, row in read]


def rows_of(folder: Path, content: object, **columns: object) -> list[object]:
    return [row for _, row in placed(folder, content, **columns)]


@pytest.mark.parametrize(
    "around",
    [
        {},
        {"version": "1.0", "n": 2, "about": {"by": ["me"]}},
        {"1.0": "v"},
        {"licenses": [{"id": 1, "name": "CC"}], "names": ["a", "b"], "none": []},
    ],
)
@pytest.mark.parametrize("key", ["data", "annotations", "my data"])
def test_the_only_list_of_rows_in_an_object_is_the_table(tmp_path, around, key):
    expected = [(f"row {number} of `{key}`", row) for number, row in enumerate(ROWS)]
    assert placed(tmp_path, around | {key: ROWS}) == expected
    assert placed(tmp_path, {key: ROWS} | around) == expected


def test_rows_of_a_list_name_their_image_in_any_column(tmp_path):
    rows = [{"photo": "0.jpg", "text": "a dog"}]
    assert rows_of(tmp_path, {"data": rows}) == rows
    numbered = [{"pic": 17, "text": "a dog"}]
    assert rows_of(tmp_path, {"data": numbered}, image="pic", caption="text") == numbered


def test_lists_of_the_splits_have_a_column_of_them(tmp_path):
    content = {"train": ROWS, "validation": [ROWS[0]], "Test": [{**ROWS[1], "split": "own"}]}
    assert [row["split"] for row in rows_of(tmp_path, content)] == ["train", "train", "validation", "own"]


def test_a_row_that_is_no_object_is_malformed_at_its_place(tmp_path):
    (_, (place, row), (_, last)) = placed(tmp_path, {"data": [ROWS[0], None, ROWS[1]]})
    assert isinstance(row, MalformedRow)
    assert (place, row.reason) == ("row 1 of `data`", "is a NoneType, expected an object with the columns")
    assert last == ROWS[1]


def test_a_list_of_a_split_may_be_empty_wherever_it_stands(tmp_path):
    assert [row["split"] for row in rows_of(tmp_path, {"train": [], "val": ROWS})] == ["val", "val"]
    assert [row["split"] for row in rows_of(tmp_path, {"train": ROWS, "val": []})] == ["train", "train"]
    assert rows_of(tmp_path, {"0.jpg": [], "1.jpg": ["a cat"]}) == [
        {"image": "0.jpg", "caption": []},
        {"image": "1.jpg", "caption": ["a cat"]},
    ]
    assert rows_of(tmp_path, {"train": [], "val": [], "test": []}) == []


def test_rows_as_the_viewer_of_hugging_face_gives_them_are_unwrapped(tmp_path):
    viewed = [{"row_idx": number, "row": row, "truncated_cells": []} for number, row in enumerate(ROWS)]
    features = [{"feature_idx": number, "name": name, "type": {}} for number, name in enumerate(ROWS[0])]
    assert rows_of(tmp_path, {"features": features, "rows": viewed, "num_rows_total": 2, "partial": False}) == ROWS
    assert rows_of(tmp_path, {"rows": [{"row_idx": 0, "row": ROWS[0]}]}) == ROWS[:1]
    assert rows_of(tmp_path, viewed) == ROWS
    own = [{"row": {"a": 1}, "image": "0.jpg", "caption": "a column that is called row"}]
    assert rows_of(tmp_path, own) == own


def test_a_page_of_the_viewer_is_told_to_be_a_part_once(tmp_path, caplog):
    viewed = [{"row_idx": number, "row": row} for number, row in enumerate(ROWS)]
    for _ in range(2):
        assert rows_of(tmp_path, {"rows": viewed, "num_rows_total": 4000}) == ROWS
    assert [message for message in caplog.messages if "has 2 of 4,000 rows" in message] == caplog.messages
    assert len(caplog.messages) == 1


def test_a_row_that_the_viewer_has_cut_off_is_malformed(tmp_path):
    viewed = [{"row_idx": 0, "row": ROWS[0], "truncated_cells": ["caption"]}, {"row_idx": 1, "row": ROWS[1]}]
    (odd, row) = rows_of(tmp_path, {"rows": viewed})
    assert isinstance(odd, MalformedRow)
    assert odd.reason == "has cells that the viewer has cut off (caption)"
    assert row == ROWS[1]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (["0.jpg", "a dog"], r"is a list of cells without .* to_json\(orient='records'\)"),
        (ROWS, "is a list of objects, but rows stand in one list"),
    ],
)
def test_a_row_that_is_a_list_says_how_to_write_rows(tmp_path, row, says):
    (odd, _) = rows_of(tmp_path, [row, ROWS[0]])
    assert isinstance(odd, MalformedRow)
    assert re.search(says, odd.reason)


def test_several_lists_of_rows_are_told(tmp_path):
    says = r"several lists of rows, `train` and `more`, whose keys .* `jq .train 'my rows.json' > rows.json` takes"
    with pytest.raises(DataError, match=says):
        rows_of(tmp_path, {"train": ROWS, "more": ROWS})


@pytest.mark.parametrize("orient", ["columns", "list"])
def test_an_object_of_columns_is_the_table(tmp_path, orient):
    """As pandas writes it with `to_json()`, or a dictionary of lists."""
    table = pd.DataFrame(ROWS).rename(columns={"image": "filename"})
    content = table.to_json() if orient == "columns" else json.dumps(table.to_dict(orient="list"))
    expected = [{"filename": row["image"], "caption": row["caption"]} for row in ROWS]
    assert placed(tmp_path, content) == [(f"row {number}", row) for number, row in enumerate(expected)]
    assert rows_of(tmp_path, {"image": ["0.jpg"], "captions": [["a dog", "a hound"]]}) == [
        {"image": "0.jpg", "captions": ["a dog", "a hound"]}
    ]


def test_names_of_columns_beside_rows_of_cells(tmp_path):
    """As pandas writes it with `to_json(orient="split")`."""
    content = json.loads(pd.DataFrame(ROWS).to_json(orient="split"))
    assert placed(tmp_path, content) == [(f"row {number} of `data`", row) for number, row in enumerate(ROWS)]
    (_, row) = rows_of(tmp_path, {"columns": ["image", "caption"], "data": [["0.jpg", "a dog"], ["1.jpg"]]})
    assert isinstance(row, MalformedRow)
    assert row.reason == "is no list of 2 cells, one for each column"


@pytest.mark.parametrize("orient", ["records", "table", "index"])
def test_other_shapes_that_pandas_writes(tmp_path, orient):
    table = pd.DataFrame(ROWS)
    kept = [{key: row[key] for key in ("image", "caption")} for row in rows_of(tmp_path, table.to_json(orient=orient))]
    assert kept == ROWS


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"image": ["0.jpg", "1.jpg"], "caption": ["a dog"]}, r"differ in length \(image 2, caption 1\)"),
        ({"image": ["0.jpg"], "caption": "a dog"}, "`caption` is no list"),
        ({"image": {"0": "0.jpg"}, "caption": {"1": "a dog"}}, "rows differ: `caption` and the first one"),
    ],
)
def test_columns_that_are_no_table_are_told(tmp_path, content, says):
    with pytest.raises(DataError, match=rf"{says}.*pandas writes rows with to_json\(orient='records'\)"):
        rows_of(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"annotations": [{"image_id": 3, "caption": "a dog"}]}, r"`jq .annotations 'my rows.json' > rows.json` takes"),
        ({"info": {}, "images": [{"file_name": "0.jpg"}], "annotations": []}, "the formats `coco` and `karpathy`"),
        ({"data": [{"n": 1}]}, r"starts with the key `data`.*`jq .data 'my rows.json' > rows.json` takes the list"),
        ({"my data": [{"n": 1}]}, r"""`jq '.\["my data"\]' 'my rows.json' > rows.json`"""),
        ({"columns_of": [{"a": 1}], "data": [{"n": 1}, {"n": 2}]}, "`jq .data"),
        ({"version": 1}, "starts with the key `version`"),
        ({"columns": ["image", "caption"]}, "starts with the key `columns`"),
        ({"columns": ["image", "caption"], "rows": 3}, "starts with the key `columns`"),
        ("", "is empty; expected a list"),
        (
            '{\n"image": "0.jpg"\n}\n{\n"image": "1.jpg"\n}',
            r"`jq -c . 'my rows.json' > rows.jsonl` writes each into a l",
        ),
    ],
)
def test_an_object_that_is_no_table_is_told(tmp_path, content, says):
    with pytest.raises(DataError, match=says):
        rows_of(tmp_path, content)


@pytest.mark.parametrize("content", ['{"data": [{"image": "0.jpg"}', '{"data": [{"image": "0.jpg"}]} {}'])
def test_a_damaged_object_is_told_after_its_rows(tmp_path, content):
    with pytest.raises(DataError, match="is not valid JSON"):
        rows_of(tmp_path, content)


def test_an_empty_object_has_no_rows(tmp_path):
    assert rows_of(tmp_path, {}) == []
