"""The pages of the reference that are written from the code: keys of the configuration, and the command line."""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from cusa import cli
from cusa.config.schema import DEFINITIONS, json_schema

Schema = Mapping[str, Any]
USAGE_COLUMNS = 100
LARGEST = 2**31 - 1  # a limit from here on is that of the computer, which helps no reader


def configuration() -> str:
    """A section for each key of the top level, with a table of all keys below it."""
    schema = json_schema()
    sections = []
    for name, value in schema["properties"].items():
        if name == "dataset":
            sections.append(_formats(value, schema[DEFINITIONS]))
            continue
        value = _resolved(value, schema[DEFINITIONS])
        rows = list(_rows(name, value, schema[DEFINITIONS], ()))
        sections.append(_section(f"## `{name}`", value, rows))
    return "\n\n".join(sections)


def _formats(dataset: Schema, definitions: Schema) -> str:
    """The keys of `dataset`, for each format."""
    parts = [f"## `dataset`\n\n{dataset['description']} The keys depend on `dataset.format`."]
    for branch in dataset["allOf"]:
        if "$ref" in branch["then"]:
            value = _resolved(branch["then"], definitions)
            rows = list(_rows("dataset", value, definitions, ()))
            parts.append(_section(f"### Format `{branch['if']['properties']['format']['const']}`", value, rows))
    return "\n\n".join(parts)


def _section(heading: str, value: Schema, rows: list[str]) -> str:
    table = "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])
    return "\n\n".join(part for part in (heading, _cell(value.get("description", "")), table) if part)


def _rows(key: str, value: Schema, definitions: Schema, inside: tuple[str, ...]) -> Iterator[str]:
    """A row for a key and each key below it. `inside` are the definitions that have led here, which end a circle."""
    references = [option["$ref"] for option in _options(value) if "$ref" in option]
    resolved = [_resolved({"$ref": name}, definitions) for name in references]
    if not value.get("properties") or inside:
        default = _default(value["default"]) if "default" in value else ""
        meaning = value.get("description") or " ".join(each.get("description", "") for each in resolved)
        yield f"| `{key}` | {_cell(_kind(_without_null(value), definitions))} | {_code(default)} | {_cell(meaning)} |"
    for name, option in [("", value), *zip(references, resolved, strict=True)]:
        if name in inside:
            continue
        path = (*inside, name or key)
        for child, below in option.get("properties", {}).items():
            yield from _rows(f"{key}.{child}", below, definitions, path)
        many = option.get("additionalProperties") or next(iter(option.get("patternProperties", {}).values()), None)
        if isinstance(many, dict) and any("$ref" in each for each in _options(many)):
            yield from _children(f"{key}.NAME", many, definitions, path)
        items = option.get("items", {})
        if "$ref" in items:
            yield from _children(f"{key}[]", items, definitions, path)


def _children(key: str, value: Schema, definitions: Schema, inside: tuple[str, ...]) -> Iterator[str]:
    """The rows of the keys below a member of a mapping or a list, not of the member itself."""
    for option in _options(value):
        if "$ref" in option and option["$ref"] not in inside:
            resolved = _resolved(option, definitions)
            for child, below in resolved.get("properties", {}).items():
                yield from _rows(f"{key}.{child}", below, definitions, (*inside, option["$ref"]))


def _options(value: Schema) -> list[Schema]:
    return list(value.get("anyOf", [value]))


def _resolved(value: Schema, definitions: Schema) -> Schema:
    name = value.get("$ref", "").rpartition("/")[2]
    return {**definitions[name], **{key: part for key, part in value.items() if key != "$ref"}} if name else value


def _without_null(value: Schema) -> Schema:
    """A key without the value null where null only gives it its default, which the page says once."""
    if "anyOf" not in value or ("default" in value and value["default"] is None):
        return value
    return {**value, "anyOf": [option for option in value["anyOf"] if option.get("type") != "null"]}


def _kind(value: Schema, definitions: Schema) -> str:
    """The values that a key may have, in words."""
    if "anyOf" in value:
        return ", or ".join(dict.fromkeys(_kind(option, definitions) for option in value["anyOf"]))
    if "$ref" in value:
        return _kind(_resolved(value, definitions), definitions)
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    match value.get("type"):
        case "array":
            return f"list of {_kind(value['items'], definitions)}" if value.get("items") else "list"
        case "object":
            return "keys"
        case "integer" | "number" as kind:
            return " ".join(["whole number" if kind == "integer" else "number", *_limits(value)])
        case "boolean":
            return "`true` or `false`"
        case "null":
            return "`null`"
        case "string":
            return "text"
        case _:
            return "any value"


def _default(value: Any) -> str:
    """A default as it is written in YAML."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _limits(value: Schema) -> Iterator[str]:
    words = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "to"}
    for limit, word in words.items():
        if limit in value and value[limit] < LARGEST and not (limit == "minimum" and "exclusiveMinimum" in value):
            yield f"{word} {value[limit]:.12g}"


def command_line() -> str:
    """A section for each command: what it does, how it is called, and its arguments."""
    return "\n\n".join(_commands(cli.parser(), 2))


def _commands(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    for group in parser._actions:
        if not isinstance(group, argparse._SubParsersAction):
            continue
        helps = {action.dest: action.help or "" for action in group._choices_actions}
        for name, command in group.choices.items():
            yield _command(command, helps.get(name, ""), level)
            yield from _commands(command, level + 1)


def _command(command: argparse.ArgumentParser, purpose: str, level: int) -> str:
    usage = _wrapped(" ".join(command.format_usage().removeprefix("usage: ").split()))
    parts = [f"{'#' * level} `{command.prog}`", _sentence(command.description or purpose), f"```text\n{usage}\n```"]
    rows = [
        f"| {_code(_named(action))} | {_cell(_explained(action, command.prog))} |"
        for action in command._actions
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
    ]
    if rows:
        parts.append("\n".join(["| argument | meaning |", "|---|---|", *rows]))
    if command.epilog:
        parts.append(_sentence(command.epilog))
    return "\n\n".join(parts)


def _wrapped(usage: str) -> str:
    """A usage in lines that fit the page; none ends within brackets, but for long ones."""
    pieces = re.findall(r"\[(?:[^][]|\[[^][]*\])*\]|\S+", usage)
    whole = [piece.replace(" ", "\0") if len(piece) < USAGE_COLUMNS - 4 else piece for piece in pieces]
    lines = textwrap.wrap(
        " ".join(whole), USAGE_COLUMNS, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace("\0", " ")


def _named(action: argparse.Action) -> str:
    """An argument as it is written: its options, and the name of its value."""
    value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest)
    if not action.option_strings:
        return str(value)
    options = ", ".join(action.option_strings)
    takes_value = action.nargs != 0
    return f"{options} {value if action.metavar or action.choices else value.upper()}" if takes_value else options


def _explained(action: argparse.Action, program: str) -> str:
    return (action.help or "") % {**vars(action), "prog": program}


def _sentence(text: str) -> str:
    """Prose of a help text in Markdown: what stands for a value is not HTML."""
    text = " ".join(text.split())
    return re.sub(r"([*_<])", r"\\\1", f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}")


def _cell(text: str) -> str:
    """Text as the content of a cell: a bar outside of code would end it, and in code as well."""
    parts = " ".join(text.split()).split("`")
    for number in range(0, len(parts), 2):  # outside of code
        parts[number] = re.sub(r"([*_<])", r"\\\1", parts[number])
    return "`".join(parts).replace("|", r"\|")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", r"\|") if text else ""
