"""Some steps that are measured: on the data of a run, and on synthetic pairs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from conftest import in_processes
from training_runs import configured, tower_student

from cusa.config.experiments import RunConfiguration
from cusa.config.section import validate
from cusa.errors import ConfigurationError
from cusa.layout import DatasetFolder
from cusa.training.distributed import Group, join, leave
from cusa.training.profiling import missing_data, profile_steps
from cusa.training.timeline import PARTS, Timeline


def take(run: RunConfiguration, folder: Path, **options):
    return profile_steps(run, DatasetFolder(folder), Group(), steps=4, **options)


def test_the_parts_are_the_time_of_a_step(tiny_configuration, shapes_data):
    found = take(configured(tiny_configuration), shapes_data)
    assert (found.steps, found.pairs, found.device, found.synthetic) == (4, 8, "cpu", None)
    assert tuple(found.parts) == PARTS
    assert found.parts["gather"] == 0.0
    spent = {part: seconds for part, seconds in found.parts.items() if part != "gather"}
    assert all(seconds > 0 for seconds in spent.values()), spent
    pairs_per_second = found.speeds["samples_per_second"]
    assert sum(found.parts.values()) == pytest.approx(8 / pairs_per_second, rel=0.02)
    assert found.seconds == pytest.approx(8 / pairs_per_second)
    assert found.speeds["model_flops_per_second"] > 0
    assert found.speeds["data_wait_share"] < 1
    assert (found.device_busy, found.gpu_memory_gib, found.speeds["mfu"]) == (None, None, None)


def test_a_slow_part_is_seen_where_it_is(tiny_configuration, shapes_data, monkeypatch):
    """Forward and backward: the image tower sleeps in both."""

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, features):
            time.sleep(0.03)
            return features.clone()

        @staticmethod
        def backward(ctx, gradient):
            time.sleep(0.06)
            return gradient

    from cusa.student.dual_encoder import DualEncoder

    original = DualEncoder.image_features
    monkeypatch.setattr(DualEncoder, "image_features", lambda self, images: Slow.apply(original(self, images)))
    found = take(configured(tiny_configuration), shapes_data)
    assert 0.09 <= found.parts["image tower"] < 0.2
    assert found.parts["text tower"] < 0.05
    assert found.parts["heads and loss"] < 0.05


def test_one_slow_step_counts_in_the_seconds_as_in_the_pairs_per_second(tiny_configuration, shapes_data, monkeypatch):
    """A median would be that of the other steps, beside a speed that is of all."""
    from cusa.training.loop import Trainer

    taken, original = [], Trainer.train_step

    def slow_once(self, *arguments):
        taken.append(None)
        time.sleep(0.5 if len(taken) == 5 else 0)
        return original(self, *arguments)

    monkeypatch.setattr(Trainer, "train_step", slow_once)
    found = take(configured(tiny_configuration), shapes_data)
    assert found.seconds >= 0.5 / 4
    assert found.seconds * found.speeds["samples_per_second"] == pytest.approx(8)


def test_slow_data_are_seen(tiny_configuration, shapes_data, monkeypatch):
    from cusa.training.batches import TrainingPairs

    original = TrainingPairs.__getitem__
    monkeypatch.setattr(TrainingPairs, "__getitem__", lambda self, pairs: (time.sleep(0.2), original(self, pairs))[1])
    found = take(configured(tiny_configuration), shapes_data)
    assert found.parts["data"] > 0.2
    assert found.speeds["data_wait_share"] > 0.5


@pytest.mark.parametrize("settings", [{"chunk_size": 3}, {"accumulate": 2}, {"ema_decay": 0.9}])
def test_every_way_of_training_has_its_parts(tiny_configuration, shapes_data, settings):
    found = take(configured(tiny_configuration, **settings), shapes_data)
    assert min(found.parts[part] for part in ("image tower", "text tower", "heads and loss", "optimiser")) > 0


def test_a_run_folder_that_exists_stays_as_it_is(tiny_configuration, shapes_data, tmp_path):
    before = sorted(path.name for path in shapes_data.rglob("*"))
    take(configured(tiny_configuration), shapes_data)
    assert sorted(path.name for path in shapes_data.rglob("*")) == before


def test_synthetic_pairs_have_the_shapes_of_the_real_ones(tiny_configuration, tmp_path):
    """Nothing of the data set exists."""
    found = take(configured(tiny_configuration), tmp_path / "nothing", synthetic="a test says so")
    assert found.synthetic == "a test says so"
    assert found.speeds["model_flops_per_second"] > 0
    assert not (tmp_path / "nothing").exists()


def test_frozen_towers_have_synthetic_features(tiny_configuration, tiny_vision, tiny_sentences, tmp_path):
    student = tower_student(tiny_vision, tiny_sentences)
    for side in ("image", "text"):
        student["towers"][side]["trainable"] = False
    found = take(configured(tiny_configuration | {"student": student}), tmp_path, synthetic="a test says so")
    assert found.parts["heads and loss"] > 0


def test_what_is_missing_is_named(tiny_configuration, shapes_data, tmp_path):
    run = configured(tiny_configuration)
    assert missing_data(run, DatasetFolder(shapes_data)) is None
    assert missing_data(run, DatasetFolder(tmp_path)) == str(tmp_path / "annotations/images.parquet")


def test_a_trace_is_json_for_a_browser(tiny_configuration, shapes_data, tmp_path):
    take(configured(tiny_configuration), shapes_data, trace=tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert any("addmm" in event.get("name", "") for event in events)


def test_no_steps_are_a_sentence(tiny_configuration, shapes_data):
    with pytest.raises(ConfigurationError, match="--steps is 0; give 1 or more"):
        profile_steps(configured(tiny_configuration), DatasetFolder(shapes_data), Group(), steps=0)


def _profile_in_a_group(mapping: str, data: Path, output: Path) -> None:
    group = join(gpu=False)
    found = profile_steps(validate(RunConfiguration, json.loads(mapping)), DatasetFolder(data), group, steps=3)
    (output / f"{group.rank}.json").write_text(json.dumps([found.processes, found.pairs, found.parts["gather"]]))
    leave()


def test_several_processes_have_a_gather(tiny_configuration, shapes_data, tmp_path):
    run = configured(tiny_configuration, cpu_processes=2)
    in_processes(2, _profile_in_a_group, run.model_dump_json(), shapes_data, tmp_path)
    for rank in range(2):
        processes, pairs, gather = json.loads((tmp_path / f"{rank}.json").read_text())
        assert (processes, pairs) == (2, 16)
        assert gather > 0


def test_time_since_a_touch_goes_to_another_part():
    timeline = Timeline(torch.device("cpu"))
    timeline.mark("image tower")
    timeline.touch()
    time.sleep(0.05)
    timeline.mark_since_touch("gather")
    timeline.mark("host")
    found = timeline.seconds()
    assert found["gather"] >= 0.05 > found["image tower"]
    timeline.mark_since_touch("data")  # nothing was touched since
    assert timeline.seconds()["data"] == 0.0
