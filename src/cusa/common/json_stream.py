"""JSON that is larger than memory: the members of a list, or the entries of an object, one at a time.

It is Python's own decoder on a window of the text. So NaN and Infinity are floats, integers are exact, and half of a
surrogate pair stays what it is: callers decide about such values, member by member.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from cusa.common.text import open_text
from cusa.errors import DataError

WINDOW = 1 << 18  # characters
LARGEST_MEMBER = 1 << 28  # characters
# A decoder that meets the end of the text complains within this many characters of it, but for unterminated strings.
NEAR_THE_END = 16
BLANK = re.compile(r"[ \t\r\n]*")
NUMBER = re.compile(r"[-+0-9.eE]*")
KINDS = {"[": "list", "{": "object", '"': "text", "": "nothing", "t": "true", "f": "false", "n": "null"}


def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError where a key is there twice with two values, of which one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if value != found[key]:
                raise ValueError(f"the key `{key}` is there twice in one object, with two values")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=unrepeated)


class JsonStream:
    """A JSON text, read from its start to its end."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self.file = path, file
        self.text, self.at, self.lines, self.ended = "", 0, 0, False

    @property
    def kind(self) -> str:
        """What comes next: `list`, `object`, `text`, `number`, `true`, `false`, `null` or `nothing`."""
        return KINDS.get(self._next(), "number")

    def members(self) -> Iterator[Any]:
        """The members of the list that comes next."""
        self._take("[")
        if self._next() == "]":
            self.at += 1
            return
        while True:
            yield self.value()
            if self._take(",]") == "]":
                return

    def entries(self) -> Iterator[str]:
        """The keys of the object that comes next. After each key, the caller reads its value."""
        self._take("{")
        if self._next() == "}":
            self.at += 1
            return
        while True:
            if self._next() != '"':
                raise self._wrong("expected a key in quotation marks")
            key: str = self.value()
            self._take(":")
            yield key
            if self._take(",}") == "}":
                return

    def value(self) -> Any:
        """The value that comes next, whole."""
        start = self._next()
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated") or len(self.text) - error.pos < NEAR_THE_END
                if unfinished and not self.ended and len(self.text) - self.at < LARGEST_MEMBER:
                    self._read()
                    continue
                raise self._wrong(error.msg, error.pos, unfinished and self.ended) from None
            except RecursionError:
                raise self._wrong("lists within lists are too deep") from None
            except ValueError as error:  # an integer of thousands of digits
                raise self._wrong(str(error)) from None
            # A number at the end of the window may go on behind it, as 0. or 1e do.
            if start in '[{"' or self.ended or _number_end(self.text, self.at) < len(self.text):
                self.at = end
                return value
            self._read()

    def skip(self) -> None:
        """Read over the value that comes next; of a list or an object one member at a time."""
        if self.kind == "list":
            for _ in self.members():
                pass
        elif self.kind == "object":
            for _ in self.entries():
                self.value()
        else:
            self.value()

    def end(self) -> None:
        """Require that nothing follows."""
        if self._next():
            raise self._wrong("something follows after the end of the list or object")

    def _next(self) -> str:
        """The character that comes next, after blanks; "" at the end."""
        while True:
            match = BLANK.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._read()

    def _take(self, wanted: str) -> str:
        found = self._next()
        if not found or found not in wanted:
            raise self._wrong(f"expected `{'` or `'.join(wanted)}`", cut_off=not found)
        self.at += 1
        return found

    def _read(self) -> None:
        """Drop what has been read, and read as much as there is left, at least a window: long members cost no more."""
        self.lines += self.text.count("\n", 0, self.at)
        more = self.file.read(max(WINDOW, len(self.text) - self.at))
        self.text, self.at, self.ended = self.text[self.at :] + more, 0, not more

    def _wrong(self, reason: str, position: int | None = None, cut_off: bool = False) -> DataError:
        line = self.lines + 1 + self.text.count("\n", 0, self.at if position is None else position)
        hint = "it may have been cut off while copying" if cut_off else "correct it there"
        return DataError(f"{self.path} is not valid JSON (line {line}: {reason}); {hint}.")


def _number_end(text: str, start: int) -> int:
    match = NUMBER.match(text, start)
    return match.end() if match else start


@contextmanager
def open_json(path: Path, encoding: str | None = None) -> Iterator[JsonStream]:
    """Open a JSON file as a stream. Raises DataError where it is no text, or no JSON, or cut off."""
    with open_text(path, encoding) as file:
        yield JsonStream(path, file)
