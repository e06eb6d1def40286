"""The finished training of a run that is kept while the run is trained again."""

from __future__ import annotations

from pathlib import Path

import pytest

from cusa.runs.previous import OUTPUTS, drop_previous, is_wanted_again, keep_previous


def finished(run: Path, content: str) -> None:
    run.mkdir(exist_ok=True)
    for name in OUTPUTS:
        (run / name).unlink(missing_ok=True)
        (run / name).write_text(content)


def kept(run: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (run / "previous").iterdir()}


def test_a_finished_run_is_kept_and_takes_no_space_of_its_own(tmp_path):
    finished(tmp_path / "run", "first")
    keep_previous(tmp_path / "run")
    assert kept(tmp_path / "run") == dict.fromkeys(OUTPUTS, "first")
    assert (tmp_path / "run/previous/best.safetensors").samefile(tmp_path / "run/best.safetensors")
    for name in OUTPUTS:
        (tmp_path / "run" / name).unlink()
    keep_previous(tmp_path / "run")  # nothing new is finished
    assert kept(tmp_path / "run") == dict.fromkeys(OUTPUTS, "first")
    finished(tmp_path / "run", "second")
    keep_previous(tmp_path / "run")
    assert kept(tmp_path / "run") == dict.fromkeys(OUTPUTS, "second")
    drop_previous(tmp_path / "run")
    drop_previous(tmp_path / "run")
    assert not (tmp_path / "run/previous").exists()


def test_the_weights_of_a_run_of_which_a_file_is_missing_are_kept_unless_a_whole_run_is(tmp_path):
    finished(tmp_path / "run", "first")
    (tmp_path / "run/history.parquet").unlink()
    keep_previous(tmp_path / "run")
    assert kept(tmp_path / "run").keys() == {"best.safetensors", "run.json"}
    finished(tmp_path / "run", "second")
    keep_previous(tmp_path / "run")
    finished(tmp_path / "run", "third")
    (tmp_path / "run/run.json").unlink()
    keep_previous(tmp_path / "run")
    assert kept(tmp_path / "run") == dict.fromkeys(OUTPUTS, "second")
    keep_previous(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_run_that_is_asked_for_again_says_so_until_a_new_one_is_whole(tmp_path):
    finished(tmp_path / "run", "first")
    keep_previous(tmp_path / "run")
    assert not is_wanted_again(tmp_path / "run")
    keep_previous(tmp_path / "run", again=True)
    assert is_wanted_again(tmp_path / "run")
    for name in OUTPUTS:
        (tmp_path / "run" / name).unlink()
    keep_previous(tmp_path / "run")  # the training failed, and the same is asked for by its missing files
    assert is_wanted_again(tmp_path / "run")


def test_where_there_are_no_hard_links_the_files_are_copied(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    finished(tmp_path / "run", "first")
    keep_previous(tmp_path / "run")
    assert kept(tmp_path / "run") == dict.fromkeys(OUTPUTS, "first")
    assert not (tmp_path / "run/previous/run.json").samefile(tmp_path / "run/run.json")


@pytest.mark.parametrize("again", [False, True])
def test_a_training_restores_what_is_kept_unless_it_is_to_train_anew(
    tiny_configuration, shapes_data, tmp_path, caplog, again
):
    from cusa.config import load
    from cusa.layout import DatasetFolder
    from cusa.training.loop import train

    configuration = load({**tiny_configuration, "train": {**tiny_configuration["train"], "epochs": 1}}).run("cusa", 23)
    run = tmp_path / "run"
    with caplog.at_level("INFO"):
        train(configuration, DatasetFolder(shapes_data), run)
        record = (run / "run.json").read_text()
        keep_previous(run, again)
        for name in OUTPUTS:
            (run / name).unlink()
        train(configuration, DatasetFolder(shapes_data), run)
    assert ("its files are restored" in caplog.text) == (not again)
    assert ((run / "run.json").read_text() == record) == (not again)
    assert (run / "previous").exists() == (not again)


def test_a_training_says_what_has_changed_since_the_run_that_was_finished(
    tiny_configuration, shapes_data, tmp_path, caplog
):
    from cusa.config import load
    from cusa.layout import DatasetFolder
    from cusa.training.loop import train

    for epochs in (1, 2):
        mapping = {**tiny_configuration, "train": {**tiny_configuration["train"], "epochs": epochs}}
        with caplog.at_level("INFO"):
            train(load(mapping).run("cusa", 23), DatasetFolder(shapes_data), tmp_path / "run")
        keep_previous(tmp_path / "run")
    assert "changed since then: train.epochs was 1, is 2" in caplog.text


def test_a_damaged_record_that_is_kept_stops_no_training(tiny_configuration, shapes_data, tmp_path, caplog):
    from cusa.config import load
    from cusa.layout import DatasetFolder
    from cusa.training.loop import train

    run = tmp_path / "run"
    finished(run, "cut off")
    keep_previous(run)
    for name in OUTPUTS:
        (run / name).unlink()
    mapping = {**tiny_configuration, "train": {**tiny_configuration["train"], "epochs": 1}}
    train(load(mapping).run("cusa", 23), DatasetFolder(shapes_data), run)
    assert all((run / name).is_file() for name in OUTPUTS)
    assert "previous/run.json is not valid JSON" in caplog.text
