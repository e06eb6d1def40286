"""Which tokens and pixels a configuration has made ready for its trainings."""

from __future__ import annotations

import pytest

from cusa.config import load
from cusa.config.student_inputs import WHOLE_PICTURES
from cusa.errors import ConfigurationError
from cusa.plan import Plan, StudentInputsPlan
from cusa.plan.recorded_jobs import RecordedJobs

MAPPED = {"shorter_side": 32, "pixels": "memory-map"}


def plan(mapping: dict, **changes: object) -> StudentInputsPlan:
    return StudentInputsPlan(Plan(load({**mapping, **changes})))


def folders(files: list[str]) -> list[str]:
    """The kind and the split of each file."""
    return sorted(f"{path.split('/')[2]} of {path.split('/')[-2]}" for path in files)


def test_tokens_are_made_once_for_all_experiments_of_a_student(tiny_configuration):
    found = plan(tiny_configuration)
    assert folders(found.files("cusa")) == ["tokens of train"]
    assert found.files("cusa") == found.files("contrastive")
    assert list(found.students_of_tokens) == [found.files("cusa")[0].split("/")[3]]
    assert not found.students_of_pixels


def test_pixels_are_made_of_every_split_if_they_are_asked_for(tiny_configuration):
    found = plan(tiny_configuration, shards=MAPPED)
    expected = ["pixels of test", "pixels of train", "pixels of val", "tokens of train"]
    assert folders(found.files("cusa")) == expected
    assert [student.name for student in found.students_of_pixels.values()] == [tiny_configuration["student"]["name"]]


def test_random_crops_are_cut_out_of_whole_pictures_of_train(tiny_configuration):
    changed = {**tiny_configuration["train"], "augmentation": {"image": {}}}
    found = plan(tiny_configuration, shards=MAPPED, train=changed)
    assert [path for path in found.files("cusa") if WHOLE_PICTURES in path] == [
        f"results/shapes/pixels/{WHOLE_PICTURES}/train/meta.json"
    ]
    assert found.students_of_pixels[WHOLE_PICTURES] is None
    assert found.code_of_pixels(WHOLE_PICTURES) == []


def test_frozen_towers_need_neither(tiny_configuration):
    sides = {side: {**tiny_configuration["teachers"][side], "trainable": False} for side in ("image", "text")}
    found = plan(tiny_configuration, shards=MAPPED, student={"name": None, "towers": sides})
    assert found.files("cusa") == []
    assert not found.students_of_tokens
    assert not found.students_of_pixels


def test_pixels_of_images_that_are_streamed_are_refused(tiny_configuration):
    with pytest.raises(ConfigurationError, match="shards.pixels keeps decoded images on this disk"):
        plan(tiny_configuration, shards=MAPPED, stream={"url": "https://example.org/{shard}.tar"})


def test_pixels_are_no_reason_to_write_shards_again(tiny_configuration):
    plain, mapped = (load({**tiny_configuration, "shards": shards}) for shards in ({"shorter_side": 32}, MAPPED))
    assert plain.shard_writing.as_json() == mapped.shard_writing.as_json()
    assert plain.run("cusa", 23).as_json() == mapped.run("cusa", 23).as_json()


def test_a_run_that_was_trained_without_tokens_is_not_trained_again_for_them(tiny_configuration, tmp_path):
    found, weights = plan(tiny_configuration), tmp_path / "best.safetensors"

    def waited_for(recorded: list[str] | None, is_same: bool) -> list[str]:
        jobs = RecordedJobs(lambda output: None, lambda output: recorded)
        return found.files_of_run("cusa", str(weights), jobs, is_same)

    files = found.files("cusa")
    assert waited_for(None, is_same=True) == files  # it has not been trained
    weights.touch()
    assert waited_for(["captions.parquet"], is_same=True) == []
    assert waited_for(["captions.parquet"], is_same=False) == files
    assert waited_for(["captions.parquet", *files], is_same=True) == files
    assert waited_for(None, is_same=True) == []
