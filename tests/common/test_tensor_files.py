"""Files that are no tensors are called what they are, without PyTorch's advice to execute what they hold."""

from __future__ import annotations

import argparse
import gzip
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cusa.common.files import read_tensors
from cusa.errors import DataError


def archive(path: Path, kind: str) -> None:
    """An archive with a file of weights in it, as some releases have it."""
    inner = path.with_name("inner.pt")
    torch.save({"a": torch.ones(2)}, inner)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            packed.write(inner, "weights.pt")
    elif kind == "tar":
        with tarfile.open(path, "w") as packed:
            packed.add(inner, "weights.pt")
    else:
        path.write_bytes(gzip.compress(inner.read_bytes()))


WRITERS = {
    "it has zero bytes": lambda path: path.write_bytes(b""),
    "it is a pointer of Git LFS": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid a"),
    "it is an HTML page": lambda path: path.write_text("<!DOCTYPE html><html></html>"),
    "(it is text)": lambda path: path.write_text("hello"),
    "it is a pickle of Python, not of torch.save": lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=4)),
    "it is compressed with gzip": lambda path: archive(path, "gzip"),
    "it is a ZIP archive": lambda path: archive(path, "zip"),
    "it is a tar": lambda path: archive(path, "tar"),
    "it is a safetensors file; give it the ending": lambda path: save_file({"a": torch.ones(2)}, path),
    "it holds cusa.errors.DataError; save its state dict alone": lambda path: torch.save(
        {"model": {}, "error": DataError("a")}, path
    ),
    "it holds torch.nn.modules.linear.Linear; save": lambda path: torch.save(torch.nn.Linear(2, 2), path),
    "Is a directory": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("says", WRITERS)
def test_the_kind_of_the_file_is_told(tmp_path, says):
    WRITERS[says](tmp_path / "weights.pt")
    with pytest.raises(DataError) as raised:
        read_tensors(tmp_path / "weights.pt")
    assert says in str(raised.value)
    assert "weights_only" not in str(raised.value)
    assert "\x1b" not in str(raised.value)


def test_arguments_and_scores_beside_the_weights_are_read(tmp_path):
    """As training programs save them: argparse.Namespace, and numbers of NumPy 1 and 2."""
    best = [kind(1) for kind in (np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_)]
    content = {"model": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=0.1, model="ViT-B/32"), "best": best}
    torch.save(content, tmp_path / "new.pt")
    # The pickle is stored in the archive as it is, with the names of the functions as text.
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core", b"numpy.core"))
    for name in ("new.pt", "old.pt"):
        read = read_tensors(tmp_path / name)
        assert read["args"] == content["args"]
        assert read["best"] == best
        assert [type(number) for number in read["best"]] == [type(number) for number in best]


class RunsCode:
    def __reduce__(self):
        return eval, ("1 + 1",)


@pytest.mark.parametrize("hidden", [RunsCode(), np.array([RunsCode()], dtype=object), argparse.Namespace(a=RunsCode())])
def test_code_is_never_run(tmp_path, monkeypatch, hidden):
    torch.save({"model": {}, "best": hidden}, tmp_path / "weights.pt")
    monkeypatch.setattr("builtins.eval", lambda text: pytest.fail(f"{text} was run"))
    with pytest.raises(DataError, match="which is never loaded"):
        read_tensors(tmp_path / "weights.pt")


def test_a_file_that_is_cut_off_keeps_the_reason(tmp_path):
    torch.save({"a": torch.ones(2000)}, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:3000])
    with pytest.raises(DataError, match=r"cut.pt is damaged, or holds .* \(.+\)"):
        read_tensors(tmp_path / "cut.pt")
