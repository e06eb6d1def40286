"""Rendering the report of scored runs, and reading its gallery."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from cusa.config.report import Gallery
from cusa.report.page import render


def rendered(scored_runs, tmp_path: Path, **gallery) -> str:
    folder, runs = scored_runs
    page = tmp_path / "report/index.html"
    render(folder, folder.root / "summary.parquet", runs, Gallery(**gallery), page, tmp_path / "report/figures")
    return page.read_text()


class GalleryReader(HTMLParser):
    """Collects (query, model, [(title, right)]) from the page."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, str, list[tuple[str, bool]]]] = []
        self.reading: str | None = None
        self.query, self.right = "", False

    def handle_starttag(self, tag, attrs):
        names = (dict(attrs).get("class") or "").split()
        if tag == "section":
            self.query = ""
        if tag == "span" or "model" in names:
            self.reading = "query" if tag == "span" else "model"
        if "hit" in names:
            self.right = "right" in names
        if tag == "img" and (title := dict(attrs).get("title")):
            self.rows[-1][2].append((title, self.right))

    def handle_data(self, data):
        if self.reading == "query":
            self.query = data
        if self.reading == "model":
            self.rows.append((self.query, data, []))
        self.reading = None
