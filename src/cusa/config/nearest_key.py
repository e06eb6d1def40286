"""Suggests the known key or name that is most like an unknown one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel

MISTYPED = 0.75  # difflib's ratio of two names of which one is most likely the other, mistyped
DEEPEST = 3  # sections within a section that are looked through


def hint(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the known name most like it, or advice."""
    near = next(iter(get_close_matches(name, list(known), n=1)), None)
    return "correct it, or leave it out." if near is None else f"did you mean {near}?"


def nearest_key(model: type[BaseModel], keys: Sequence[str], unknown: str, at: str = "") -> str | None:
    """The key that `unknown` stands for where `keys` lead to, from the section `model`; None if no key is like it.

    A key that exists in another place, above or below, is given by all its keys, and one that is there by its own. `at`
    is the key of the section in the complete configuration.
    """
    above = range(len(keys) - 1, -1, -1)
    if (depth := next((depth for depth in above if unknown in _known(model, keys[:depth])), None)) is not None:
        return ".".join(filter(None, (at, *keys[:depth], unknown)))
    if near := get_close_matches(unknown, _known(model, keys), n=1, cutoff=MISTYPED):
        return near[0]
    for depth in range(len(keys), -1, -1):
        if paths := _paths(_places(model, keys[:depth]), unknown, DEEPEST):
            return ".".join(filter(None, (at, *keys[:depth], paths[0]))) if len(paths) == 1 else None
    return next(iter(get_close_matches(unknown, _known(model, keys), n=1)), None)


def _places(model: type[BaseModel], keys: Sequence[str]) -> list[Any]:
    """The types that the value at `keys` may have."""
    places: list[Any] = [model]
    for key in keys:
        places = [inner for place in places for inner in _below(place, key)]
    return places


def _known(model: type[BaseModel], keys: Sequence[str]) -> list[str]:
    places = _places(model, keys)
    return [name for place in places for section in _sections(place) for name in section.model_fields]


def _paths(places: Iterable[Any], wanted: str, depth: int) -> list[str]:
    """The dotted keys from these types on that end in the key `wanted`, each once."""
    found: list[str] = []
    for section in (section for place in places for section in _sections(place)):
        for name, field in section.model_fields.items():
            if name == wanted:
                found.append(name)
            elif depth:
                found += (f"{name}.{path}" for path in _paths([field.annotation], wanted, depth - 1))
    return list(dict.fromkeys(found))


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
