"""Keys that are of no effect on results."""

from __future__ import annotations

import json

import pytest

from cusa.config.operational import is_operational, same_result


@pytest.mark.parametrize("key", ["batch_size", "teachers.image.batch_size", "dataset.check_images", "check_images"])
def test_how_something_is_computed_is_no_reason_to_compute_it_again(key):
    assert is_operational(key)


@pytest.mark.parametrize("key", ["train.batch_size", "teachers.image.name", "train.epochs", "dataset.name"])
def test_what_is_computed_is(key):
    assert not is_operational(key)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"name": "a", "batch_size": 1}, {"name": "a", "batch_size": 2}, True),
        ({"name": "a", "batch_size": 1}, {"name": "a"}, True),
        ({"name": "a", "batch_size": 1}, {"name": "b", "batch_size": 1}, False),
        ({"train": {"batch_size": 1}}, {"train": {"batch_size": 2}}, False),
        ({"dataset": {"check_images": "header"}}, {"dataset": {"check_images": "decode"}}, True),
        (
            {"dataset": {"check_images": "header", "skip": ["unreadable_image"]}},
            {"dataset": {"check_images": "decode", "skip": ["unreadable_image"]}},
            False,
        ),
        (
            {"check_images": "header", "leave_out_of_train": ["near_copies"]},
            {"check_images": "decode", "leave_out_of_train": ["near_copies"]},
            False,
        ),
        ({"teachers": {"image": [{"batch_size": 1}]}}, {"teachers": {"image": [{"batch_size": 2}]}}, True),
    ],
)
def test_sections_are_compared_without_them(first, second, same):
    assert same_result(json.dumps(first), json.dumps(second)) == same


def test_what_is_no_section_is_another():
    assert not same_result("--gpu", "{}")
    assert not same_result("{}", "")
