"""The section on embedding of docs/search.md, word for word, with a run and pictures of the tests."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from cusa import cli
from cusa.commands import embedding as command
from cusa.config.configuration import load
from cusa.gallery.embedding import PART_ROWS
from cusa.gallery.store import Gallery
from cusa.layout import DatasetFolder
from cusa.training.loop import train

PAGE = Path(__file__).parents[2] / "docs/search.md"


def blocks(language: str) -> list[str]:
    section = re.split(r"^## ", PAGE.read_text().split("\n## Embed\n")[1], flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def directory(tiny_configuration, shapes_data, shapes, tmp_path, monkeypatch) -> Path:
    run = DatasetFolder(shapes_data).run("for_the_page", 23)
    train(load(tiny_configuration).run("cusa", 23), DatasetFolder(shapes_data), run)
    results = tmp_path / "results/openmoji"
    for part in ("annotations", "shards"):
        shutil.copytree(shapes_data / part, results / part)
    shutil.copytree(run, results / "runs/cusa/seed23")
    shutil.copytree(shapes / "pics", results / "images")
    pictures = sorted((shapes / "pics").iterdir())
    (tmp_path / "photos.csv").write_text("file,note\n" + "".join(f"{path},a note\n" for path in pictures[:4]))
    (tmp_path / "shards").mkdir()
    for number in range(2):
        with tarfile.open(tmp_path / f"shards/{number:05d}.tar", "w") as tar:
            tar.add(pictures[number], "0.jpg")
            caption = tarfile.TarInfo("0.txt")
            caption.size = 5
            tar.addfile(caption, io.BytesIO(b"a cat"))
    (tmp_path / "queries.txt").write_text("a red circle\na blue square\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_and_the_snippet_run(directory, monkeypatch, capsys):
    (commands,) = blocks("bash")
    for line in commands.splitlines():
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        cli.main()
    rows = {folder.name: Gallery.open(folder).rows for folder in sorted(Path("galleries").iterdir())}
    assert rows == {"emoji": 48, "photos": 4, "queries": 2, "test": 8, "web": 2}
    assert Gallery.open("galleries/web").items["captions"].to_pylist() == [["a cat"], ["a cat"]]
    assert "galleries/emoji: 48 images, float32 [48, 16]\n" in capsys.readouterr().out
    (snippet,) = blocks("python")
    found: dict[str, object] = {}
    exec(snippet, found)  # noqa: S102 (it is ours)
    assert found["vectors"].shape == (48, 16)
    assert found["content"].startswith(b"\xff\xd8")


def test_the_options_of_the_page_are_those_of_the_command(monkeypatch, capsys):
    section = re.split(r"^## ", PAGE.read_text().split("\n## Embed\n")[1], flags=re.MULTILINE)[0]
    monkeypatch.setattr(sys, "argv", ["cusa", "embed", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    assert PART_ROWS == command.PART_ROWS
    assert set(re.findall(r"--[a-z-]+\b", section)) <= set(re.findall(r"--[a-z-]+\b", capsys.readouterr().out))
