"""Keys that are of no effect on results."""

from __future__ import annotations

import json

import pytest

from cusa.config.operational import differences, is_operational, same_result


@pytest.mark.parametrize(
    "key",
    [
        "batch_size",
        "teachers.image.batch_size",
        "dataset.check_images",
        "check_images",
        "dataset.expected_images",
        "stream.url",
        "train.workers",
    ],
)
def test_how_or_where_something_is_computed_is_no_reason_to_compute_it_again(key):
    assert is_operational(key)


@pytest.mark.parametrize(
    "key", ["train.batch_size", "teachers.image.name", "train.epochs", "dataset.name", "stream.shuffle_buffer"]
)
def test_what_is_computed_is(key):
    assert not is_operational(key)


SKIPS = {"skip": ["unreadable_image"]}


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"name": "a", "batch_size": 1}, {"name": "a", "batch_size": 2}, True),
        ({"name": "a", "batch_size": 1}, {"name": "a"}, True),
        ({"name": "a", "batch_size": 1}, {"name": "b", "batch_size": 1}, False),
        ({"train": {"batch_size": 1}}, {"train": {"batch_size": 2}}, False),
        ({"dataset": {"check_images": "header"}}, {"dataset": {"check_images": "decode"}}, True),
        ({"dataset": {"check_images": "header"} | SKIPS}, {"dataset": {"check_images": "decode"} | SKIPS}, False),
        ({"max_pixels": 9} | SKIPS, SKIPS, False),
        ({"max_pixels": 9}, {"max_pixels": 8}, True),
        (
            {"check_images": "header", "leave_out_of_train": ["near_copies"]},
            {"check_images": "decode", "leave_out_of_train": ["near_copies"]},
            False,
        ),
        ({"teachers": {"image": [{"batch_size": 1}]}}, {"teachers": {"image": [{"batch_size": 2}]}}, True),
        ({"teachers": {"image": [{"name": "a"}]}}, {"teachers": {"image": [{"name": "b"}]}}, False),
        ({"teachers": {"image": [{"name": "a"}]}}, {"teachers": {"image": [{"name": "a"}] * 2}}, False),
    ],
)
def test_sections_are_compared_without_them(first, second, same):
    assert same_result(json.dumps(first), json.dumps(second)) == same


def processes(gpus: int, cpu_processes: int = 1, nodes: int = 1) -> dict[str, object]:
    return {"train": {"gpus": gpus, "cpu_processes": cpu_processes, "nodes": nodes, "epochs": 1}}


def test_a_training_on_another_device_is_the_same_and_one_of_more_processes_is_not():
    assert differences(processes(gpus=0), processes(gpus=1)) == []
    assert differences(processes(gpus=0, cpu_processes=4), processes(gpus=2, nodes=2)) == []
    assert differences(processes(gpus=1), processes(gpus=1, cpu_processes=3)) == []
    assert differences(processes(gpus=1), processes(gpus=2)) == ["train.gpus was 1, is 2"]


def test_of_a_section_train_it_can_be_said_which_keys_matter():
    one, other = ({"student": "a", "train": {"epochs": each, "precision": "fp32"}} for each in (1, 2))
    assert not same_result(json.dumps(one), json.dumps(other))
    assert same_result(json.dumps(one), json.dumps(other), of_train=["precision"])
    other["train"]["precision"] = "bf16"
    assert not same_result(json.dumps(one), json.dumps(other), of_train=["precision"])


def test_what_is_no_section_is_another():
    assert not same_result("--gpu", "{}")
    assert not same_result("{}", "")
