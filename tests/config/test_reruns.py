"""What is made again when a key changes: the page of it, and its keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from cusa.config.operational import is_operational
from cusa.config.reruns import BY_KEY, Effect, effect_of, keys, page
from cusa.config.training import OPERATIONAL, Train

PAGE = Path(__file__).parents[2] / "docs/what-runs-again.md"


def test_the_page_is_that_of_the_models():
    written = PAGE.read_text(encoding="utf-8")
    assert written == page(), f"a key has changed; run `cusa schema --reruns --output {PAGE}`"


def test_every_key_is_on_the_page():
    found = keys()
    for key in (*(f"train.{name}" for name in OPERATIONAL), "extraction.parts", "dataset.columns.image", "seeds"):
        assert key in found
    assert {key.split(".")[1] for key in found if key.startswith("train.")} == set(Train.model_fields)
    assert "dataset.columns" not in found
    assert "teachers.more.image.NAME.share" in found
    assert "experiments.NAME.cross_softlabel.temperature.image.start" in found


@pytest.mark.parametrize("beginning", BY_KEY)
def test_every_line_is_of_keys_that_exist(beginning):
    assert any(f"{key}.".startswith(f"{beginning}.") for key in keys())


@pytest.mark.parametrize("key", keys())
def test_what_the_workflow_takes_for_the_same_is_said_to_make_nothing_again(key):
    nothing = {Effect.NOTHING, Effect.CHECK, Effect.COUNT, Effect.PROCESSES}
    if is_operational(key):
        assert effect_of(key) in nothing


def test_keys_of_an_experiment_have_the_effect_of_the_common_ones():
    assert effect_of("experiments.NAME.train.workers") is Effect.NOTHING
    assert effect_of("experiments.NAME.train.gpus") is Effect.PROCESSES
    assert effect_of("experiments.NAME.train.epochs") is Effect.EXPERIMENT
    assert effect_of("experiments.NAME.student.towers.text.batch_size") is Effect.NOTHING
