"""What Snakemake recorded of outputs, read without Snakemake."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.persistence.file import FilePersistence

from cusa.plan.snakemake_records import read_record, recorded_outputs

LONG = f"results/{'a long name/' * 60}best.safetensors"


def record_path(folder: Path, output: str) -> Path:
    """Where Snakemake itself writes the record of an output."""
    path = Path(FilePersistence._record_path(SimpleNamespace(_fetch_max_len=lambda _: 255), str(folder), output))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("output", ["results/a.json", "results/Bücher/ü.json", LONG], ids=["plain", "letters", "long"])
def test_a_record_is_found_by_the_name_that_snakemake_gives_it(tmp_path, output):
    path = record_path(tmp_path, output)
    path.write_text(json.dumps({"endtime": 1.5, "params": ["'a'"]}))
    assert list(recorded_outputs(tmp_path)) == [(output, path)]
    assert read_record(path) == {"endtime": 1.5, "params": ["'a'"]}


def test_other_files_are_no_records(tmp_path):
    (tmp_path / "x").write_text("{}")
    (tmp_path / "@folder").mkdir()
    assert list(recorded_outputs(tmp_path)) == []
    assert list(recorded_outputs(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("content", [b"", b'{"endtime": 1.5, "par', b"[1]", b"\xff\xfe", b"null"])
def test_a_record_that_is_not_whole_says_nothing(tmp_path, content):
    (tmp_path / "record").write_bytes(content)
    assert read_record(tmp_path / "record") == {}
    assert read_record(tmp_path / "gone") == read_record(None) == {}
