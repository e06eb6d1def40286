"""Suggests the known key or name that is most like an unknown one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel


def hint(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the known name most like it, or advice."""
    near = next(iter(get_close_matches(name, list(known), n=1)), None)
    return "correct it, or leave it out." if near is None else f"did you mean {near}?"


def nearest_key(model: type[BaseModel], keys: Sequence[str], unknown: str) -> str | None:
    """The key most like `unknown` among those that exist where `keys` lead to, from the section `model`; or None."""
    places: list[Any] = [model]
    for key in keys:
        places = [inner for place in places for inner in _below(place, key)]
    known = [name for place in places for section in _sections(place) for name in section.model_fields]
    return next(iter(get_close_matches(unknown, known, n=1)), None)


def _below(annotation: Any, key: str) -> Iterator[Any]:
    """The types that the value of a key, or of a place in a list, may have."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if key in annotation.model_fields:
            yield annotation.model_fields[key].annotation
        return
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        yield arguments[1]
    elif isinstance(origin, type) and issubclass(origin, Sequence):
        yield arguments[0]
    else:  # a union, or an annotation with metadata
        for argument in arguments:
            yield from _below(argument, key)


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a type may be, without those of the members of a mapping or a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif not (isinstance(get_origin(annotation), type) and issubclass(get_origin(annotation), Mapping | Sequence)):
        for argument in get_args(annotation):
            yield from _sections(argument)
