"""Files that are no tensors are called what they are, without PyTorch's advice to execute what they hold."""

from __future__ import annotations

import argparse
import gzip
import tarfile
import zipfile
from pathlib import Path

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
    "it is compressed with gzip": lambda path: archive(path, "gzip"),
    "it is a ZIP archive": lambda path: archive(path, "zip"),
    "it is a tar": lambda path: archive(path, "tar"),
    "it is a safetensors file; give it the ending": lambda path: save_file({"a": torch.ones(2)}, path),
    "it holds argparse.Namespace; save its state dict alone": lambda path: torch.save(
        {"model": {}, "args": argparse.Namespace(lr=1)}, path
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


def test_a_file_that_is_cut_off_keeps_the_reason(tmp_path):
    torch.save({"a": torch.ones(2000)}, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:3000])
    with pytest.raises(DataError, match=r"cut.pt is damaged, or holds .* \(.+\)"):
        read_tensors(tmp_path / "cut.pt")
