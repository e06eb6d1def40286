"""A parameter that changes no result is recorded as it was, so that Snakemake does not run its job again."""

from __future__ import annotations

import json

import pytest

from cusa.plan.recorded_jobs import Recorded, RecordedJobs, values_of

WEIGHTS = "results/shapes/runs/cusa/seed23/best.safetensors"
FOUR = json.dumps({"train": {"epochs": 4, "workers": 0}})


def jobs(*params: object, inputs: list[str] | None = None) -> RecordedJobs:
    """Jobs of which one, which made WEIGHTS, is recorded."""
    records = {WEIGHTS: [repr(param) for param in params]} if params else {}
    return RecordedJobs(records.get, {WEIGHTS: inputs}.get)


def test_the_command_has_one_text_and_the_record_another():
    param = Recorded("--gpu", recorded="")
    assert f"extract {param}" == "extract --gpu"
    assert repr(param) == "''"


def test_parameters_are_told_apart_by_their_type():
    found = jobs("--gpu", 7, FOUR)
    assert found.params(WEIGHTS, str) == ["--gpu", FOUR]
    assert found.params(WEIGHTS, int) == [7]
    assert found.params("results/other.npy", str) == values_of(None, str) == []


def test_inputs_that_are_not_known_are_none():
    assert jobs().inputs(WEIGHTS) is None
    assert jobs(inputs=["captions.parquet"]).inputs(WEIGHTS) == ["captions.parquet"]


def test_what_an_output_was_made_with_is_compared_as_recorded():
    found = jobs("old text")
    assert found.made_with(Recorded("new text", recorded="old text"), WEIGHTS)
    assert not found.made_with("new text", WEIGHTS)
    assert not jobs().made_with("old text", WEIGHTS)


@pytest.mark.parametrize(
    ("now", "is_again"),
    [
        ({"epochs": 4, "workers": 8}, False),  # the workers load the data, and change no result
        ({"epochs": 5, "workers": 0}, True),
    ],
)
def test_only_keys_of_effect_make_a_section_another(now, is_again):
    text = json.dumps({"train": now})
    section = jobs(FOUR).section(text, WEIGHTS)
    assert section == text
    assert (section.recorded != FOUR) == is_again


def test_a_section_without_a_record_is_recorded_as_it_is():
    assert jobs().section(FOUR, WEIGHTS).recorded == FOUR


def test_a_reason_makes_the_record_another_each_time():
    once = jobs(FOUR).section(FOUR, WEIGHTS, reason="1 image changed").recorded
    again = jobs(once).section(FOUR, WEIGHTS, reason="1 image changed").recorded
    assert len({FOUR, once, again}) == 3
    assert jobs(again).section(FOUR, WEIGHTS).recorded == again


@pytest.mark.parametrize(
    ("before", "now", "recorded"),
    [
        ((FOUR, "--gpu"), "", "--gpu"),  # made on a GPU, and there is none today
        ((FOUR,), "--gpu", ""),  # made without, and there is one today
        ((), "--gpu", "--gpu"),  # not made yet
    ],
)
def test_a_device_is_recorded_as_it_was(before, now, recorded):
    option = jobs(*before).option(now, WEIGHTS, "--gpu")
    assert (str(option), option.recorded) == (now, recorded)
