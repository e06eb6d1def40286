"""The complete configuration of merged files, with the file that each value comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from cusa.config.configuration import Configuration

BUILT_IN = "default"  # no file has the key
WIDTH = 60  # characters before the name of a file


def resolved_lines(configuration: Configuration, sources: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    """All keys and values as lines of YAML, each with the last source that gives it, or `default`, as a comment.

    `sources` are names and mappings in the order in which they were merged.
    """
    yield from _lines(configuration, list(sources), "")


def _lines(value: Any, sources: list[tuple[str, Any]], indentation: str) -> Iterator[str]:
    """The lines of a mapping. `sources` have what each file has at this place, if it has something there."""
    members = _members(value)
    for key, member in members.items():
        below = [(name, content[key]) for name, content in sources if isinstance(content, Mapping) and key in content]
        # If a file writes one value in place of the mapping, all keys come from that file.
        whole = [source for source in sources if not isinstance(source[1], Mapping)]
        found = below or whole
        start = f"{indentation}{_text(key)}:"
        if _members(member):
            yield start
            yield from _lines(member, found, f"{indentation}  ")
        else:
            origin = found[-1][0] if found else BUILT_IN
            yield f"{start} {_text(member)}".ljust(WIDTH) + f"  # {origin}"


def _members(value: Any) -> dict[str, Any]:
    """The keys and values of a section or a mapping; those of a section also where they have their defaults."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    return dict(value) if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    """A value on one line of YAML."""
    plain = to_jsonable_python(value)
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("...\n").strip()
