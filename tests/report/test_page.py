"""The page for people: whole, self-contained, and its gallery says what the embeddings say."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cusa.annotations.tables import CAPTIONS, IMAGES, PROBLEMS, read_table, split_rows
from cusa.benchmarks.evaluation import evaluate
from cusa.common.files import write_json
from cusa.config.benchmarks import ImageTextRetrieval
from cusa.config.configuration import load
from cusa.config.report import Gallery
from cusa.embeddings import embed
from cusa.layout import DatasetFolder
from cusa.report.figures import FIGURES
from cusa.report.page import render
from cusa.report.summary import summarise
from cusa.training.loop import train


@pytest.fixture(scope="module")
def trained(shapes_data, tiny_configuration, tmp_path_factory) -> tuple[DatasetFolder, dict[str, list[Path]]]:
    """Two trained, embedded and scored runs on the shapes."""
    root = Path(shutil.copytree(shapes_data, tmp_path_factory.mktemp("report") / "shapes"))
    folder, configuration = DatasetFolder(root), load(tiny_configuration)
    runs = {}
    for experiment in configuration.active_experiments:
        run = root / "runs" / experiment / "seed23"
        train(configuration.run(experiment, 23), folder, run)
        embed(run, folder, "test", run / "embeddings/test")
        output, queries = (run / f"benchmarks/itr.{ending}" for ending in ("json", "queries.npz"))
        evaluate("itr", folder, run, output, queries, ImageTextRetrieval())
        runs[experiment] = [run]
    results = sorted(root.glob("runs/*/*/benchmarks/*.json"))
    parquet, markdown, latex = (root / f"summary.{ending}" for ending in ("parquet", "md", "tex"))
    summarise(results, folder.annotations, parquet, markdown, latex, "contrastive", {"sop": "It does not exist."})
    return folder, runs


def rendered(trained, tmp_path: Path, **gallery) -> str:
    folder, runs = trained
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


def test_the_gallery_shows_the_nearest_pictures_and_marks_the_right_ones(trained, tmp_path):
    folder, runs = trained
    reader = GalleryReader()
    reader.feed(rendered(trained, tmp_path, text_queries=6, image_queries=0, top=4))
    assert len({query for query, _, _ in reader.rows}) == 6
    assert [model for _, model, _ in reader.rows] == ["contrastive", "cusa"] * 6
    captions = read_table(folder.annotations, CAPTIONS, ["caption", "image", "split"])
    rows, first = split_rows(captions, "test"), split_rows(read_table(folder.annotations, IMAGES), "test")[0]
    texts = captions["caption"].take(pa.array(rows)).to_pylist()
    image_of = captions["image"].to_numpy()[rows] - first
    titles = [texts[int(np.flatnonzero(image_of == image)[0])] for image in range(8)]
    for query, model, hits in reader.rows:
        embeddings = runs[model][0] / "embeddings/test"
        image, text = (np.load(embeddings / f"{side}_cross.npy").astype(np.float64) for side in ("image", "text"))
        caption = texts.index(query)
        cosine = image @ text[caption] / np.linalg.norm(image, axis=1)
        nearest = np.argsort(-cosine)[:4]
        assert [title for title, _ in hits] == [titles[place] for place in nearest]
        assert [right for _, right in hits] == [place == image_of[caption] for place in nearest]


def test_pictures_without_labels_are_shown_without_marks(trained, tmp_path):
    reader = GalleryReader()
    reader.feed(rendered(trained, tmp_path, text_queries=0, image_queries=3, top=5))
    assert len(reader.rows) == 6
    for query, _, hits in reader.rows:
        assert len(hits) == 5
        assert not any(right for _, right in hits)
        assert query not in [title for title, _ in hits]


def test_the_page_needs_nothing_else(trained, tmp_path):
    page = rendered(trained, tmp_path)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert {source.split(":")[0] for source in sources if not source.startswith("#")} == {"data"}
    assert "<script" not in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert page.count("<svg") == len(FIGURES)


def test_figures_stand_alone_too(trained, tmp_path):
    rendered(trained, tmp_path)
    for name in FIGURES:
        figure = (tmp_path / f"report/figures/{name}.svg").read_text()
        assert figure.startswith("<?xml")
        assert "#010203" not in figure
        assert "contrastive" in figure and "cusa" in figure
    assert not list(tmp_path.rglob("*.partial"))


def test_text_of_the_data_cannot_become_markup(trained, tmp_path):
    folder, runs = trained
    copy = Path(shutil.copytree(folder.root, tmp_path / "data"))
    table = pq.read_table(copy / "annotations/captions.parquet")
    hostile = pa.array(["<script>alert(1)</script>"] * table.num_rows)
    pq.write_table(table.set_column(0, "caption", hostile), copy / "annotations/captions.parquet")
    page = rendered((DatasetFolder(copy), runs), tmp_path)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_what_was_skipped_is_on_the_page(trained, tmp_path):
    folder, runs = trained
    copy = Path(shutil.copytree(folder.root, tmp_path / "data"))
    write_json(copy / "annotations" / PROBLEMS, {"skipped": {"missing_image": 7}, "examples": {}})
    assert "as dataset.skip allows: 7 missing image." in rendered((DatasetFolder(copy), runs), tmp_path)


def test_an_experiment_that_was_not_trained_is_left_out_of_the_gallery(trained, tmp_path):
    reader = GalleryReader()
    reader.feed(rendered(trained, tmp_path, experiments=["cusa", "nonesuch"], text_queries=2, image_queries=0))
    assert {model for _, model, _ in reader.rows} == {"cusa"}
