"""docs/export.md, word for word, with a run of the tests in the demo's place."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from runs_to_export import RUNS

import cusa
from cusa.annotations.tables import IMAGES, read_table

ROOT = Path(__file__).parents[2]


def blocks(language: str) -> list[str]:
    page = (ROOT / "docs/export.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


def exports() -> list[list[str]]:
    """The commands that export; tests/test_mteb_example.py runs the one that measures an export."""
    commands = map(shlex.split, "".join(blocks("bash")).replace("\\\n", " ").splitlines())
    chosen = [words for words in commands if words[:2] != ["python", "examples/mteb_tasks.py"]]
    assert all(words[:2] == ["cusa", "export"] for words in chosen)
    return chosen


@pytest.fixture(scope="module")
def directory(request, tmp_path_factory, shapes_data) -> Path:
    """A directory with results/openmoji, where the page's commands were run."""
    run, folder = RUNS["clip"](request.getfixturevalue), tmp_path_factory.mktemp("page")
    results = folder / "results/openmoji"
    for part in ("annotations", "shards"):
        shutil.copytree(shapes_data / part, results / part)
    shutil.copytree(run, results / "runs/cusa/seed23")
    (results / "images").mkdir()
    shutil.copy(read_table(shapes_data / "annotations", IMAGES)["image_path"][0].as_py(), results / "images/1F382.png")
    for words in exports():
        subprocess.run([sys.executable, "-m", "cusa.cli", *words[1:]], cwd=folder, check=True)
    return folder


def test_the_commands_write_folders_that_load(directory):
    folders = sorted((directory / "exported").iterdir())
    assert len(folders) == len(exports())
    for folder in folders:
        assert cusa.load(folder, device="cpu").encode_text("a red circle").shape == (1, 16)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_snippets_run(directory, number, monkeypatch):
    monkeypatch.chdir(directory)
    done = subprocess.run([sys.executable, "-c", blocks("python")[number]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
