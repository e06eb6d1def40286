"""`cusa.load` tells by its files what a folder holds; every other folder is a sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cusa
from cusa.errors import DataError
from cusa.model.loading import kind_of


def test_each_kind_of_folder_is_told_by_its_files(tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    assert kind_of(tmp_path) == "sentence-transformers"
    (tmp_path / "run.json").write_text("{}")
    assert kind_of(tmp_path) == "run"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "missing does not exist; expected a run folder, .*run.json .*run `snakemake models` first"),
        ("file", "file is a file; expected a run folder"),
        (
            "empty",
            "empty holds no model that cusa knows .*; expected .* or a folder that `cusa export` wrote, .*cusa.json",
        ),
    ],
)
def test_other_folders_are_a_sentence(tmp_path, name, reason):
    (tmp_path / "file").write_text("no model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=reason):
        cusa.load(tmp_path / name)


def test_a_cusa_json_that_lacks_a_key_or_has_another_format_is_a_sentence(tmp_path):
    (tmp_path / "cusa.json").write_text('{"format": "tensorflow"}')
    with pytest.raises(DataError, match=r"cusa.json does not describe an exported model: key `format`.*export the run"):
        cusa.load(tmp_path)


def test_the_interface_and_the_loading_import_no_torch():
    code = (
        "import sys, cusa.model, cusa.model.interface, cusa.model.loading, cusa.model.exported\n"
        "import cusa.model.onnx_folder\n"
        "print({'torch', 'transformers', 'onnxruntime'} & set(sys.modules) or 'none')\n"
        "print(cusa.model.Model.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["none", "Model True"]


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match=r"module cusa.model has no attribute Network"):
        cusa.model.Network  # noqa: B018
