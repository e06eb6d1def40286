"""The columns of a table are found by their values, and what cannot be one of them is said."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from cusa.annotations.table_columns import find_columns
from cusa.errors import ConfigurationError

COUNT = 6


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Files as ids of several kinds name them; no test opens one."""
    for number in range(COUNT):
        for name in (f"{number}.jpg", f"{number:012d}.jpg", f"mask_{number}.png"):
            (tmp_path / name).touch()
    return tmp_path


def table(**columns: Any) -> list[dict[str, Any]]:
    """Rows of columns, each a function of the number of the row, with captions."""
    every = {**columns, "caption": lambda number: f"a picture of {number} things"}
    return [{name: value(number) for name, value in every.items()} for number in range(COUNT)]


def test_names_of_files_go_before_numbers_that_count_the_rows(pictures):
    """The first column is that of pandas; completed by .jpg its numbers are files, but of other rows."""
    rows = table(**{"": str, "file": lambda number: f"{COUNT - 1 - number}.jpg"})
    found = find_columns(pictures / "t.csv", rows, [pictures])
    assert (found.image, found.image_name) == ("file", None)


def test_names_of_files_go_before_numbers_also_where_some_files_are_missing(pictures):
    (pictures / "0.jpg").unlink()
    rows = table(row=lambda number: str(1 + number % 5), file=lambda number: f"{number}.jpg")
    found = find_columns(pictures / "t.csv", rows, [pictures])
    assert (found.image, found.image_name) == ("file", None)


def test_names_of_files_elsewhere_go_before_numbers_that_count_the_rows(pictures):
    """As Label Studio writes them: the ids of its own rows, and paths on its server."""
    rows = table(id=int, image=lambda number: f"/data/local-files/?d=pics/{COUNT - 1 - number}.jpg")
    found = find_columns(pictures / "t.csv", rows, [pictures])
    assert (found.image, found.image_name) == ("image", None)
    assert (found.image_prefix, found.image_root) == ("/data/local-files/?d=pics", pictures)


def test_numbers_that_are_taken_instead_of_names_of_files_that_are_not_there_are_told(pictures):
    rows = table(id=int, image=lambda number: f"/data/upload/{number}-photo.jpg")
    found = find_columns(pictures / "t.csv", rows, [pictures])
    assert found.image == "id"
    assert found.warnings == [
        "`image` holds names of images, but none of the first ones was found, so the numbers in `id` are taken; "
        "see columns.image"
    ]


def test_of_two_columns_of_files_the_name_says_which_one_and_the_other_is_told(pictures):
    rows = table(mask=lambda number: f"mask_{number}.png", image=lambda number: f"{number}.jpg")
    found = find_columns(pictures / "t.csv", rows, [pictures])
    assert found.image == "image"
    assert found.warnings == ["`mask` also holds names of images and is left out; see columns.image"]
    unfound = find_columns(pictures / "t.csv", rows, [pictures / "elsewhere"])
    assert unfound.image == "image"


def test_the_same_names_in_two_columns_are_no_choice(pictures):
    rows = table(image=lambda number: f"{number}.jpg", image_id=lambda number: f"{number}.jpg")
    assert not find_columns(pictures / "t.csv", rows, [pictures]).warnings


def test_ids_as_coco_writes_them_in_names_of_files(pictures):
    for number in range(COUNT):
        (pictures / f"{number}.jpg").unlink()
    found = find_columns(pictures / "t.csv", table(image_id=lambda number: number), [pictures])
    assert (found.image, found.image_name) == ("image_id", "{:0>12}.jpg")


def test_a_column_of_captions_that_is_empty_at_first_is_one_of_several(pictures):
    """Rows that are not looked at may have values there."""
    rows = [
        {"file": f"{number}.jpg", "caption_1": f"a picture {number}", "caption_2": value, "caption_3": 7, "note": None}
        for number, value in enumerate([None, "", float("nan"), None, "", None])
    ]
    assert find_columns(pictures / "t.csv", rows, [pictures]).captions == ["caption_1", "caption_2"]


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("image", {"path": "0.jpg"}, "`image` holds objects with the keys path, but captions and names of images"),
        ("image", [{"bytes": b"x"}], "`image` holds lists, but"),
        ("image", b"\x00\x01\xff", "`image` holds bytes that are no picture, but"),
        ("caption", b"a dog", "none of which holds captions; `caption` holds bytes that are no picture but text, but"),
        (
            "image",
            base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(20)).decode(),
            "`image` holds the text .base64.",
        ),
        ("image", "data:image/png;base64,iVBORw0KGgoAAAA", "`image` holds the text .base64. of pictures; write"),
        ("image", "data:image/jpeg;base64,AAAA", "`image` holds pictures as text .data:.; write the pictures into"),
        ("image", {"src": "https://a.b/0.jpg", "height": 3}, "`image` holds addresses of pictures .`src`., which are"),
        ("image", "https://a.b/0.jpg", "`image` holds addresses; download"),
        ("caption", {"en": "a dog"}, "none of which holds captions; `caption` holds objects with the keys en, but"),
    ],
)
@pytest.mark.parametrize("file", ["t.parquet", "t.jsonl.gz"])
def test_what_is_no_text_is_told_by_its_kind(pictures, column, value, says, file):
    rows = [{**row, column: value} for row in table(image=lambda number: f"{number}.jpg")]
    with pytest.raises(ConfigurationError, match=says) as raised:
        find_columns(pictures / file, rows, [pictures])
    assert "separator" not in str(raised.value)


def test_lines_above_a_heading_and_a_rare_separator_are_thought_of_for_a_csv_alone(pictures):
    with pytest.raises(
        ConfigurationError, match=r"dataset.separator, and if lines stand above its heading, remove them"
    ):
        find_columns(pictures / "t.csv", [{"# exported": "image,caption"}], [pictures])
