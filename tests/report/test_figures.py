"""The curves of the training, as files and from histories."""

from __future__ import annotations

from collections import Counter

from pages import rendered

from cusa.report import figures
from cusa.report.figures import FIGURES, draw_figures


def test_figures_stand_alone_too(scored_runs, tmp_path):
    rendered(scored_runs, tmp_path)
    for name in FIGURES:
        figure = (tmp_path / f"report/figures/{name}.svg").read_text()
        assert figure.startswith("<?xml")
        assert "#010203" not in figure
        assert "contrastive" in figure and "cusa" in figure
    assert not list(tmp_path.rglob("*.partial"))


def test_each_history_is_read_once(scored_runs, tmp_path, monkeypatch):
    read, read_table = Counter(), figures.read_parquet

    def counting(path, *options):
        read[path] += 1
        return read_table(path, *options)

    monkeypatch.setattr(figures, "read_parquet", counting)
    rendered(scored_runs, tmp_path)
    _, runs = scored_runs
    histories = {path: count for path, count in read.items() if "history" in str(path)}
    assert histories == {runs[name][0] / "history.parquet": 1 for name in ("contrastive", "cusa")}


def test_without_histories_the_figures_are_empty():
    drawings = draw_figures({})
    assert set(drawings) == set(FIGURES)
    assert all(drawing.endswith("</svg>\n") for drawing in drawings.values())
