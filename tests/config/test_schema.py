"""The JSON Schema for editors: our own configurations fit it, and typical slips do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from cusa.common.workflow_files import SCHEMA
from cusa.config.schema import json_schema, schema_text

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted((ROOT / "config").glob("*.yaml"))
WITH_LINE = [*OVERLAYS, ROOT / "tests/workflow/emoji.yaml"]
VALIDATOR = Draft7Validator(json_schema())


def problems(mapping: object) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(mapping)]


def test_the_file_of_the_repository_is_up_to_date():
    Draft7Validator.check_schema(json_schema())
    written = (ROOT / SCHEMA).read_text(encoding="utf-8")
    assert written == schema_text(), f"a key has changed; run `cusa schema --output {SCHEMA}`"


@pytest.mark.parametrize("path", WITH_LINE, ids=lambda path: path.name)
def test_configurations_fit_the_schema_and_name_it(path):
    first, _, _ = path.read_text().partition("\n")
    start = "# yaml-language-server: $schema="
    assert first.startswith(start)
    assert (path.parent / first.removeprefix(start)).samefile(ROOT / SCHEMA)
    assert problems(yaml.safe_load(path.read_text())) == []


def test_the_configuration_of_the_tests_fits(tiny_configuration):
    assert problems(tiny_configuration) == []


@pytest.mark.parametrize(
    "mapping",
    [
        {"train": {"epoch": 3}},
        {"sead": [1]},
        {"train": {"lr": -1}},
        {"train": {"schedule": "steps"}},
        {"shards": {"image_format": "gif"}},
        {"experiments": {"cusa": {"train": {"epoch": 3}}}},
        {"experiments": {"a name": {}}},
        {"dataset": {"format": "karpathy", "groups": ["flags"]}},
        {"dataset": {"format": "table", "fil": "a.csv"}},
        {"dataset": {"fil": "a.csv"}},
        {"sweep": {"space": {"train.lr": {"low": 1, "hihg": 2}}}},
    ],
    ids=json.dumps,
)
def test_slips_do_not_fit(mapping):
    assert problems(mapping)


@pytest.mark.parametrize(
    "mapping",
    [
        {"train": {"epochs": 3}},
        {"experiments": {"csa": None, "cusa": {"train": {"epochs": 3}}}},
        {"dataset": {"name": "mine", "groups": None}},
        {"dataset": {"format": "birds.py", "anything": 1}},
        {"sweep": {"space": {"train.lr": None, "train.epochs": [1, 2]}}},
        {"search": None},
    ],
    ids=json.dumps,
)
def test_parts_of_a_configuration_fit(mapping):
    assert problems(mapping) == []


def test_every_key_has_a_description_or_is_a_section_that_has_one():
    definitions = json_schema()["$defs"]
    for name, definition in definitions.items():
        for key, value in definition.get("properties", {}).items():
            inner = [value, *value.get("anyOf", [])]
            described = [
                each for each in inner if "description" in each or "description" in definitions.get(_name(each), {})
            ]
            assert described, f"{name}.{key} has no description"


def _name(schema: dict) -> str:
    return schema.get("$ref", "").removeprefix("#/$defs/")


def test_defaults_and_choices_are_there():
    train = json_schema()["$defs"]["Train"]["properties"]
    assert train["lr"]["default"] == 1e-5
    assert train["lr"]["exclusiveMinimum"] == 0
    assert set(train["schedule"]["enum"]) == {"epoch", "step"}
