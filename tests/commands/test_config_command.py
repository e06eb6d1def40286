"""`cusa config` prints the whole configuration with the file of each value; `cusa schema` writes what editors read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cusa.config.configuration import load
from cusa.config.files import layers, read_files
from cusa.config.resolved import resolved_lines

ROOT = Path(__file__).parents[2]
CUSA = Path(sys.executable).parent / "cusa"
DEFAULT = str(ROOT / "config/config.yaml")


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text("train: {epochs: 7}\ndataset: {groups: [flags]}\nexperiments: {csa: null}\n")
    return path


def printed(*files: str) -> str:
    return "\n".join(resolved_lines(load(read_files(files)), layers(files)))


def origin(text: str, line: str) -> str:
    return re.search(rf"^ *{re.escape(line)} +# (.*)$", text, flags=re.M)[1]


def test_each_value_has_the_file_that_it_comes_from(mine):
    text = printed("mine.yaml")
    assert origin(text, "epochs: 7") == "mine.yaml"
    assert origin(text, "groups: [flags]") == "mine.yaml"
    assert origin(text, "csa: null") == "mine.yaml"
    assert origin(text, "lr: 0.002") == DEFAULT
    assert origin(text, "gather: local") == "default"
    assert origin(text, "augmentation: null") == "default", "also keys that later releases added"


def test_a_later_file_wins(mine, tmp_path):
    (tmp_path / "more.yaml").write_text("train: {epochs: 9}")
    text = printed("mine.yaml", "more.yaml")
    assert origin(text, "epochs: 9") == "more.yaml"
    assert "epochs: 7" not in text


@pytest.mark.parametrize("overlay", [[], ["config/coco.yaml"], ["config/flickr30k.yaml"]], ids=str)
def test_what_is_printed_is_a_configuration_with_the_same_meaning(mine, overlay):
    expected = load(read_files(overlay))
    assert load(yaml.safe_load(printed(*overlay))) == expected


def test_the_command_takes_values_as_snakemake_does(mine):
    command = [CUSA, "config", "mine.yaml", "--config", "train={epochs: 3}"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert origin(text, "epochs: 3") == "--config"
    wrong = subprocess.run([*command, "sead=1"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert wrong.stderr == (
        f"Error: Configuration key `sead` is unknown; did you mean `seeds`? {ROOT / 'config/README.md'} has all keys.\n"
    )


def test_the_schema_is_printed_or_written(tmp_path):
    done = subprocess.run([CUSA, "schema"], capture_output=True, text=True, check=True)
    assert "train" in json.loads(done.stdout)["properties"]
    subprocess.run([CUSA, "schema", "--output", "schema.json"], check=True, cwd=tmp_path)
    with (tmp_path / "redirected.json").open("w") as stream:
        subprocess.run([CUSA, "schema", "--output", "/dev/fd/1"], check=True, stdout=stream)
    assert (tmp_path / "redirected.json").read_text() == done.stdout
    assert (tmp_path / "schema.json").read_text() == done.stdout == (ROOT / "config/schema.json").read_text()
