"""Parts of a data set's files, read by several jobs, become the same tables and pictures as one job makes of them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_files import add_member
from PIL import Image

from cusa.annotations.convert import convert
from cusa.annotations.record_parts import read_part
from cusa.config.captions import PUBLISHED
from cusa.config.dataset import load_dataset
from cusa.errors import ConfigurationError, DataError


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 50, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def tars(folder: Path, captions: list[list[str]], splits: list[str] | None = None) -> dict:
    """One tar a list of captions. The first picture of each tar is that of all others."""
    for number, texts in enumerate(captions):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for place, text in enumerate(texts):
                metadata = {"caption": text, "split": (splits or ["train", "val", "test"])[place % 3]}
                add_member(tar, f"{place}.png", picture(10 * number + place if place > 2 else place))
                add_member(tar, f"{place}.json", json.dumps(metadata).encode())
    return {"format": "webdataset", "file": str(folder), "keys": {"caption": "caption", "split": "split"}}


def tables(folder: Path, captions: list[list[str]]) -> dict:
    for number, texts in enumerate(captions):
        content = {
            "image": pa.array([picture(10 * number + place) for place in range(len(texts))]),
            "caption": texts,
            "language": ["en" if place % 2 else "de" for place in range(len(texts))],
        }
        pq.write_table(pa.table(content), folder / f"{number}.parquet")
    columns = {"image": "image", "caption": "caption", "language": "language"}
    return {"format": "parquet", "file": str(folder), "columns": columns, "held_out": {"val": 0.3, "test": 0.3}}


def texts(folder: Path, captions: list[list[str]], splits: list[str] | None = None) -> dict:
    """One CSV a list of captions, whose images are files beside them. The first image of each CSV is that of all."""
    for number, of_file in enumerate(captions):
        lines = ["image,caption,split"]
        for place, text in enumerate(of_file):
            name = f"{10 * number + place if place > 2 else place}.png"
            (folder / name).write_bytes(picture(int(name.removesuffix(".png"))))
            lines.append(f"{name},{text},{(splits or ['train', 'val', 'test'])[place % 3]}")
        (folder / f"part-{number}.csv").write_text("\n".join(lines) + "\n")
    return {"format": "table", "file": str(folder / "part-*.csv"), "columns": {"split": "split"}}


def converted(tmp_path: Path, section: dict, parts: int) -> dict[str, bytes]:
    """Every file that is made, by its path; the folder of results has the same name whatever the parts."""
    dataset = load_dataset({"name": "d", **section})
    results = tmp_path / "results"
    folders = [results / f"parts/{part}" for part in range(parts)]
    for part, folder in enumerate(folders):
        read_part(dataset, folder, results / "images", part, parts)
    convert(dataset, results / "annotations", results / "images", parts=folders)
    made = {
        str(path.relative_to(results)): path.read_bytes()
        for name in ("annotations", "images")
        for path in (results / name).rglob("*")
        if path.is_file()
    }
    results.rename(tmp_path / f"results-{parts}")
    return made


CAPTIONS = [[f"the {place}th of tar {number}" for place in range(6)] for number in range(5)]


@pytest.mark.parametrize("written", [tars, tables, texts])
@pytest.mark.parametrize("parts", [1, 2, 7])  # of seven, two have no file
def test_they_become_what_one_job_makes(tmp_path, written, parts):
    (tmp_path / "data").mkdir()
    section = written(tmp_path / "data", CAPTIONS)
    whole = converted(tmp_path, section, 0)
    assert sum(name.startswith("images/") for name in whole) > 15 or written is texts
    assert converted(tmp_path, section, parts) == whole


@pytest.mark.parametrize("written", [tars, texts])
def test_problems_are_told_as_one_job_tells_them(tmp_path, written):
    (tmp_path / "data").mkdir()
    captions = [["a dog", "...", "a cat"], ["a cow", "!", "???"], ["a hen", "a pig", "--"]]
    section = written(tmp_path / "data", captions, splits=["train", "holdout", "test"])
    said = []
    for parts in (0, 3):
        with pytest.raises(DataError) as error:
            converted(tmp_path / str(parts), section, parts)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert "3 rows with `holdout`" in said[0]
    assert "captions without a word" in said[0]


def test_a_damaged_part_is_named(tmp_path):
    (tmp_path / "data").mkdir()
    dataset = load_dataset({"name": "d", **tables(tmp_path / "data", CAPTIONS)})
    read_part(dataset, tmp_path / "0", tmp_path / "images", 0, 1)
    records = (tmp_path / "0/records.arrow").read_bytes()
    (tmp_path / "0/records.arrow").write_bytes(records[: len(records) // 2])
    with pytest.raises(DataError, match=r"0/records\.arrow is damaged .*delete .*0"):
        convert(dataset, tmp_path / "annotations", tmp_path / "images", parts=[tmp_path / "0"])
    assert not (tmp_path / "annotations").exists()


def test_formats_of_one_file_have_no_parts(shapes, tmp_path):
    dataset = load_dataset({"name": "d", "format": "published", "annotations": str(shapes)})
    with pytest.raises(ConfigurationError, match="files of the format published are not read in parts"):
        read_part(dataset, tmp_path / "0", tmp_path / "images", 0, 1, PUBLISHED)
