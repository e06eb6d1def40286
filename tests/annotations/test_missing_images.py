"""A missing image is told with what its name has wrong: an address, a path of Windows, blanks, percent signs."""

from __future__ import annotations

import shutil

import pytest

from cusa.annotations.convert import convert
from cusa.commands.starting_configuration import look_at
from cusa.common.image_files import why_missing
from cusa.config.dataset import load_dataset
from cusa.errors import DataError


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("https://example.org/a%20b.jpg", ": it is an address; download the images first"),
        ("s3://bucket/a b.jpg", ": it is an address; download the images first"),
        ("file:///data/a b.jpg", ": it is an address of a file; write its path, without file://"),
        ("C:\\Users\\me\\a b.jpg", ": it is a path of Windows"),
        ("pics/a b.jpg ", ", but a b.jpg does, without blanks at its ends"),
        ("pics/a%20b.jpg", ", but a b.jpg does, without percent signs"),
        ("pics/A B.jpg", ", but a b.jpg does"),
        ("pics/a b.png", ", but a b.jpg does"),
        ("pics/a b", ", but a b.jpg does; image_name: {}.jpg completes such names"),
        ("Pics/a b.jpg", ": there is no folder Pics, but pics"),
        ("PICS/A b.JPG", ": there is no folder PICS, but pics"),
    ],
    ids=str,
)
def test_the_name_of_a_missing_image_is_looked_at(name, says, shapes, tmp_path):
    (tmp_path / "pics").mkdir()
    shutil.copy(next((shapes / "pics").iterdir()), tmp_path / "pics" / "a b.jpg")
    (tmp_path / "t.jsonl").write_text(f'{{"image": "{name}", "caption": "a b"}}\n'.replace("\\", "\\\\"))
    section = {"name": "d", "format": "table", "file": str(tmp_path / "t.jsonl"), "held_out": {"val": 0.1, "test": 0.1}}
    with pytest.raises(DataError) as error:
        convert(load_dataset(section), tmp_path / "out", tmp_path / "images")
    assert f"the file does not exist{says}" in str(error.value)


def test_a_name_that_says_nothing_gets_no_advice(tmp_path):
    (tmp_path / "b.jpg").touch()
    assert why_missing(tmp_path / "b.c") == ""
    assert why_missing(tmp_path / "a.jpg") == why_missing("a:b.jpg") == why_missing("x" * 5000) == ""


def test_a_folder_that_is_in_the_root_and_in_the_name_is_told(tmp_path):
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "a.jpg").touch()
    said = why_missing(tmp_path / "pics" / "pics" / "a.jpg")
    assert said == f", but {tmp_path}/pics/a.jpg does: pics is in dataset.image_root and in the name"
    assert why_missing(tmp_path / "pics" / "pics" / "b.jpg") == why_missing(tmp_path / "no" / "pics" / "a.jpg") == ""


def test_init_says_it_too_and_shows_each_pair_in_one_line(tmp_path):
    rows = "".join(f'c:\\pics\\{n}.jpg,"a cat\nand a woman \N{WOMAN}\u200d\N{PERSONAL COMPUTER}"\n' for n in range(3))
    (tmp_path / "t.csv").write_text(f"image,caption\n{rows}")
    lines = list(look_at(tmp_path / "t.csv").lines())
    assert any(line.endswith("a cat\\nand a woman \N{WOMAN}\u200d\N{PERSONAL COMPUTER}") for line in lines)
    assert any("it is a path of Windows" in line for line in lines if line.startswith("WARNING"))
