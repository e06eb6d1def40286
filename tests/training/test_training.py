"""The loop: schedules, optimiser groups, exact resume after kill -9, several processes, and why it stops."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import in_processes, mounted_tmpfs
from safetensors.torch import load_file

from cusa.common.files import read_json, sha256_of_file
from cusa.config.configuration import Configuration, load
from cusa.config.experiments import RunConfiguration
from cusa.config.training import Train
from cusa.errors import DataError, ResumeError, TrainingError
from cusa.layout import DatasetFolder
from cusa.losses import CUSALoss
from cusa.student.student import build_student
from cusa.training.loop import train
from cusa.training.optimisation import build_optimiser, learning_rate
from cusa.training.state import State
from cusa.training.step import TrainingTask

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "workflow/scripts/train.py"


def configured(tiny_configuration, experiment="cusa", **settings) -> RunConfiguration:
    mapping = {**tiny_configuration, "train": {**tiny_configuration["train"], **settings}}
    configuration: Configuration = load(mapping)
    return configuration.run(experiment, 23)


def command(run: RunConfiguration, data: Path, folder: Path, processes: int = 1) -> list[str]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    arguments = ["--data", str(data), "--run-folder", str(folder), "--configuration", run.model_dump_json()]
    return [*launcher, str(SCRIPT), *arguments, "--threads", str(processes)]


def test_cosine_by_epoch_is_the_published_one():
    settings = Train(epochs=30)
    for epoch in range(30):
        expected = 1e-6 + (1e-5 - 1e-6) / 2 * (1 + math.cos(math.pi * epoch / 30))
        assert learning_rate(settings, epoch, 17, 100) == pytest.approx(expected, rel=1e-12)


def test_cosine_by_step_with_warm_up():
    settings = Train(epochs=2, lr=1.0, min_lr=0.1, schedule="step", warmup_steps=4)
    rates = [learning_rate(settings, epoch, step, 10) for epoch in range(2) for step in range(10)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert all(later < earlier for earlier, later in pairwise(rates[4:]))
    assert rates[12] == pytest.approx(0.55)


def test_optimiser_groups_are_as_published(tiny_configuration):
    run = configured(tiny_configuration, weight_decay=0.5, tower_lr=0.0001)
    task = TrainingTask(build_student(run.student, run.losses), CUSALoss(run.losses), run.train)
    optimiser = build_optimiser(task, run.train)
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["weight_decay"] == (0.0 if parameter.ndim == 1 else 0.5), name
            assert group["scale"] == (pytest.approx(0.1) if "backbone.model" in name else 1.0), name
    members = {names[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]}
    assert "loss.temperatures.cross" in members
    assert "loss.temperatures.cross_teacher" not in members
    assert "student.backbone.model.logit_scale" not in members


def test_a_run_writes_its_three_files(tiny_configuration, shapes_data, tmp_path):
    run = configured(tiny_configuration, epochs=3)
    train(run, DatasetFolder(shapes_data), tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "best.safetensors",
        "history.parquet",
        "run.json",
        "state",
    ]
    about = read_json(tmp_path / "run/run.json")
    history = pq.read_table(tmp_path / "run/history.parquet").to_pylist()
    epochs = [row for row in history if row["kind"] == "epoch"]
    best = max(epochs, key=lambda row: row["r_mean"])
    assert about["selected_epoch"] == best["epoch"]
    assert about["selection_metrics"]["r_mean"] == best["r_mean"]
    assert "highest r_mean on val" in about["selected_because"]
    assert about["weights_sha256"] == sha256_of_file(tmp_path / "run/best.safetensors")
    assert about["configuration"] == run.model_dump(mode="json")
    steps = [row for row in history if row["kind"] == "step"]
    assert {row["epoch"] for row in steps} == {0, 1, 2}
    assert steps[0]["loss"] == pytest.approx(
        steps[0]["loss_contrastive"] + steps[0]["loss_cross"] + steps[0]["loss_uni"], rel=1e-5
    )
    assert steps[-1]["temperature_cross_teacher"] == 1.0


def test_training_learns(tiny_configuration, shapes_data, tmp_path):
    """By the mean of some steps: a step alone depends on the random weights, which other versions draw otherwise."""
    train(configured(tiny_configuration, epochs=40, lr=0.003), DatasetFolder(shapes_data), tmp_path / "run")
    history = pq.read_table(tmp_path / "run/history.parquet").to_pylist()
    losses = [row["loss_contrastive"] for row in history if row["kind"] == "step"]
    assert np.mean(losses[-8:]) < 0.6 * np.mean(losses[:4])


def test_a_seed_fixes_the_weights(tiny_configuration, shapes_data, tmp_path):
    run = configured(tiny_configuration)
    for name in ("one", "two"):
        train(run, DatasetFolder(shapes_data), tmp_path / name)
    assert sha256_of_file(tmp_path / "one/best.safetensors") == sha256_of_file(tmp_path / "two/best.safetensors")
    other = run.model_copy(update={"seed": 24})
    train(other, DatasetFolder(shapes_data), tmp_path / "three")
    assert sha256_of_file(tmp_path / "one/best.safetensors") != sha256_of_file(tmp_path / "three/best.safetensors")


def tower_student(tiny_vision, tiny_sentences) -> dict:
    return {
        "name": None,
        "towers": {"image": {"name": str(tiny_vision)}, "text": {"name": str(tiny_sentences)}, "dimension": 12},
    }


def test_kill_9_at_any_moment_then_the_same_command_ends_bit_identical(
    tiny_configuration, tiny_vision, tiny_sentences, shapes_data, tmp_path, caplog
):
    """BERT has dropout, so this needs the random state too. The state is saved after every step."""
    towers = {**tiny_configuration, "student": tower_student(tiny_vision, tiny_sentences)}
    run = configured(towers, epochs=6, save_every_minutes=1e-9)
    train(run, DatasetFolder(shapes_data), tmp_path / "whole")

    state = tmp_path / "killed/state/last.pt"
    kills = 0
    for moment in (0.0, 0.05, 0.15):
        process = subprocess.Popen(command(run, shapes_data, tmp_path / "killed"), stderr=subprocess.PIPE, text=True)
        before = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(moment)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 3
    with caplog.at_level("INFO"):
        train(run, DatasetFolder(shapes_data), tmp_path / "killed")
    assert "continuing at epoch" in caplog.text
    for name in ("best.safetensors",):
        assert sha256_of_file(tmp_path / "whole" / name) == sha256_of_file(tmp_path / "killed" / name)
    histories = [pq.read_table(tmp_path / name / "history.parquet").to_pylist() for name in ("whole", "killed")]
    kept = ("kind", "epoch", "step", "loss", "lr", "r_mean")
    assert [[row[key] for key in kept] for row in histories[0]] == [[row[key] for key in kept] for row in histories[1]]


def test_two_processes_share_each_epoch(tiny_configuration, shapes_data, tmp_path):
    run = configured(tiny_configuration, cpu_processes=2, epochs=2, batch_size=4)
    for name in ("one", "two"):
        in_processes(2, train, run, DatasetFolder(shapes_data), tmp_path / name, 2)
    assert sha256_of_file(tmp_path / "one/best.safetensors") == sha256_of_file(tmp_path / "two/best.safetensors")
    assert read_json(tmp_path / "one/run.json")["processes"] == 2
    history = pq.read_table(tmp_path / "one/history.parquet").to_pylist()
    assert max(row["step"] for row in history) == 64 // 8


def interrupted(run: RunConfiguration, data: Path, folder: Path, monkeypatch) -> None:
    """Leave a state behind, as an interruption after the first epoch would."""
    import cusa.training.loop

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cusa.training.loop.Trainer, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            train(run, DatasetFolder(data), folder)


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


def test_a_damaged_state_is_a_sentence(tiny_configuration, shapes_data, tmp_path, monkeypatch):
    interrupted(configured(tiny_configuration), shapes_data, tmp_path, monkeypatch)
    state = tmp_path / "state/last.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ResumeError, match="is damaged.*Delete the folder"):
        train(configured(tiny_configuration), DatasetFolder(shapes_data), tmp_path)


def test_a_second_copy_beside_a_live_one_is_refused(tiny_configuration, shapes_data, tmp_path):
    """It says who holds the run; the live one goes on undisturbed."""
    run = configured(tiny_configuration, epochs=100, save_every_minutes=1e-9)
    process = subprocess.Popen(command(run, shapes_data, tmp_path), stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "state/last.pt")
    with pytest.raises(ResumeError, match=rf"another process is training .*: process {process.pid} on \S+ \(it holds"):
        train(run, DatasetFolder(shapes_data), tmp_path)
    assert process.poll() is None
    process.kill()
    process.wait()


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def stopped_after_a_save(run: RunConfiguration, data: Path, folder: Path, processes: int) -> str:
    """Stop a training as Slurm does: SIGTERM to the launcher and all processes, twice. Returns what it said."""
    started = command(run, data, folder, processes)
    process = subprocess.Popen(started, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(folder / "state/last.pt")
    for _ in range(2):
        os.killpg(process.pid, signal.SIGTERM)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == (143 if processes == 1 else 1)
    assert "stopped by SIGTERM" in message
    return message


def saved(folder: Path) -> dict:
    return torch.load(folder / "state/last.pt", weights_only=True)["progress"]


def test_sigterm_saves_the_step_and_the_same_command_ends_bit_identical(
    tiny_configuration, shapes_data, tmp_path, caplog
):
    """Nothing but the end of an epoch and the signal saves here."""
    run = configured(tiny_configuration, epochs=40)
    stopped_after_a_save(run, shapes_data, tmp_path / "stopped", 1)
    state = saved(tmp_path / "stopped")
    assert 0 < state["epoch"] < 40
    for folder in ("stopped", "whole"):
        with caplog.at_level("INFO"):
            train(run, DatasetFolder(shapes_data), tmp_path / folder)
    assert f"continuing at epoch {state['epoch']}, step {state['step']}" in caplog.text
    assert sha256_of_file(tmp_path / "whole/best.safetensors") == sha256_of_file(tmp_path / "stopped/best.safetensors")


def test_two_processes_that_are_stopped_and_killed_end_bit_identical(tiny_configuration, shapes_data, tmp_path):
    """SIGTERM to all; then -9 to one of the two, then to torchrun: the others end as well, and no epoch is lost."""
    run = configured(tiny_configuration, cpu_processes=2, batch_size=4, epochs=30, gather="global")
    folder = tmp_path / "disturbed"
    stopped_after_a_save(run, shapes_data, folder, 2)
    for victim in ("rank", "torchrun"):
        before = saved(folder)["epoch"]
        process = subprocess.Popen(command(run, shapes_data, folder, 2), stderr=subprocess.DEVNULL)
        while saved(folder)["epoch"] == before and process.poll() is None:
            time.sleep(0.01)
        ranks = [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        os.kill(ranks[1] if victim == "rank" else process.pid, signal.SIGKILL)
        assert process.wait(60) != 0
        assert saved(folder)["epoch"] > before
    for place in (folder, tmp_path / "whole"):
        in_processes(2, train, run, DatasetFolder(shapes_data), place, 2)
    assert sha256_of_file(tmp_path / "whole/best.safetensors") == sha256_of_file(folder / "best.safetensors")
    assert read_json(folder / "run.json")["epochs"] == 30


def test_a_full_disk_is_a_sentence_and_the_state_before_stays(
    tiny_configuration, shapes_data, tmp_path, caplog, monkeypatch
):
    run, data, folder = configured(tiny_configuration, epochs=6), DatasetFolder(shapes_data), tmp_path / "small"
    train(run, data, tmp_path / "whole")
    write, written = State._write, []

    def filling(state: State, *arguments: object) -> None:
        """The disk is full when the third state is written."""
        written.append(1)
        if len(written) == 3:
            (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free - 4096))
        write(state, *arguments)

    monkeypatch.setattr(State, "_write", filling)
    with mounted_tmpfs(folder, "size=3m"):
        with pytest.raises(DataError, match=r"the state in .* needs .* GB free; free some space"):
            train(run, data, folder / "run")
        (folder / "filler").unlink()
        assert saved(folder / "run")["epoch"] == 2
        with caplog.at_level("INFO"):
            train(run, data, folder / "run")
        assert "continuing at epoch 2, step 0" in caplog.text
        assert sha256_of_file(folder / "run/best.safetensors") == sha256_of_file(tmp_path / "whole/best.safetensors")


def test_a_finished_training_whose_outputs_were_deleted_gives_them_back(
    tiny_configuration, shapes_data, tmp_path, caplog
):
    """A Snakemake that dies before it takes note of them deletes the outputs when it is started again."""
    from cusa.embeddings import embed

    run, data = configured(tiny_configuration), DatasetFolder(shapes_data)
    train(run, data, tmp_path)
    outputs = {name: sha256_of_file(tmp_path / name) for name in ("best.safetensors", "run.json", "history.parquet")}
    for name in outputs:
        (tmp_path / name).unlink()
    # How often something is said or saved is not what was trained.
    with caplog.at_level("INFO"):
        train(configured(tiny_configuration, log_every=7, save_every_minutes=1.0), data, tmp_path)
    assert "its files are back" in caplog.text
    assert {name: sha256_of_file(tmp_path / name) for name in outputs} == outputs
    # Another recipe is trained; and embedding, which comes after Snakemake took note, drops what was kept.
    train(configured(tiny_configuration, lr=0.002), data, tmp_path)
    assert sha256_of_file(tmp_path / "best.safetensors") != outputs["best.safetensors"]
    embed(tmp_path, data, "test", tmp_path / "embeddings/test")
    assert not (tmp_path / "state").exists()


def test_what_a_killed_holder_had_half_written_is_removed(tiny_configuration, shapes_data, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state/.last.pt.0123.partial").write_bytes(b"half")
    train(configured(tiny_configuration, epochs=1), DatasetFolder(shapes_data), tmp_path)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_loss_that_is_not_finite_stops_before_the_step(tiny_configuration, shapes_data, tmp_path, monkeypatch):
    original = CUSALoss.forward
    calls = []

    def poisoned(self, **features):
        calls.append(1)
        losses = original(self, **features)
        if len(calls) == 11:
            losses.cross = losses.cross * float("nan")
        return losses

    taken = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(CUSALoss, "forward", poisoned)
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a, **k: (taken.append(1), step(self, *a, **k))[1])
    with pytest.raises(
        TrainingError, match="not finite at epoch 1, step 2: contrastive .*, cross nan, uni .*temperatures"
    ):
        train(configured(tiny_configuration), DatasetFolder(shapes_data), tmp_path)
    assert len(taken) == 10


def test_long_epochs_say_where_they_are(tiny_configuration, shapes_data, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("cusa.training.history.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level("INFO"):
        train(configured(tiny_configuration, epochs=1), DatasetFolder(shapes_data), tmp_path)
    lines = [record.getMessage() for record in caplog.records if "to the end of the epoch" in record.getMessage()]
    assert len(lines) == 8
    assert re.match(r"epoch 1/1, step 3/8: loss \d\.\d{4}, \d+ pairs/s, \d+ s to the end", lines[2])


def test_early_stop_and_its_selection(tiny_configuration, shapes_data, tmp_path):
    run = configured(tiny_configuration, epochs=50, early_stop=2, lr=1e-9, min_lr=0.0)
    train(run, DatasetFolder(shapes_data), tmp_path)
    about = read_json(tmp_path / "run.json")
    assert about["epochs"] < 50
    assert about["epochs"] == about["selected_epoch"] + 1 + 2


def test_the_published_test_set_selection_says_what_it_is(tiny_configuration, shapes_data, tmp_path):
    train(configured(tiny_configuration, select_on="test_leak_as_published"), DatasetFolder(shapes_data), tmp_path)
    assert "which leaks the test set" in read_json(tmp_path / "run.json")["selected_because"]


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"gradient_clip": 0.1}, {"workers": 1}])
def test_options_of_the_recipe_run(tiny_configuration, shapes_data, tmp_path, settings):
    train(configured(tiny_configuration, epochs=1, **settings), DatasetFolder(shapes_data), tmp_path)
    weights = load_file(tmp_path / "best.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values() if tensor.is_floating_point())
    assert all(tensor.dtype == torch.float32 for tensor in weights.values() if tensor.is_floating_point())


def test_frozen_towers_train_from_their_cached_features(
    tiny_configuration, tiny_vision, tiny_sentences, shapes_data, tmp_path
):
    student = tower_student(tiny_vision, tiny_sentences)
    for side in ("image", "text"):
        student["towers"][side]["trainable"] = False
    run = configured({**tiny_configuration, "student": student})
    train(run, DatasetFolder(shapes_data), tmp_path)
    assert set(load_file(tmp_path / "best.safetensors")) >= {"student.backbone.image_projection.weight"}
    assert not any("tower" in name for name in load_file(tmp_path / "best.safetensors"))


def test_features_of_the_wrong_length_stop_before_training(tiny_configuration, shapes_data, tmp_path):
    data = Path(shutil.copytree(shapes_data, tmp_path / "data"))
    run = configured(tiny_configuration)
    path = data / "teachers/image" / run.teachers.image.folder / "train/features.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(DataError, match="has 31 rows, but the split has 32"):
        train(run, DatasetFolder(data), tmp_path / "run")


def test_features_of_other_weights_stop_before_training(tiny_configuration, tiny_vision, shapes_data, tmp_path):
    """The model's folder got other weights after the features were extracted."""
    data = Path(shutil.copytree(shapes_data, tmp_path / "data"))
    run = configured(tiny_configuration)
    meta = data / "teachers/image" / run.teachers.image.folder / "train/meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"weights_sha256": "0" * 64}))
    with pytest.raises(DataError, match="was extracted with other weights"):
        train(run, DatasetFolder(data), tmp_path / "run")


def test_the_script_says_one_sentence_and_fails(tiny_configuration, tmp_path):
    run = configured(tiny_configuration)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command(run, tmp_path, tmp_path / "run"), capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith("run `snakemake annotations` first.")
    assert "Traceback" not in done.stderr
