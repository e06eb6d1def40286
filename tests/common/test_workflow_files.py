"""The workflow's files are found in the clone, and by their names in any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from cusa.common import workflow_files
from cusa.common.workflow_files import (
    STARTED,
    found_file,
    head_of_file,
    link_library,
    page_of_keys,
    workflow_command,
    workflow_folder,
)
from cusa.errors import ConfigurationError

ROOT = Path(__file__).parents[2]


def test_an_editable_installation_finds_the_files_of_its_clone():
    assert workflow_folder() == ROOT


def test_a_file_of_the_working_directory_goes_before_one_of_the_workflow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert found_file("config/coco.yaml") == ROOT / "config/coco.yaml"
    (tmp_path / "config").mkdir()
    (tmp_path / "config/coco.yaml").touch()
    assert found_file("config/coco.yaml") == Path("config/coco.yaml")


@pytest.mark.parametrize("name", ["config/none.yaml", "../outside.yaml", "/config/coco.yaml"])
def test_other_names_stay_as_they_are(tmp_path, monkeypatch, name):
    """So that a message about a missing file has the name that the user gave."""
    monkeypatch.chdir(tmp_path)
    assert found_file(name) == Path(name)


def test_a_path_that_leads_out_of_the_workflow_is_not_found_there(tmp_path, monkeypatch):
    (tmp_path / "clone").mkdir()
    (tmp_path / "outside.yaml").touch()
    (tmp_path / "deep/er").mkdir(parents=True)
    monkeypatch.setattr(workflow_files, "workflow_folder", lambda: tmp_path / "clone")
    monkeypatch.chdir(tmp_path / "deep/er")
    assert found_file("../outside.yaml") == Path("../outside.yaml")


def test_a_library_without_the_workflow_is_a_sentence(tmp_path, monkeypatch):
    workflow_folder.cache_clear()
    monkeypatch.setattr(workflow_files, "CLONE", tmp_path)
    with pytest.raises(ConfigurationError, match="is not a clone of this project, so the workflow's files are missing"):
        workflow_folder()
    monkeypatch.undo()
    assert workflow_folder() == ROOT


def test_sentences_name_a_page_of_keys_that_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert page_of_keys() == "config/README.md"
    monkeypatch.chdir(tmp_path)
    assert page_of_keys() == str(ROOT / "config/README.md")
    monkeypatch.setattr(workflow_files, "CLONE", tmp_path)
    assert page_of_keys() == "`cusa schema`"


def test_the_library_alone_in_a_folder_for_conda_environments(tmp_path):
    folder = link_library(tmp_path / "library")
    assert [path.name for path in folder.iterdir()] == ["cusa"]
    assert (folder / "cusa/cli.py").samefile(ROOT / "src/cusa/cli.py")
    (folder / "cusa").unlink()
    (folder / "cusa").symlink_to(tmp_path)  # of another installation
    assert (link_library(tmp_path / "library") / "cusa/cli.py").is_file()


def test_sentences_name_the_command_that_the_user_has_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(STARTED, raising=False)
    assert workflow_command("models") == "cusa run models"
    monkeypatch.setenv(STARTED, "snakemake --cores 2 -s clone/Snakefile")
    assert workflow_command("models") == "snakemake models"
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(STARTED, "cusa run --cores 2")
    assert workflow_command() == "cusa run"
    monkeypatch.delenv(STARTED)
    assert workflow_command("models") == "snakemake models"


def test_a_line_end_in_a_comment_stays_in_the_comment():
    first, *lines = head_of_file("Written for a\nb.csv.", "é").splitlines()
    assert first.startswith("# yaml-language-server")
    assert lines == [r"# Written for a\nb.csv.", "# é"]
