"""Many rows at once, here and by processes, give what row by row gives: the same records and the same problems."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cusa.annotations.problems import Problems
from cusa.annotations.record_blocks import SPOOLED
from cusa.annotations.record_spool import RecordSpool, spool_blocks, spool_records
from cusa.annotations.sources import row_source, row_workers
from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.row_workers import row_reader
from cusa.config.captions import PUBLISHED, CaptionCleaning
from cusa.config.dataset import load_dataset
from cusa.errors import DataError

Row = dict[str, Any]
PLAIN = CaptionCleaning(clean="none", max_words=None)


def albef(number: int) -> Row:
    return {"caption": f"A dog, No. {number}!", "image": f"coco/{number // 3}.jpg", "image_id": number // 3}


def several(number: int) -> Row:
    return {"image": f"coco/{number}.jpg", "caption": [f"one of {number}", f"Two \u00e9\u4e2d of {number}."]}


def published(number: int) -> Row:
    return {"image_path": f"pics/{number // 2}.jpg", "caption": f"caption {number}", "image_id": f"i{number // 2}"}


def listed(rows: list[Any]) -> str:
    return json.dumps(rows)


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def changed(row: Callable[[int], Row], **changes: Any) -> Callable[[int], Row]:
    """Rows of which those whose number ends with 7, and the last one, are changed."""
    return lambda number: row(number) | (changes if number % 10 == 7 or number == 59 else {})


def without(row: Callable[[int], Row], key: str) -> Callable[[int], Row]:
    return lambda number: {name: value for name, value in row(number).items() if name != key or number != 31}


def instead(row: Callable[[int], Row], *others: Any) -> Callable[[int], Any]:
    return lambda number: others[number // 20 % len(others)] if number % 20 == 13 else row(number)


ROWS: dict[str, tuple[str, Callable[[int], Any]]] = {
    "albef": ("albef", albef),
    "several captions": ("albef", several),
    "published": ("published", published),
    "both kinds of captions": ("albef", lambda number: albef(number) if number % 2 else several(number)),
    "equal names in folders": ("albef", lambda number: albef(number) | {"image": f"{'ab'[number % 2]}/x/0.jpg"}),
    "captions as objects": (
        "albef",
        lambda number: {"image": f"{number}.jpg", "caption": [{"image": 1, "raw": "a b"}, {"image": 2, "raw": "c"}]},
    ),
    "no captions": ("albef", changed(albef, caption=[])),
    "captions of nothing": ("albef", changed(albef, caption="?!")),
    "captions that may be no value": ("albef", changed(albef, caption=" NaN")),
    "captions like no value": ("albef", changed(albef, caption="N.A")),
    "a caption that is a number": ("albef", changed(albef, caption=3)),
    "a caption that is null": ("albef", changed(albef, caption=["a", None])),
    "NUL": ("albef", changed(albef, caption="a\0b")),
    "NUL in a list": ("albef", changed(several, caption=["a", "a\0b"])),
    "half a character": ("albef", changed(albef, image="a\ud800.jpg")),
    "escapes": ("published", changed(published, caption='\x07 a "quoted"\t\\ \u2028 <person> \U0001f600 \x7f')),
    "sigmas": ("published", changed(published, caption="\u039f\u0394\u039f\u03a3")),
    "paths of Windows": ("albef", changed(albef, image="a\\b.jpg")),
    "absolute paths": ("albef", changed(albef, image="/a/b.jpg")),
    "odd paths": ("albef", instead(albef, *({"image": path, "caption": "a"} for path in ("./a", "a//b", "a/", "a/.")))),
    "empty paths": ("albef", changed(albef, image="")),
    "no path": ("albef", without(albef, "image")),
    "no id": ("published", without(published, "image_id")),
    "ids of all kinds": ("published", instead(published, *(published(1) | {"image_id": key} for key in (1, 1.0, 2.5)))),
    "an id of many digits": ("published", changed(published, image_id=10**30)),
    "ids that are none": (
        "published",
        instead(published, *(published(1) | {"image_id": key} for key in (True, float("nan"), "", None))),
    ),
    "no objects": ("published", instead(published, 3, "text", None, [])),
    "no object at the start": ("published", lambda number: published(number) if number else [1]),
    "other keys": ("published", lambda number: published(number) if number % 2 else {"n": 1} | published(number)),
}
TEXTS: dict[str, Callable[[list[Any]], str]] = {
    "list": listed,
    "list, indented": lambda rows: json.dumps(rows, indent=2),
    "list, as it is written here": lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
    "lines": lines,
    "lines with blank ones": lambda rows: "\r\n\n".join(map(json.dumps, rows)),
}
ENTIRE = listed([albef(number) for number in range(60)])
DAMAGED: dict[str, bytes] = {
    "empty list": b"[]",
    "one row": listed([albef(0)]).encode(),
    "no row": b"",
    "object": b'{"a": 1}',
    "cut off": ENTIRE[:-100].encode(),
    "cut off between rows": (ENTIRE[: ENTIRE.rindex("{")]).encode(),
    "the bracket is missing": ENTIRE[:-1].encode(),
    "more after the end": (ENTIRE + "x").encode(),
    "a comma is missing": ENTIRE.replace('29}, {"', '29} {"').replace('9}, {"', '9} {"', 1).encode(),
    "an error within": ENTIRE.replace("No. 40", 'No. "40').encode(),
    "an error on a later line": ENTIRE.replace("}, ", "},\n\n").replace("No. 40", 'No. "40').encode(),
    "a key twice": ENTIRE.replace('"image_id": 10}', '"image_id": 10, "image": "x"}', 1).encode(),
    "a key twice, equal": ENTIRE.replace('"image_id": 10}', '"image_id": 10, "image_id": 10}', 1).encode(),
    "the end of a row in a caption": ENTIRE.replace("No. 40", r"}, {\"caption\": ").encode(),
    "rows in a row": listed([albef(n) | {"more": [albef(1), albef(2)]} for n in range(60)]).encode(),
    "an endless number": ENTIRE.replace('"image_id": 10}', f'"image_id": {"1" * 5000}}}', 1).encode(),
    "infinity": ENTIRE.replace('"image_id": 10}', '"image_id": Infinity}').encode(),
    "not UTF-8": ENTIRE.encode().replace(b"No. 40", b"No. \xff"),
    "an error before what is not UTF-8": ENTIRE.replace("No. 2!", 'No. "2').encode().replace(b"No. 55", b"No. \xff"),
    "lines, one damaged": lines([albef(n) for n in range(60)]).replace("No. 40!", 'No. "40').encode(),
    "lines, not UTF-8": lines([albef(n) for n in range(60)]).encode().replace(b"No. 40", b"No. \xff"),
    "lines, cut off": lines([albef(n) for n in range(60)])[:-20].encode(),
    "UTF-16": ENTIRE.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + ENTIRE.encode(),
}


def section(folder: Path, form: str, content: bytes, **keys: Any) -> Any:
    for split in ("train", "val", "test"):
        (folder / f"{split}.json").write_bytes(content if split != "val" else b"[]")
    files = {split: str(folder / f"{split}.json") for split in ("train", "val", "test")}
    return load_dataset({"name": "d", "format": form, "annotations": files, "image_root": "/pics", **keys})


def told(make: Callable[[Problems], RecordSpool]) -> Any:
    """Everything that is found: the records, and the problems; or the error."""
    problems = Problems()
    try:
        spool = make(problems)
    except DataError as error:
        return str(error)
    columns = {name: spool.column(name).to_pylist() for name in SPOOLED.names}
    of_records = spool.split.tolist(), spool.captioned.tolist(), spool.split_names, spool.has_languages
    return columns, of_records, problems


def row_by_row(dataset: Any, folder: Path, cleaning: CaptionCleaning = PUBLISHED) -> Any:
    source = open_source(dataset, folder)
    return told(lambda problems: spool_records(source.records(), folder / "one.arrow", problems, cleaning))


def in_blocks(dataset: Any, folder: Path, cleaning: CaptionCleaning = PUBLISHED, threads: int = 1) -> Any:
    source = open_source(dataset, folder)

    def spooled(problems: Problems) -> RecordSpool:
        with row_reader(source, dataset, cleaning, threads) as reader:
            return spool_blocks(source.record_blocks(reader, problems, cleaning), folder / "many.arrow")

    return told(spooled)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("rows", ROWS)
def test_blocks_give_what_row_by_row_gives(rows, text, tmp_path, monkeypatch):
    form, row = ROWS[rows]
    dataset = section(tmp_path, form, TEXTS[text]([row(number) for number in range(60)]).encode())
    for characters in (150, 700, 1 << 22):
        monkeypatch.setattr(row_source, "CHARACTERS", characters)
        for cleaning in (PUBLISHED, PLAIN):
            assert in_blocks(dataset, tmp_path, cleaning) == row_by_row(dataset, tmp_path, cleaning)


@pytest.mark.parametrize("characters", [150, 700, 1 << 22])
@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files_give_the_same_sentences(damage, characters, tmp_path, monkeypatch):
    monkeypatch.setattr(row_source, "CHARACTERS", characters)
    dataset = section(tmp_path, "albef", DAMAGED[damage])
    assert in_blocks(dataset, tmp_path) == row_by_row(dataset, tmp_path)


def test_sound_rows_are_not_read_one_by_one(tmp_path, monkeypatch):
    """But for the first row of each list, which shows what stands between two, and the last one."""
    monkeypatch.setattr(row_source, "CHARACTERS", 700)
    dataset = section(tmp_path, "albef", ENTIRE.encode())
    source = open_source(dataset, tmp_path)
    alone: list[Row] = []
    one = source.row_records
    monkeypatch.setattr(source, "row_records", lambda split, path, row: alone.append(row) or one(split, path, row))
    with row_reader(source, dataset, PUBLISHED, threads=2) as reader:
        records = sum(len(block.splits) for block in source.record_blocks(reader, Problems(), PUBLISHED))
    assert records == 120
    assert [row["caption"] for row in alone] == ["A dog, No. 0!", "A dog, No. 59!"] * 2


@pytest.fixture
def small_texts(monkeypatch) -> None:
    """Texts so small that processes have several each."""
    monkeypatch.setattr(row_workers, "BYTES_FOR_EACH", 100)
    monkeypatch.setattr(row_source, "CHARACTERS", 700)


@pytest.mark.usefixtures("small_texts")
def test_processes_give_what_row_by_row_gives(tmp_path):
    rows = [ROWS[name][1](number) for number in range(60) for name in ("albef", "several captions", "NUL", "odd paths")]
    for text in (listed(rows), lines(rows), listed(rows)[:-200]):
        dataset = section(tmp_path, "albef", text.encode())
        assert in_blocks(dataset, tmp_path, PLAIN, threads=3) == row_by_row(dataset, tmp_path, PLAIN)


@pytest.mark.usefixtures("small_texts")
def test_what_a_killed_process_had_is_read_here(tmp_path, monkeypatch):
    dataset = section(tmp_path, "albef", listed([albef(number) for number in range(600)]).encode())
    expected = row_by_row(dataset, tmp_path)
    read_by_worker, processes = row_workers._read_by_worker, []

    def killed(process, path, text):
        if process not in processes:
            processes.append(process)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        return read_by_worker(process, path, text)

    monkeypatch.setattr(row_workers, "_read_by_worker", killed)
    assert in_blocks(dataset, tmp_path, threads=2) == expected
    assert len(processes) == 2


@pytest.mark.usefixtures("small_texts")
def test_processes_end_with_the_reading(tmp_path, monkeypatch):
    """Also where it stops early, at an error."""
    started = []
    popen = row_workers.subprocess.Popen
    monkeypatch.setattr(row_workers.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    dataset = section(tmp_path, "albef", DAMAGED["an error within"])
    assert "is not valid JSON (line 1:" in in_blocks(dataset, tmp_path, threads=2)
    assert [process.returncode for process in started] == [0, 0]


def test_a_block_has_the_columns_of_the_spool(tmp_path):
    dataset = section(tmp_path, "albef", ENTIRE.encode())
    source = open_source(dataset, tmp_path)
    with row_reader(source, dataset, PUBLISHED, threads=1) as reader:
        for block in source.record_blocks(reader, Problems(), PUBLISHED):
            assert isinstance(block.batch, pa.RecordBatch)
            assert block.batch.schema == SPOOLED
