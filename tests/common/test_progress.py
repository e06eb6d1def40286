from __future__ import annotations

import sys

from cusa.common import progress


def test_without_a_terminal_there_are_plain_lines_with_rates(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress, "SHORTEST_REPORTED_SECONDS", 0.0)
    assert list(progress.progress("abc", 6, "images", "reading", step=2)) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("reading: 2/6 images in ")
    assert lines[-1].startswith("reading: 6/6 images in ")
    assert len(lines) == 3
    assert "\r" not in "".join(lines)


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress.progress(range(4), 4, "images", "reading")) == [0, 1, 2, 3]
    assert "100%" in capsys.readouterr().err


def test_a_loop_of_unknown_length_says_how_many_are_done(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress, "SHORTEST_REPORTED_SECONDS", 0.0)
    assert list(progress.progress("ab", None, "images", "reading")) == ["a", "b"]
    assert capsys.readouterr().err.startswith("reading: 1 images in ")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress.progress("ab", None, "images", "reading")) == ["a", "b"]
    assert "2images" in capsys.readouterr().err.replace(" ", "")
