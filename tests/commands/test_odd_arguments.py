"""Files and folders that cannot be are a sentence of every command, never a traceback."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cusa import cli

COMMANDS = [
    ["init", "@"], ["check", "@"], ["config", "@"], ["schema", "--output", "@"], ["import-config", "@"],
    ["import-features", "@", "--data", "@", "--split", "val"], ["profile", "@", "--steps", "1"], ["runs", "@"],
    ["diff", "@", "@"], ["sweep", "best", "@"], ["verify", "@"], ["search", "@", "cat"], ["index", "@"],
    ["run", "--print-command", "--configfile", "@"], ["run", "--print-command", "@"],
    ["init", "table.csv", "--output", "@"], ["export", "@", "--to", "onnx", "--output", "new"],
]  # fmt: skip
FILES = {"empty": b"", "binary": bytes(range(256)) * 8, "zeros": bytes(2048), "mine.txt": b"what I wrote"}
NAMES = [*FILES, "folder", "missing", "empty/below", "broken", "loop", "~nobody9/x", "", "a" * 300]
NAMES += ["a\nb", os.fsdecode(b"na\xefme"), "/dev/null"]


@pytest.fixture
def odd(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    (tmp_path / os.fsdecode(b"na\xefme")).mkdir()
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "table.csv").write_text("image,caption\n" + "".join(f"p{n}.jpg,a cat {n}\n" for n in range(9)))
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_odd_names_of_files_are_a_sentence(command, odd, monkeypatch, capsys):
    writes = "--output" in command
    for name in NAMES:
        if command[0] == "init" and not name:
            continue  # the working directory
        monkeypatch.setattr(sys, "argv", ["cusa", *(name if word == "@" else word for word in command)])
        try:
            cli.main()
        except SystemExit as end:
            assert isinstance(end.code, str) and end.code.startswith("Error: "), (name, end.code)
            assert end.code.strip().endswith("."), (name, end.code)
        else:
            # A new file may have any name; what there is none of is no schema and no configuration.
            assert writes or command[-2:] == ["--print-command", "@"], (name, capsys.readouterr())
    assert {name: (odd / name).read_bytes() for name in FILES} == FILES
