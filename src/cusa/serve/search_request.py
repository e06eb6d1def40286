"""The fields of a search request, checked: they are the same in a URL, in a form and in JSON."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from cusa.common.text import unstorable
from cusa.serve.engine import Where
from cusa.serve.problems import RequestError, shown
from cusa.serve.settings import Limits

FILTER = "filter."
REPEATED = ("not",)
NAMES = ("q", "index", "top", "not", "like", "like_item", "weight", "token")
PICTURES = ("file", "image", "image_url", "picture", "photo")
TOP = 20


@dataclass(frozen=True)
class SearchRequest:
    """A search as a client asks for it. Without a text, a picture and a row it lists items."""

    index: str | None
    text: str | None
    exclude: tuple[str, ...]
    like: int | None
    like_item: str | None
    weight: float
    top: int
    where: Where


def read_fields(fields: Iterable[tuple[str, str]], limits: Limits) -> SearchRequest:
    """Check the fields of a search. Raises RequestError, status 422, for the first that is wrong."""
    single: dict[str, str] = {}
    excluded: list[str] = []
    where: dict[str, list[str]] = {}
    for count, (name, value) in enumerate(fields):
        if count >= limits.fields:
            raise RequestError(422, f"The query has more than {limits.fields} fields.")
        is_filter = name.startswith(FILTER) and len(name) > len(FILTER)
        if name in PICTURES:  # perhaps in base64, or as an address
            raise RequestError(
                422, f"`{name}` is a text; send a picture as `file` of a form (curl -F file=@photo.jpg)."
            )
        if not is_filter and name not in NAMES:
            raise RequestError(422, _unknown(name))
        if len(value) > limits.text_characters:
            raise RequestError(
                422, f"`{name[:40]}` has {len(value):,} characters; a text has at most {limits.text_characters:,}."
            )
        if (broken := unstorable(value)) is not None:
            raise RequestError(422, f"`{name[:40]}` has {broken}, which no text has.")
        if is_filter:
            where.setdefault(name.removeprefix(FILTER), []).append(value)
        elif name in REPEATED:
            excluded += [value] if value.strip() else []
        elif name in single:
            raise RequestError(422, f"`{name}` is given twice; give it once.")
        else:
            single[name] = value
    if len(excluded) > limits.excluded_texts:
        raise RequestError(422, f"`not` is given {len(excluded)} times; at most {limits.excluded_texts} texts can be.")
    if sum(map(len, where.values())) > limits.filters:
        raise RequestError(422, f"More than {limits.filters} values to filter by.")
    return SearchRequest(
        index=single.get("index") or None,
        text=single.get("q", "").strip() or None,
        exclude=tuple(excluded),
        like=None if not single.get("like") else _whole_number("like", single["like"], 0, None),
        like_item=single.get("like_item") or None,
        weight=_share("weight", single.get("weight", "")),
        top=_whole_number("top", single.get("top") or str(TOP), 1, limits.top),
        where=tuple(sorted((name, tuple(sorted(set(values)))) for name, values in where.items())),
    )


def fields_of_url(query: bytes) -> list[tuple[str, str]]:
    """The fields of a query string. Raises RequestError, status 400, if its text is not UTF-8, which would be lost."""
    try:
        unquote_to_bytes(query).decode()
        return parse_qsl(query.decode(), keep_blank_values=True)
    except UnicodeDecodeError as error:
        raise RequestError(
            400,
            f"The address has the byte %{error.object[error.start]:02X} where it is not UTF-8; write text as UTF-8, "
            "for instance caf%C3%A9.",
        ) from None


def fields_of_json(content: Any) -> list[tuple[str, str]]:
    """The fields of a search that is given as JSON: an object, whose `filter` is an object of values or lists of them.

    Raises RequestError, status 422, if it is something else.
    """
    if not isinstance(content, Mapping):
        raise RequestError(422, 'The JSON of a search is an object, for instance {"q": "a red car", "top": 10}.')
    fields: list[tuple[str, str]] = []
    for name, value in content.items():
        if name == "filter" and isinstance(value, Mapping):
            for column, wanted in value.items():
                fields += _values(f"{FILTER}{column}", wanted)
        else:
            fields += _values(name, value)
    return fields


def _values(name: str, value: Any) -> list[tuple[str, str]]:
    values = value if isinstance(value, list) else [value]
    fields = []
    for each in values:
        if isinstance(each, Mapping | list):
            raise RequestError(422, f"`{name[:40]}` is {shown(repr(each))}; expected a text or a number.")
        if each is not None:
            fields.append((name, str(each).lower() if isinstance(each, bool) else str(each)))
    return fields


def _whole_number(name: str, text: str, least: int, most: int | None) -> int:
    expected = f"a whole number from {least} on" if most is None else f"a whole number from {least} to {most}"
    try:
        number = int(text) if text.isascii() and "_" not in text and len(text) < 20 else None
    except ValueError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        raise RequestError(422, f"`{name}` is {shown(text)}; expected {expected}.")
    return number


def _share(name: str, text: str) -> float:
    try:
        number = float(text or "0.5")
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise RequestError(422, f"`{name}` is {shown(text)}; expected a number from 0 (text only) to 1 (picture only).")
    return number


def _unknown(name: str) -> str:
    alike = difflib.get_close_matches(name[:40], NAMES, 1)
    hint = f" Did you mean `{alike[0]}`?" if alike else ""
    known = ", ".join(each for each in NAMES if each != "token")
    return f"There is no field {shown(name, 40)}; a search has the fields {known}, file and {FILTER}COLUMN.{hint}"
