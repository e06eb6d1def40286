"""`cusa index`: what each of its options does, and what is wrong with its arguments."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from cusa import cli
from cusa.gallery.items import items_table
from cusa.gallery.store import write_gallery
from cusa.index.folder import SearchIndex


def gallery(folder: Path, first: int, count: int = 40) -> Path:
    rows = np.random.default_rng(first).standard_normal((count, 16))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    items = items_table([f"{number}.png" for number in range(first, first + count)])
    write_gallery(folder, rows, items, folder / "model", "a" * 64)
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    return gallery(tmp_path / "out", 0)


def index(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["cusa", "index", *map(str, arguments)])
    cli.main()


def test_an_index_is_built_grown_and_made_smaller(out, tmp_path, monkeypatch, capsys):
    index(monkeypatch, out)
    assert (
        f'40 rows: flat (IDMap,Flat of faiss), exact, 0.0 MB\nnext: cusa search {out} "a text"'
        in capsys.readouterr().out
    )
    index(monkeypatch, out, "--add", gallery(tmp_path / "more", 30), "--replace")
    assert SearchIndex.open(out).rows == 70
    (tmp_path / "gone.txt").write_text("3.png\n\n69.png\r\n")
    index(monkeypatch, out, "--remove", tmp_path / "gone.txt")
    items = SearchIndex.open(out).items["item"].to_pylist()
    assert len(items) == 68 and not {"3.png", "69.png"} & set(items)
    assert "68 rows, 12 removed" in capsys.readouterr().out
    index(monkeypatch, out, "--clip-retrieval", tmp_path / "clip")
    assert (tmp_path / "clip/image.index").is_file()
    index(monkeypatch, out, "--from-scratch")
    assert SearchIndex.open(out).rows == 40


def test_options_reach_the_index(out, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "index"
    index(
        monkeypatch,
        out,
        "--output",
        folder,
        "--kind",
        "ivf-sq",
        "--target-recall",
        "0.5",
        "--memory",
        "0.5",
        "--seed",
        "4",
        "--threads",
        "1",
        "--duplicates",
        "none",
    )
    meta = json.loads((folder / "meta.json").read_text())["index"]
    assert (meta["kind"], meta["target_recall"], meta["seed"]) == ("ivf_sq", 0.5, 4)
    assert meta["options"] | {"memory": 1 << 29, "duplicates": "none"} == meta["options"]
    assert "chosen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--replace"], "--replace is for --add"),
        (["--missing-ok"], "--missing-ok is for --remove"),
        (["--target-recall", "0"], "the target recall is 0.0; expected a share"),
        (["--remove", "nothing.txt"], "nothing.txt cannot be read"),
        (["--remove", "/dev/null"], "/dev/null names no item; expected one a line"),
        (["--add", "nowhere"], "nowhere/meta.json does not exist"),
    ],
    ids=["replace", "missing-ok", "recall", "no file", "no item", "no gallery"],
)
def test_wrong_arguments_are_sentences(out, monkeypatch, arguments, message):
    index(monkeypatch, out)
    with pytest.raises(SystemExit, match=message):
        index(monkeypatch, out, *arguments)


def test_a_folder_without_an_index_or_a_gallery_is_a_sentence(out, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="has embeddings but no index yet; run `cusa index"):
        index(monkeypatch, out, "--clip-retrieval", tmp_path / "clip")
    with pytest.raises(SystemExit, match=r"meta.json does not exist"):
        index(monkeypatch, tmp_path)


@pytest.mark.parametrize("memory", ["-1", "0", "nan", "inf"])
def test_a_memory_that_is_no_number_of_gib_is_told(out, monkeypatch, capsys, memory):
    with pytest.raises(SystemExit) as ended:
        index(monkeypatch, out, f"--memory={memory}")
    assert f"--memory is {memory}; expected a number of GiB above 0, such as 2." in str(ended.value)
