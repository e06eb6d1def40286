"""Why a job runs again, in words."""

from __future__ import annotations

import json

from cusa.plan.reasons import MOST_CHANGES, changed_keys, with_reason, without_reason


def text(section: dict[str, object]) -> str:
    """A section as Snakemake records it as a parameter."""
    return repr(json.dumps(section, sort_keys=True))


def test_keys_of_a_run_are_named_as_in_the_configuration():
    before, now = ({"train": {"epochs": epochs, "lr": 0.1}, "seed": 1} for epochs in (30, 4))
    sentence = changed_keys("train", [text(before)], {"configuration": text(now)})
    assert sentence == "train.epochs was 30, is 4"


def test_keys_of_other_parameters_are_named_by_their_section():
    def of(rule: str, parameter: str) -> str:
        return changed_keys(rule, [text({"quality": 95})], {parameter: text({"quality": 50})})

    assert of("write_shards", "settings") == "shards.quality was 95, is 50"
    assert of("evaluate_itr", "settings") == "benchmarks.itr.quality was 95, is 50"
    assert of("extract_image_features", "model") == "model.quality was 95, is 50"
    data = {"dataset": {"format": "table"}, "captions": {"clean": "none"}}
    old = {**data, "captions": {"clean": "published"}}
    assert changed_keys("convert", [text(old)], {"dataset": text(data)}) == "captions.clean was 'published', is 'none'"


def test_what_is_no_section_is_shown_as_it_is_and_cut():
    assert changed_keys("r", ["'a'"], {"reference": "'b'"}) == "reference was 'a', is 'b'"
    assert changed_keys("r", [], {"list": "'--list'"}) == "list is '--list'"
    assert changed_keys("r", ["'--list'"], {}) == "'--list' was given, and is not"
    assert changed_keys("r", ["1"], {"runs": repr(["run"] * 100)}).endswith("...; 1 was given, and is not")


def test_many_changes_are_counted():
    before, now = ({f"key{number}": value for number in range(MOST_CHANGES + 3)} for value in (1, 2))
    assert changed_keys("r", [text(before)], {"configuration": text(now)}).endswith("key6 was 1, is 2; and 3 more")


def test_a_key_without_effect_is_named_only_if_it_is_all():
    before, now = ({"format": "table", "name": name, "check_images": name} for name in ("one", "two"))
    assert changed_keys("convert", [text(before)], {"dataset": text(now)}) == "dataset.name was 'one', is 'two'"
    now = {**before, "expected_images": {"train": 3}}
    sentence = changed_keys("convert", [text(before)], {"dataset": text(now)})
    assert sentence == "dataset.expected_images was null or left out, is {'train': 3}"


def test_a_reason_that_is_recorded_with_a_section_is_what_is_said():
    section = json.dumps({"quality": 95})
    first = with_reason(section, "3 images changed")
    assert without_reason(first) == section
    assert changed_keys("write_shards", [repr(section)], {"settings": repr(first)}) == "3 images changed"
    # The same reason once more is another text, because another text is what makes Snakemake run a job.
    second = with_reason(first, "3 images changed")
    assert changed_keys("write_shards", [repr(first)], {"settings": repr(second)}) == "3 images changed again"
    assert with_reason(second, "3 images changed") == first
    assert with_reason(first, "") == first
    worse = repr(with_reason(json.dumps({"quality": 50}), "1 image changed"))
    sentence = changed_keys("write_shards", [repr(first)], {"settings": worse})
    assert sentence == "1 image changed; shards.quality was 95, is 50"
