"""The example programs run on real small data."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def lancedb_search():
    pytest.importorskip("lancedb", reason="lancedb is not installed: the example for it is NOT tried")
    return runpy.run_path(str(ROOT / "examples/lancedb_search.py"))


def test_lancedb_finds_what_the_model_finds(
    monkeypatch, capsys, tmp_path, lancedb_search, shapes_index, search_model, shapes_items
):
    images = search_model.encode_image(shapes_items["path"].to_pylist())
    scores = (search_model.encode_text("a red circle") @ images.T)[0]
    tested = np.array([split == "test" for split in shapes_items["split"].to_pylist()])

    def items(*arguments: str) -> list[str]:
        command = ["lancedb_search.py", str(shapes_index), "a red circle", "--database", str(tmp_path / "db")]
        monkeypatch.setattr(sys, "argv", [*command, *arguments])
        lancedb_search["main"]()
        return [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()]

    names = np.array(shapes_items["item"].to_pylist())
    assert items() == names[np.argsort(-scores)[:10]].tolist()
    # A second time the table is replaced, not doubled.
    assert items("--where", "split = 'test'") == names[tested][np.argsort(-scores[tested])].tolist()


def test_lancedb_has_every_row_and_column(monkeypatch, tmp_path, lancedb_search, shapes_index, shapes_items):
    from cusa.gallery.store import Gallery

    gallery = Gallery.open(shapes_index)
    lancedb_search["batches"].__globals__["ROWS"] = 20  # several batches
    table = lancedb_search["load"](gallery, tmp_path / "db").to_arrow()
    assert table.select(shapes_items.column_names).to_pylist() == shapes_items.to_pylist()
    assert np.array_equal(np.array(table["vector"].to_pylist(), dtype=np.float32), gallery.embeddings(0, 48))
