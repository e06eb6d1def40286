"""The JSON Schema of configuration files, for editors: keys, descriptions, defaults, and the values that are allowed.

It describes a file of --configfile, which has only the keys that differ. So no key is required, and null removes a key
of `dataset` and of `sweep.space`. What it cannot say, as which keys exclude each other, `cusa check` says. The format
is JSON Schema draft 7 (https://json-schema.org/draft-07), which editors with yaml-language-server read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cusa.config.configuration import Configuration
from cusa.config.dataset import SECTIONS

DEFINITIONS = "$defs"
# pydantic leaves the limits of numbers that it reads through a validator under its own names.
LIMITS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
# Keys that a complete configuration must have, but not each of the files that are merged into it.
OF_THE_WHOLE = {"title", "required", "minProperties", "minLength"}


def schema_text() -> str:
    """The JSON Schema as the text of a file."""
    return json.dumps(json_schema(), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of one of the files that are merged into a configuration."""
    schema = _of_a_file(Configuration.model_json_schema())
    definitions = schema[DEFINITIONS]
    definitions["Experiment"]["properties"]["train"]["anyOf"] = [_reference("Train"), {"type": "null"}]
    space = definitions["Sweep"]["properties"]["space"]
    space["additionalProperties"] = _or_null(space["additionalProperties"])
    del definitions["DatasetSection"]
    formats = {}
    for name, section in SECTIONS.items():
        found = _of_a_file(section.model_json_schema())
        definitions |= found.pop(DEFINITIONS, {})
        properties = found["properties"] = {key: _or_null(value) for key, value in found["properties"].items()}
        properties["format"] = {"type": "string", "description": "How the data are stored."}
        definitions[section.__name__] = found
        formats[name] = section.__name__
    schema["properties"]["dataset"] = _dataset(formats, definitions)
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Configuration of cusa", **schema}


def _dataset(formats: Mapping[str, str], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The section `dataset`: its format says which keys there are. A file without `format` may have those of any."""
    any_format: dict[str, list[Any]] = {}
    for definition in formats.values():
        for key, value in definitions[definition]["properties"].items():
            known = any_format.setdefault(key, [])
            if value not in known:
                known.append(value)
    keys = {key: values[0] if len(values) == 1 else {"anyOf": values} for key, values in any_format.items()}
    # A format may also be of another package, or a Python file.
    keys["format"] = {
        "anyOf": [{"enum": list(formats)}, {"type": "string"}],
        "description": "How the data are stored; also the name of a format of another package, or a Python file.",
    }
    named = {"required": ["format"]}
    return {
        "type": "object",
        "description": "Where images and captions come from.",
        "properties": {"format": keys["format"]},
        "allOf": [
            *(
                {"if": {**named, "properties": {"format": {"const": name}}}, "then": _reference(definition)}
                for name, definition in formats.items()
            ),
            {"if": {"not": named}, "then": {"properties": keys, "additionalProperties": False}},
        ],
    }


def _reference(definition: str) -> dict[str, str]:
    return {"$ref": f"#/{DEFINITIONS}/{definition}"}


def _or_null(value: dict[str, Any]) -> dict[str, Any]:
    """A schema that also allows null."""
    if {"type": "null"} in value.get("anyOf", []):
        return value
    described: dict[str, Any] = {key: value[key] for key in ("description", "default") if key in value}
    other = {key: part for key, part in value.items() if key not in described}
    return {**described, "anyOf": [other, {"type": "null"}]}


def _of_a_file(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of pydantic without what only a whole configuration has to have, in the words of JSON Schema."""
    changed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in OF_THE_WHOLE:
            continue
        if key in ("properties", "patternProperties", DEFINITIONS):
            changed[key] = {name: _of_a_file(member) for name, member in value.items()}
        elif key == "description":
            changed[key] = " ".join(value.partition("\n\n")[0].split())
        elif isinstance(value, list):
            changed[key] = [_of_a_file(member) if isinstance(member, dict) else member for member in value]
        elif isinstance(value, dict) and key != "default":
            changed[key] = _of_a_file(value)
        else:
            changed[LIMITS.get(key, key)] = value
    if "patternProperties" in changed:
        changed["additionalProperties"] = False
    return changed
