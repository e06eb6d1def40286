"""Helpers of all formats: rows of JSON files, ids, and checks of rows."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from cusa.annotations.sources.source import MalformedRow
from cusa.common.json_stream import DECODER, JsonStream, open_json
from cusa.common.text import open_text, text_lines, unstorable
from cusa.errors import DataError

# Under these keys, the objects of a list of captions have their texts: Karpathy's, COCO's and others'.
CAPTION_KEYS = ("raw", "caption", "text", "sentence")
_NO_JSON = "is not valid JSON, or has a key twice with two values"
LIST_STARTS = ("[", "{", "(")  # of a list that is written as text
LONGEST_FIRST_LINE = 1 << 20  # characters


def json_items(path: Path, prefix: str = "", encoding: str | None = None) -> Iterator[Any]:
    """The members of a JSON list, or of the list under the key `prefix` of a JSON object, one at a time.

    One member is in memory at a time. Raises DataError when the file is not there, is not JSON, or has no such list.
    """
    with open_json(path, encoding) as stream:
        if not prefix:
            require_list(stream)
            yield from stream.members()
        elif stream.kind != "object":
            raise stream.unexpected(f"an object with a list `{prefix}`")
        else:
            keys = []
            for key in stream.entries():
                keys.append(key)
                if key != prefix:
                    stream.skip()
                elif (kind := stream.kind) == "list":
                    yield from stream.members()
                else:
                    raise DataError(f"{path} has a JSON {kind} under `{prefix}`; expected a list.")
            if prefix not in keys:
                raise DataError(f"{path} has no list `{prefix}` (its keys: {', '.join(keys[:8]) or 'none'}).")
        stream.end()


def require_list(stream: JsonStream) -> None:
    """Raise DataError if a file does not start with a list."""
    if stream.kind != "list":
        raise stream.unexpected("a list")


def decoded_line(line: str) -> Any:
    """The value in a line of a JSONL file; None if it is not JSON, or has a key twice."""
    try:
        return DECODER.decode(line.strip())
    except (ValueError, RecursionError):
        return None


def row_of_line(place: str, line: str) -> Any:
    """The row in a line, or a MalformedRow with its `place` if it is not JSON."""
    row = decoded_line(line)
    if row is None and decoded_line(line.strip().removesuffix(",")) is not None:
        return MalformedRow(place, "ends with a comma, which no line of JSON Lines has; remove it")
    return MalformedRow(place, _NO_JSON) if row is None else row


def json_rows(path: Path, encoding: str | None = None) -> Iterator[tuple[str, Any]]:
    """The place of every row and the row, of a JSON list or of JSON Lines, whatever the file's ending.

    A line that is not JSON gives a MalformedRow. Raises DataError for anything else.
    """
    if is_json_lines(path, encoding):
        for number, line in enumerate(text_lines(path, encoding), start=1):
            if line.strip():
                place = f"{path}, line {number}"
                yield place, row_of_line(place, line)
    else:
        for number, row in enumerate(json_items(path, encoding=encoding)):
            yield f"{path}, row {number}", row


def is_json_lines(path: Path, encoding: str | None = None) -> bool:
    """Whether the file has an object per line, and is not one list or one object; lists per line are odd rows."""
    with open_text(path, encoding, newline=None) as file:
        pieces = iter(lambda: file.readline(LONGEST_FIRST_LINE), "")
        lines = list(islice((line.strip() for line in pieces if line.strip()), 2))
    if len(lines) == 2 and all(line.startswith("[") and _is_json(line.removesuffix(",")) for line in lines):
        return True
    if not lines or not lines[0].startswith("{"):
        return False
    if len(lines) == 1:
        return path.name.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson"))
    return any(line.startswith("{") and _is_json(line.removesuffix(",")) for line in lines)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def identities(values: Sequence[Any]) -> list[str] | None:
    """`identity` of each value; None if one cannot be an id."""
    types = set(map(type, values))
    if types == {str}:
        return None if "" in values else list(values)
    if not types <= {str, int, float} or "" in values or any(map(_not_a_number, values)):
        return None
    return list(map(identity, values))


def values_of(rows: Sequence[Any], *keys: str) -> list[tuple[Any, ...]] | None:
    """The values under each of at least two keys of the rows; None if a row is not an object, or lacks a key."""
    if set(map(type, rows)) != {dict}:
        return None
    try:
        return list(zip(*map(itemgetter(*keys), rows), strict=True))
    except KeyError:
        return None


def is_empty(value: Any) -> bool:
    """Whether a cell of a table has no value: None, NaN, or a text without characters."""
    return value is None or value == "" or value != value  # NaN is not equal to itself


def identity(value: str | float) -> str:
    """An id as text: 1, "1" and 1.0 are the same id; integers keep all their digits."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def caption_number(value: object) -> int | None:
    """COCO's own id of a caption, as a number or as digits; None for anything else, and beyond 64 bits."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        return None
    return value


def malformed(row: object, keys: Mapping[Any, tuple[type, ...]]) -> str | None:
    """The reason why `row` is not an object with `keys` of these types; None if it is one.

    Texts other than captions must not be empty. No text may have what UTF-8 cannot store, and no number may be NaN.
    """
    if not isinstance(row, dict):
        return f"is a {_name(row)}, expected an object with {', '.join(map(str, keys))}"
    for key, types in keys.items():
        if key not in row:
            return f"has no `{key}` (its keys: {', '.join(map(str, row)) or 'none'})"
        value = row[key]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types) or _not_a_number(value):
            expected = " or ".join(dict.fromkeys(_NAMES.get(kind, kind.__name__) for kind in types))
            return f"has a {_name(value)} for `{key}`, expected {expected}"
        if value == "" and "caption" not in str(key):
            return f"has an empty `{key}`"
        if isinstance(value, str) and (what := unstorable(value)):
            return f"has {what} in `{key}`"
    return None


def language_of(value: object) -> tuple[str | None, str | None]:
    """The language of a caption that a cell gives, None for an empty one; and the reason why it is none.

    It becomes a part of the names of scores, so it has letters, digits and hyphens, as `de` and `zh-Hant` have.
    """
    if value is None or value == "" or _not_a_number(value):
        return None, None
    if isinstance(value, str) and re.fullmatch(r"[^\W_]+([ -][^\W_]+)*", value.strip()):
        return value.strip(), None
    return None, f"has {value!r} as its language; expected a name of letters, digits and hyphens, such as de or zh-Hant"


def captions_in(row: Mapping[Any, Any], key: str | int) -> tuple[list[str], str | None]:
    """The captions under a key, and None; or no caption, and the reason why there is none.

    They are a text, a list of texts, a list of objects with a text under one of CAPTION_KEYS, or a conversation, whose
    answers they are. An empty list is one empty caption, which the checks of captions report.
    """
    if key not in row:
        return [], f"has no `{key}` (its keys: {', '.join(map(str, row)) or 'none'})"
    value = row[key]
    if isinstance(value, str):
        captions = [value]
    elif isinstance(value, list):
        value = answers if (answers := _answers(value)) is not None else value
        captions = [text for member in value if (text := _caption(member)) is not None]
        if len(captions) < len(value):
            odd = next(member for member in value if _caption(member) is None)
            return [], f"has a list of something else than texts for `{key}` (a {_name(odd)})"
    else:
        return [], f"has a {_name(value)} for `{key}`, expected text or a list"
    for caption in captions:
        if what := unstorable(caption):
            return [], f"has {what} in `{key}`"
    return captions or [""], None


def captions_of(row: Mapping[Any, Any], columns: Sequence[str | int]) -> tuple[list[str], str | None]:
    """The captions of a row, and None; or no caption, and the reason why there is none.

    They are in one column, or in several, some of which may be empty. A text may be a list; see `unpacked_cell`.
    """
    found: list[str] = []
    for column in columns:
        value = row.get(column)
        if len(columns) > 1 and is_empty(value):
            continue
        if isinstance(value, str):
            if not value.startswith(LIST_STARTS):
                if what := unstorable(value):
                    return [], f"has {what} in `{column}`"
                found.append(value)
                continue
            value = unpacked_cell(value)
            if value is None:
                return [], f"has a list in `{column}` that cannot be read, expected one as JSON or Python writes it"
        captions, reason = captions_in({column: value} if column in row else row, column)
        if reason is not None:
            return [], reason
        found += captions
    return found or [""], None


# The keys of a turn of a conversation (who speaks, and the text), and who answers: LLaVA's form, and that of chats.
CONVERSATIONS = (("from", "value", ("gpt", "assistant")), ("role", "content", ("assistant",)))


def _answers(turns: list[Any]) -> list[Any] | None:
    """The answers in a conversation about an image, which describe it; None if a list is no conversation."""
    for speaker, text, answering in CONVERSATIONS:
        if turns and all(isinstance(turn, dict) and {speaker, text} <= turn.keys() for turn in turns):
            return [turn[text] for turn in turns if turn[speaker] in answering]
    return None


def _caption(member: object) -> str | None:
    if isinstance(member, dict):
        member = next((member[key] for key in CAPTION_KEYS if key in member), None)
    return member if isinstance(member, str) else None


def unpacked_cell(text: str) -> Any:
    """The value of a table's cell: usually its text, but a list if the text is a written list.

    Lists are read as JSON, Python (tuples too) and NumPy write them. A text that starts like a list of texts in
    brackets, but is not a list, gives None.
    """
    if not text.startswith(LIST_STARTS):
        return text
    if text.startswith("("):  # captions start so, too
        is_tuple = _TUPLE_OF_LITERALS.fullmatch(text.rstrip())
        return _literals(text) if is_tuple else text
    stripped = text.rstrip()
    try:
        found = json.loads(stripped)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list | dict):
        return [found] if isinstance(found, dict) else found
    if not _STARTS_LIKE_A_LIST.match(stripped) or not stripped.endswith("]"):
        return text
    if not _LIST_OF_LITERALS.fullmatch(stripped):
        return None
    return _literals(stripped)


def only_name(value: Any) -> Any:
    """The name in a list of one, in which chats and exports write the image of a row; any other value as it is."""
    found = unpacked_cell(value) if isinstance(value, str) and value.startswith("[") else value
    return found[0] if isinstance(found, list) and len(found) == 1 and isinstance(found[0], str) else value


def _literals(text: str) -> list[str] | None:
    try:
        return [ast.literal_eval(literal) for literal in re.findall(_LITERAL, text)]
    except (ValueError, SyntaxError):
        return None


_STARTS_LIKE_A_LIST = re.compile(r"\[\s*['\"]")
_LITERAL = r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\""""
# NumPy puts blanks between the members, where Python would join neighbours to one text.
_LIST_OF_LITERALS = re.compile(rf"\[\s*(?:{_LITERAL})(?:(?:\s*,\s*|\s+)(?:{_LITERAL}))*\s*,?\s*\]")
# A comma makes a tuple: ('a dog') is a caption with marks around it.
_TUPLE_OF_LITERALS = re.compile(rf"\((?:\s*(?:{_LITERAL})\s*,)+(?:\s*(?:{_LITERAL}))?\s*\)")
_NAMES = {str: "text", int: "a number", float: "a number", list: "a list", bool: "true or false"}


def _not_a_number(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _name(value: object) -> str:
    if value is None:
        return "null"
    return "NaN" if _not_a_number(value) else type(value).__name__
