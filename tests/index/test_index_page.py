"""The section on the index of docs/search.md, word for word, with galleries of the tests in the demo's place."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from gallery_files import clustered, save_gallery

from cusa import cli
from cusa.index.folder import SearchIndex

PAGE = Path(__file__).parents[2] / "docs/search.md"


def blocks(language: str) -> list[str]:
    section = re.split(r"^## ", PAGE.read_text().split("\n## Index\n")[1], flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def directory(tmp_path, monkeypatch) -> Path:
    for seed, name in enumerate(("emoji", "photos", "web")):
        items = [f"{name}/{number}.jpg" for number in range(60)]
        save_gallery(tmp_path / "galleries" / name, clustered(60, 16, seed), items)
    save_gallery(tmp_path / "galleries/queries", clustered(9, 16, 7), modality="text")
    (tmp_path / "gone.txt").write_text("photos/3.jpg\nweb/5.jpg\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_and_the_snippet_run(directory, monkeypatch, capsys):
    (commands,) = blocks("bash")
    for line in commands.splitlines():
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        cli.main()
    index = SearchIndex.open("galleries/photos")
    assert (index.rows, index.meta.removed) == (118, 2)
    assert SearchIndex.open("indexes/photos").meta.target_recall == 0.98
    assert (directory / "exported/clip-retrieval/image.index").is_file()
    (snippet,) = blocks("python")
    capsys.readouterr()
    exec(snippet, {})  # noqa: S102 (it is ours)
    assert capsys.readouterr().out.startswith("['emoji/0.jpg', ")
