"""Saving in the background, and what may be restored; interrupted trainings are in test_interruption.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import mounted_tmpfs
from training_runs import configured, interrupted, saved, weights_sha256

from cusa.common.files import read_json, sha256_of_file
from cusa.config.configuration import load
from cusa.errors import DataError, ResumeError
from cusa.layout import DatasetFolder
from cusa.losses import CUSALoss
from cusa.student.student import build_student
from cusa.training.distributed import Group
from cusa.training.interruption import lock_run
from cusa.training.loop import train
from cusa.training.optimisation import build_optimiser
from cusa.training.state import Progress, State
from cusa.training.step import TrainingTask


@pytest.fixture
def parts(tiny_configuration):
    """Configuration, task and optimiser after one step."""
    run = load(tiny_configuration).run("cusa", 23)
    task = TrainingTask(build_student(run.student, run.losses), CUSALoss(run.losses), run.train)
    optimiser = build_optimiser(task, run.train)
    for parameter in task.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return run, task, optimiser


def weights(task: TrainingTask) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in task.state_dict().items()}


@pytest.mark.parametrize("reserved", [False, True])
def test_the_file_has_the_weights_of_the_moment_of_saving(parts, tmp_path, reserved):
    """The next step may start at once: the file does not contain its changes."""
    run, task, optimiser = parts
    lock_run(tmp_path).release()
    state = State(tmp_path, run, {"data": "1"}, Group())
    if reserved:
        state.reserve_memory(task, optimiser)
    for step in (1, 2):  # the second save uses the memory of the first
        before = weights(task)
        state.save(task, optimiser, Progress(step=step), [{"kind": "step"}])
        optimiser.step()
        state.wait()
        written = torch.load(state.path, weights_only=True)
        assert all(torch.equal(written["task"][name], before[name]) for name in before)
        assert written["progress"]["step"] == step
    assert any(not torch.equal(task.state_dict()[name], before[name]) for name in before)
    progress, history = state.restore(task, optimiser)
    assert (progress.step, history) == (2, [{"kind": "step"}])
    assert all(torch.equal(task.state_dict()[name], before[name]) for name in before)
    state.close()


def test_memory_is_reserved_once(parts, tmp_path):
    run, task, optimiser = parts
    lock_run(tmp_path).release()
    state = State(tmp_path, run, {}, Group())
    state.reserve_memory(task, optimiser)
    state.wait()
    copies = {name: copy.data_ptr() for name, copy in state._copies.items()}
    state.reserve_memory(task, optimiser)
    assert state._writing is None
    state.save(task, optimiser, Progress(), [])
    state.close()
    assert {name: copy.data_ptr() for name, copy in state._copies.items()} == copies


def test_a_failed_write_is_reported_once(parts, tmp_path):
    run, task, optimiser = parts
    with mounted_tmpfs(tmp_path / "small", "size=64k") as folder:
        lock_run(folder).release()
        state = State(folder, run, {}, Group())
        state.save(task, optimiser, Progress(), [])
        with pytest.raises(DataError, match=r"the state in .* needs 0.34 MB, but .* free; free some space"):
            state.wait()
        state.wait()  # reported once
        state.close()
        assert not state.path.exists()


def test_only_the_weights_of_the_best_epoch_are_kept(parts, tmp_path):
    run, task, optimiser = parts
    lock_run(tmp_path).release()
    state = State(tmp_path, run, {}, Group())
    for epoch in (0, 3):
        state.save(task, optimiser, Progress(best_epoch=epoch), [], best=True)
    state.close()
    assert [path.name for path in (tmp_path / "state").glob("best-*")] == ["best-epoch3.safetensors"]


def test_a_state_of_another_configuration_is_refused(tiny_configuration, shapes_data, tmp_path, monkeypatch):
    interrupted(configured(tiny_configuration), shapes_data, tmp_path, monkeypatch)
    changed = configured(tiny_configuration, lr=0.5)
    with pytest.raises(ResumeError, match=r"another configuration: train.lr was 0.001, is 0.5. Restore the old values"):
        train(changed, DatasetFolder(shapes_data), tmp_path)
    assert (tmp_path / "state/last.pt").exists()
    train(configured(tiny_configuration), DatasetFolder(shapes_data), tmp_path)


def test_a_state_of_other_data_is_refused(tiny_configuration, shapes_data, tmp_path, monkeypatch):
    from cusa.teachers.store import write_features

    data = Path(shutil.copytree(shapes_data, tmp_path / "data"))
    run = configured(tiny_configuration)
    interrupted(run, data, tmp_path / "run", monkeypatch)
    features = data / "teachers/text" / run.teachers.text.folder / "train"
    meta = read_json(features / "meta.json")
    write_features(features, meta["rows"], meta["d"], "float16", [np.ones((meta["rows"], meta["d"]))], meta)
    with pytest.raises(ResumeError, match=r"other data: teachers/text/\S+/train changed since"):
        train(run, DatasetFolder(data), tmp_path / "run")


def test_a_state_of_another_number_of_processes_or_release_is_refused(parts, tmp_path):
    run, task, optimiser = parts
    lock_run(tmp_path).release()
    state = State(tmp_path, run, {}, Group())
    state.save(task, optimiser, Progress(), [])
    state.close()
    with pytest.raises(ResumeError, match=r"saved by 1 processes, now there are 2\. Start as many as before"):
        State(tmp_path, run, {}, Group(2, 0)).restore(task, optimiser)
    content = torch.load(state.path, weights_only=True)
    torch.save(content | {"version": 1}, state.path)
    with pytest.raises(ResumeError, match=r"has the version 1, expected 2\. Continue with the release that wrote it"):
        state.restore(task, optimiser)


def test_a_damaged_state_is_refused(tiny_configuration, shapes_data, tmp_path, monkeypatch):
    interrupted(configured(tiny_configuration), shapes_data, tmp_path, monkeypatch)
    state = tmp_path / "state/last.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ResumeError, match="is damaged.*Delete the folder"):
        train(configured(tiny_configuration), DatasetFolder(shapes_data), tmp_path)


def test_a_full_disk_is_reported_and_the_state_before_stays(
    tiny_configuration, shapes_data, tmp_path, caplog, monkeypatch
):
    run, data, folder = configured(tiny_configuration, epochs=6), DatasetFolder(shapes_data), tmp_path / "small"
    train(run, data, tmp_path / "undisturbed")
    write, written = State._write, []

    def filling(state: State, *arguments: object) -> None:
        """The disk is full when the third state is written."""
        written.append(1)
        if len(written) == 3:
            (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free - 4096))
        write(state, *arguments)

    monkeypatch.setattr(State, "_write", filling)
    with mounted_tmpfs(folder, "size=3m"):
        with pytest.raises(DataError, match=r"the state in .* needs .* MB free; free some space"):
            train(run, data, folder / "run")
        (folder / "filler").unlink()
        assert saved(folder / "run")["epoch"] == 2
        with caplog.at_level("INFO"):
            train(run, data, folder / "run")
        assert "continuing at epoch 3, step 1" in caplog.text
        assert weights_sha256(folder / "run") == sha256_of_file(tmp_path / "undisturbed/best.safetensors")


def test_a_finished_training_restores_its_deleted_outputs(tiny_configuration, shapes_data, tmp_path, caplog):
    """If Snakemake is killed before it records the outputs, it deletes them when it is started again."""
    from cusa.embeddings import embed

    run, data = configured(tiny_configuration), DatasetFolder(shapes_data)
    train(run, data, tmp_path)
    outputs = {name: sha256_of_file(tmp_path / name) for name in ("best.safetensors", "run.json", "history.parquet")}
    for name in outputs:
        (tmp_path / name).unlink()
    # How often the training logs and saves does not change what it learns.
    with caplog.at_level("INFO"):
        train(configured(tiny_configuration, log_every=7, save_every_minutes=1.0), data, tmp_path)
    assert "its files are restored" in caplog.text
    assert {name: sha256_of_file(tmp_path / name) for name in outputs} == outputs
    # Another recipe is trained. Embedding, which follows when the outputs are recorded, removes the kept files.
    train(configured(tiny_configuration, lr=0.002), data, tmp_path)
    assert weights_sha256(tmp_path) != outputs["best.safetensors"]
    embed(tmp_path, data, "test", tmp_path / "embeddings/test")
    assert not (tmp_path / "state").exists()
