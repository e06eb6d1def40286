"""The report's page is self-contained, escapes text and counts what was skipped."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pages import rendered

from cusa.annotations.tables import PROBLEMS
from cusa.common.files import write_json
from cusa.layout import DatasetFolder
from cusa.report.figures import FIGURES


def test_the_page_needs_nothing_else(scored_runs, tmp_path):
    page = rendered(scored_runs, tmp_path)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert {source.split(":")[0] for source in sources if not source.startswith("#")} == {"data"}
    assert re.findall("<script[^>]*>", page) == [
        '<script id="curves-data" type="application/json">',
        "<script>",
        "<script>",
    ]
    assert "Permission is hereby granted" in page  # the licence of uPlot goes where uPlot goes
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert page.count("<svg") == len(FIGURES)


def test_text_of_the_data_cannot_become_markup(scored_runs, tmp_path):
    folder, runs = scored_runs
    copy = Path(shutil.copytree(folder.root, tmp_path / "data"))
    table = pq.read_table(copy / "annotations/captions.parquet")
    hostile = pa.array(["<script>alert(1)</script>"] * table.num_rows)
    pq.write_table(table.set_column(0, "caption", hostile), copy / "annotations/captions.parquet")
    page = rendered((DatasetFolder(copy), runs), tmp_path)
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_what_was_skipped_is_on_the_page(scored_runs, tmp_path):
    folder, runs = scored_runs
    copy = Path(shutil.copytree(folder.root, tmp_path / "data"))
    write_json(copy / "annotations" / PROBLEMS, {"skipped": {"missing_image": 7}, "examples": {}})
    assert "as dataset.skip allows: 7 missing image." in rendered((DatasetFolder(copy), runs), tmp_path)
