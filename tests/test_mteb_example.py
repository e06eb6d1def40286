"""examples/mteb_tasks.py: mteb's image-text tasks on an exported model, with data of one's own."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOURS, draw_shape
from PIL import Image

ROOT = Path(__file__).parents[1]
PAIRS = [("red", "circle"), ("red", "cross"), ("blue", "circle"), ("blue", "square"), ("green", "cross")]


@pytest.fixture(scope="module")
def exported(search_run, tmp_path_factory) -> Path:
    from cusa.export.exporting import ExportOptions, export

    folder = tmp_path_factory.mktemp("mteb") / "model"
    export(search_run, "sentence-transformers", folder, ExportOptions())
    return folder


# mteb calls its own methods, and those of sentence-transformers, in ways that both have given up.
@pytest.mark.filterwarnings("ignore:The fill_missing parameter is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The `get_sentence_embedding_dimension` method has been renamed:FutureWarning")
def test_mteb_scores_a_table_of_ones_own(exported, tmp_path, monkeypatch, capsys):
    from sentence_transformers import SentenceTransformer

    rows = []
    for number, (colour, shape) in enumerate(PAIRS):
        assert colour in COLOURS
        draw_shape(colour, shape, "large").resize((32, 32)).save(tmp_path / f"{number}.png")
        rows += [(f"{number}.png", f"a {colour} {shape}", colour), (f"{number}.png", f"{shape} and {colour}", colour)]
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption", "label"), *rows])
    monkeypatch.setattr(sys, "argv", ["mteb_tasks.py", str(exported), "--table", str(tmp_path / "mine.csv")])
    runpy.run_path(str(ROOT / "examples/mteb_tasks.py"))["main"]()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"task"')]
    scores = {line["task"]: line["scores"]["test"] for line in lines}
    assert list(scores) == ["OwnT2IRetrieval", "OwnI2TRetrieval", "OwnZeroShot"]

    model = SentenceTransformer(str(exported), device="cpu")
    images = model.encode([Image.open(tmp_path / f"{number}.png") for number in range(len(PAIRS))])
    similarity = images @ model.encode([caption for _, caption, _ in rows]).T
    own = np.repeat(np.arange(len(PAIRS)), 2)
    assert scores["OwnT2IRetrieval"]["recall_at_1"] == pytest.approx(
        np.mean(similarity.argmax(axis=0) == own), abs=1e-4
    )
    first = own[similarity.argmax(axis=1)] == np.arange(len(PAIRS))
    assert scores["OwnI2TRetrieval"]["hit_rate_at_1"] == pytest.approx(np.mean(first), abs=1e-4)
    labels = sorted({colour for colour, _ in PAIRS})
    nearest = (images @ model.encode([f"a photo of a {label}." for label in labels]).T).argmax(axis=1)
    right = [labels[place] == colour for place, (colour, _) in zip(nearest, PAIRS, strict=True)]
    assert scores["OwnZeroShot"]["accuracy"] == pytest.approx(np.mean(right), abs=1e-4)


def test_nothing_to_evaluate_is_said(exported, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mteb_tasks.py", str(exported)])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "examples/mteb_tasks.py"))["main"]()
    assert "name --tasks or a --table" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    ["", "image,caption\n", "file,caption\n1.png,a cross\n", "image,text\n1.png,a cross\n"],
    ids=["empty", "no rows", "no image", "no caption"],
)
def test_a_table_without_the_columns_is_refused(tmp_path, monkeypatch, content):
    (tmp_path / "mine.csv").write_text(content)
    monkeypatch.setattr(sys, "argv", ["mteb_tasks.py", "exported", "--table", str(tmp_path / "mine.csv")])
    with pytest.raises(SystemExit, match=r"mine.csv has no rows with the column (image|caption); expected"):
        runpy.run_path(str(ROOT / "examples/mteb_tasks.py"))["main"]()
