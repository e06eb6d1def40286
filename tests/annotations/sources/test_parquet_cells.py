"""Cells of Parquet that no object of Python holds."""

import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cusa.annotations.sources.parquet_rows import parquet_rows
from cusa.commands.starting_configuration import starting_configuration

FAR = 2**31 - 1  # days, in the year 5,881,580
PHOBOS = pa.timestamp("us", "Mars/Phobos")
DAY = datetime.date(1970, 1, 2)


@pytest.mark.parametrize(
    "cells, values",
    [
        (pa.array([FAR, 1, None], pa.date32()), [f"<value out of range: {FAR}>", DAY, None]),
        (pa.array([-(2**62), None], pa.timestamp("us")), [f"<value out of range: {-(2**62)}>", None]),
        (pa.array([7, None], PHOBOS), ["timestamp[us, tz=Mars/Phobos]: 7", None]),
        (pa.array([2**62, None], pa.duration("s")), [str(2**62), None]),
        (pa.array([[FAR, 1], None], pa.list_(pa.date32())), [[f"<value out of range: {FAR}>", DAY], None]),
        (
            pa.array([{"a": FAR, "b": "x"}], pa.struct({"a": pa.date32(), "b": pa.string()})),
            [{"a": f"<value out of range: {FAR}>", "b": "x"}],
        ),
    ],
    ids=["date", "timestamp", "zone", "duration", "list", "struct"],
)
def test_a_cell_that_python_has_no_value_for_is_read_as_text(tmp_path, cells, values):
    pq.write_table(pa.table({"when": cells, "caption": ["a"] * len(cells)}), tmp_path / "t.parquet")
    rows = [row for _, row in parquet_rows(tmp_path / "t.parquet", None, 2)]
    assert rows == [{"when": value, "caption": "a"} for value in values]


def test_text_that_is_not_utf8_is_told_beside_such_a_cell(tmp_path):
    texts = pa.array([b"fine", b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"when": pa.array([FAR, FAR], pa.date32()), "caption": texts}), tmp_path / "t.parquet")
    (_, first), (_, second) = parquet_rows(tmp_path / "t.parquet", None, 10)
    assert first == {"when": f"<value out of range: {FAR}>", "caption": "fine"}
    assert second == "has text that is not UTF-8 (unexpected end of data at byte 3)"


@pytest.mark.parametrize("kind", [pa.date32(), PHOBOS], ids=["date", "zone"])
def test_a_column_of_dates_that_nobody_reads_does_not_stop_init(tmp_path, kind):
    days = pa.array([FAR] * 12, pa.int32() if kind == pa.date32() else pa.int64()).view(kind)
    names, captions = ([text.format(number) for number in range(12)] for text in ("{}.jpg", "a photo {}"))
    for name in names:
        (tmp_path / name).touch()
    pq.write_table(pa.table({"image": names, "caption": captions, "taken": days}), tmp_path / "t.parquet")
    assert "image: image" in starting_configuration(tmp_path / "t.parquet")
