"""Trainings of a part of a student (`student.adapt`): what they save, how they continue, and how their runs load."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import in_processes
from model_files import changed_weights
from safetensors import safe_open
from training_runs import command, configured, interrupted, tower_student, weights_sha256

import cusa
from cusa.common.files import read_json
from cusa.errors import DataError, ResumeError, StoppedError
from cusa.layout import DatasetFolder
from cusa.runs.weights import load_student
from cusa.training.interruption import Stop
from cusa.training.loop import Trainer, train

LORA = {"rank": 2, "alpha": 8.0, "dropout": 0.25}
ADAPTERS = {"image": {"lora": LORA}, "text": {"lora": LORA, "names": ["final_layer_norm"]}}
LAST_LAYERS = {"image": {"last_layers": 1}, "text": {"frozen": ["token_embedding"]}}
CAPTIONS = ["a small red circle", "large, blue and a cross"]


def of_part(tiny_configuration, adapt, **settings):
    """A run of the tiny CLIP that trains what `adapt` says."""
    student = tiny_configuration["student"] | {"adapt": adapt}
    return configured({**tiny_configuration, "student": student}, **settings)


def tensors(path: Path) -> tuple[set[str], dict[str, str]]:
    """The names in a safetensors file, and its metadata."""
    with safe_open(path, framework="pt") as file:
        return set(file.keys()), file.metadata()


@pytest.fixture(scope="module")
def adapted_run(tiny_configuration, shapes_data, tmp_path_factory):
    """A finished run with adapters on both sides. Read it only."""
    data = DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path_factory.mktemp("adapted") / "shapes")))
    folder = data.run("cusa", 23)
    train(of_part(tiny_configuration, ADAPTERS), data, folder)
    return folder


def test_only_what_is_trained_is_in_the_state_and_in_the_weights(
    tiny_configuration, shapes_data, tmp_path, monkeypatch
):
    run = of_part(tiny_configuration, ADAPTERS)
    interrupted(run, shapes_data, tmp_path, monkeypatch)
    state = torch.load(tmp_path / "state/last.pt", weights_only=True)
    base = {name for name in state["task"] if name.startswith("student.backbone.") and ".lora_" not in name}
    assert {name.removeprefix("student.backbone.model.text_model.final_layer_norm.") for name in base} == {
        "weight",
        "bias",
    }
    moments = sum(len(group["params"]) for group in state["optimiser"]["param_groups"])
    learned = [name for name in state["task"] if not name.startswith("loss.")]
    assert len(learned) <= moments <= len(state["task"])
    train(run, DatasetFolder(shapes_data), tmp_path)
    names, metadata = tensors(tmp_path / "best.safetensors")
    assert names == set(state["task"])
    record = read_json(tmp_path / "run.json")
    assert metadata["base_sha256"] == record["data"]["frozen weights of the student"]
    assert record["trained_parameters"] == sum(state["task"][name].numel() for name in learned)
    assert record["configuration"]["student"]["adapt"]["image"]["lora"]["rank"] == 2


@pytest.mark.parametrize("adapt", [ADAPTERS, LAST_LAYERS], ids=["adapters", "last_layers"])
def test_a_stopped_training_ends_bit_identical(tiny_configuration, shapes_data, tmp_path, monkeypatch, adapt):
    """The adapters have dropout, so that the random state matters too."""
    run, data = of_part(tiny_configuration, adapt), DatasetFolder(shapes_data)
    train(run, data, tmp_path / "undisturbed")
    train_step = Trainer.train_step

    def stopping(trainer: Trainer, step: int, *arguments: object) -> object:
        if (trainer.progress.epoch, step) == (1, 2):
            signal.raise_signal(signal.SIGTERM)
        return train_step(trainer, step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopping)
        with pytest.raises(StoppedError):
            train(run, data, tmp_path / "stopped")
    train(run, data, tmp_path / "stopped")
    assert weights_sha256(tmp_path / "undisturbed") == weights_sha256(tmp_path / "stopped")


@pytest.mark.slow
@pytest.mark.parametrize("student", ["clip", "towers"])
def test_a_killed_training_ends_bit_identical(
    tiny_configuration, tiny_vision, tiny_sentences, shapes_data, tmp_path, student
):
    """kill -9 after a save, at three moments; the state is saved after every step."""
    section = {"clip": tiny_configuration["student"], "towers": tower_student(tiny_vision, tiny_sentences)}[student]
    adapt = {"image": {"lora": LORA}, "text": {"lora": LORA}}
    run = configured({**tiny_configuration, "student": section | {"adapt": adapt}}, epochs=6, save_every_minutes=1e-9)
    train(run, DatasetFolder(shapes_data), tmp_path / "undisturbed")
    state, kills = tmp_path / "killed/state/last.pt", 0
    for moment in (0.0, 0.05, 0.1):
        process = subprocess.Popen(command(run, shapes_data, tmp_path / "killed"), stderr=subprocess.DEVNULL)
        before = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(moment)
        if process.poll() is None:
            process.kill()
            kills += 1
        process.wait()
    assert kills == 3
    train(run, DatasetFolder(shapes_data), tmp_path / "killed")
    assert weights_sha256(tmp_path / "undisturbed") == weights_sha256(tmp_path / "killed")


@pytest.mark.slow
def test_two_processes_train_adapters(tiny_configuration, shapes_data, tmp_path):
    run = of_part(tiny_configuration, ADAPTERS, cpu_processes=2, batch_size=4, gather="global")
    for folder in ("first", "second"):
        in_processes(2, train, run, DatasetFolder(shapes_data), tmp_path / folder, 2)
    assert weights_sha256(tmp_path / "first") == weights_sha256(tmp_path / "second")
    assert load_student(tmp_path / "first")[0].base is None


def test_a_run_loads_merged_and_embeds_as_its_training_did(adapted_run, tiny_configuration, monkeypatch, tmp_path):
    """Against the student of a training that continues from the same state, whose adapters are not merged."""
    run, data = of_part(tiny_configuration, ADAPTERS), DatasetFolder.of_run(adapted_run)
    found: list[np.ndarray] = []
    validate = Trainer.validate

    def validating(trainer: Trainer) -> dict[str, float]:
        metrics = validate(trainer)
        inputs = trainer.data.validation.texts
        assert inputs is not None
        with torch.inference_mode():
            tokens = inputs[np.arange(4)]
            found.append(trainer.task.student.encode_text(tokens, "cross").numpy())
        return metrics

    monkeypatch.setattr(Trainer, "validate", validating)
    train(run, data, tmp_path)
    student, configuration = load_student(tmp_path)
    assert configuration.student.adapt is None
    assert not any("lora" in name or "base_layer" in name for name in student.state_dict())
    best = read_json(tmp_path / "run.json")["selected_epoch"]
    with torch.inference_mode():
        inputs = Trainer(run, data, tmp_path / "other", group(), Stop()).data.validation.texts
        merged = student.encode_text(inputs[np.arange(4)], "cross").numpy()
    assert np.allclose(merged, found[best], atol=1e-5)
    assert weights_sha256(tmp_path) == weights_sha256(adapted_run)


def group():
    from cusa.training.distributed import Group

    return Group()


@pytest.mark.parametrize("to", ["safetensors", pytest.param("onnx", marks=pytest.mark.slow)])
def test_exports_hold_the_merged_model(adapted_run, tmp_path, to):
    from cusa.export.exporting import ExportOptions, export

    export(adapted_run, to, tmp_path / "out", ExportOptions())
    model, exported = cusa.load(adapted_run, device="cpu"), cusa.load(tmp_path / "out", device="cpu")
    assert np.allclose(exported.encode_text(CAPTIONS), model.encode_text(CAPTIONS), atol=1e-5)
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.allclose(exported.encode_image(picture), model.encode_image(picture), atol=1e-5)


def test_another_base_is_refused_on_loading_and_on_continuing(
    tiny_configuration, tiny_clip, shapes_data, tmp_path, monkeypatch
):
    clip = Path(shutil.copytree(tiny_clip, tmp_path / "clip"))
    run = of_part({**tiny_configuration, "student": {"name": str(clip), "towers": None}}, ADAPTERS)
    interrupted(run, shapes_data, tmp_path / "run", monkeypatch)
    train(run, DatasetFolder(shapes_data), tmp_path / "finished")
    other = changed_weights(
        tiny_clip, tmp_path / "other", lambda state: {name: 1.01 * tensor for name, tensor in state.items()}
    )
    shutil.copy(other / "model.safetensors", clip / "model.safetensors")
    with pytest.raises(ResumeError, match="other data: frozen weights of the student changed since. Restore the old"):
        train(run, DatasetFolder(shapes_data), tmp_path / "run")
    with pytest.raises(DataError, match=r"frozen weights whose sha256 is \w{64}, but those of the student .* another"):
        load_student(tmp_path / "finished")


def test_adapters_of_one_rank_do_not_load_as_another(adapted_run, tmp_path):
    folder = Path(shutil.copytree(adapted_run, tmp_path / "run"))
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"rank": 2', '"rank": 3'))
    with pytest.raises(DataError, match="does not fit the student that .*run.json describes .*lora_A"):
        load_student(folder)
