"""JSON that is larger than memory: the members of a list, or the entries of an object, one at a time.

It applies Python's own decoder to a window of the text. So NaN and Infinity are floats, integers are exact, and half of
a surrogate pair is kept. Callers decide about such values, member by member.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from cusa.common.text import open_text
from cusa.errors import DataError

WINDOW = 1 << 18  # characters
LARGEST_MEMBER = 1 << 28  # characters
# At the end of the text, the decoder's error lies within this number of characters of it, except for open strings.
NEAR_THE_END = 16
BLANK = re.compile(r"[ \t\r\n]*")
NUMBER = re.compile(r"[-+0-9.eE]*")
# Between two objects of a list, up to the first key of the second one.
SEAM = re.compile(r'\}[ \t\r\n]*,[ \t\r\n]*\{[ \t\r\n]*"[^"\\]{1,64}"[ \t\r\n]*:')
LONGEST_SEAM = 1024  # characters
KINDS = {"[": "list", "{": "object", '"': "text", "": "nothing", "t": "true", "f": "false", "n": "null"}
KINDS |= dict.fromkeys("-0123456789NI", "number")  # NaN and Infinity too


def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError if a key is there twice with two values, of which one would be lost."""
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
        self.failed: Exception | None = None

    @property
    def kind(self) -> str:
        """The next value: `list`, `object`, `text`, `number`, `true`, `false`, `null`, `nothing`, or `no JSON`."""
        return KINDS.get(self._next(), "no JSON")

    def unexpected(self, expected: str) -> DataError:
        """The error for what comes next, if something else was expected."""
        if (kind := self.kind) == "no JSON":
            return self._wrong(f"nothing of JSON starts with {self._next()!r}")
        found = "is empty" if kind == "nothing" else f"holds a JSON {kind}"
        return DataError(f"{self.path} {found}; expected {expected}.")

    def members(self) -> Iterator[Any]:
        """The members of the list that comes next."""
        if self.start_list():
            yield from self.more_members()

    def start_list(self) -> bool:
        """Read the start of the list that comes next. False if it has no member; it is read whole then."""
        self._take("[")
        if self._next() != "]":
            return True
        self.at += 1
        return False

    def more_members(self) -> Iterator[Any]:
        """The members of a list from the one that comes next to its end."""
        while True:
            yield self.value()
            if self.ends_list():
                return

    def ends_list(self) -> bool:
        """Read the mark after a member of a list. True for the end of the list, False for a comma."""
        if self._take(",]") == "]":
            return True
        if self._next() == "]":
            raise self._wrong("a comma stands before the `]`, and no member follows it")
        return False

    def seam(self) -> str | None:
        """The text between two objects of a list, up to the first key of the second; None if there is none here.

        The first object has just been read.
        """
        if self.text[self.at - 1 : self.at] != "}":
            return None
        if len(self.text) - self.at < LONGEST_SEAM and not self.ended:
            self._more(WINDOW)
        match = SEAM.match("}" + self.text[self.at : self.at + LONGEST_SEAM])
        return match[0] if match else None

    def members_up_to(self, seam: str, characters: int) -> str | None:
        """The text of members of a list and the comma after them, up to the last `seam` within so many characters.

        None if there is no seam, or if the file cannot be read: reading on says why. A member may have the seam
        within itself, so `list_members` says whether the text is what it should be; if not, it has to be put back.
        """
        while len(self.text) - self.at < characters and not self.ended and self.failed is None:
            self._more(characters)
        start, end = self.at, self.text.rfind(seam, self.at, self.at + characters) + 1
        if end <= 0:
            return None
        self.at = end
        self._take(",")
        return self.text[start : self.at]

    def put_back(self, texts: Sequence[str]) -> None:
        """Read texts once more, which are the last ones that `members_up_to` gave, in their order."""
        before = "".join(texts)
        self.lines += self.text.count("\n", 0, self.at) - before.count("\n")
        self.text, self.at = before + self.text[self.at :], 0

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
        """The complete next value."""
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
        """Raise an error if anything follows."""
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
        left = len(self.text) - self.at
        if self.failed is None:
            self._more(max(WINDOW, left))
        if self.failed is not None and len(self.text) - self.at == left:
            raise self.failed

    def _more(self, characters: int) -> None:
        """Drop what has been read, and read `characters` more, or up to where reading fails; see `failed`."""
        self.lines += self.text.count("\n", 0, self.at)
        pieces = [self.text[self.at :]]
        self.text, self.at = "", 0
        try:
            for start in range(0, characters, WINDOW):
                if not (piece := self.file.read(min(WINDOW, characters - start))):
                    self.ended = True
                    break
                pieces.append(piece)
        except (OSError, EOFError, ValueError, zlib.error, DataError) as error:  # raised after the text before it
            self.failed = error
        self.text = "".join(pieces)

    def _wrong(self, reason: str, position: int | None = None, cut_off: bool = False) -> DataError:
        line = self.lines + 1 + self.text.count("\n", 0, self.at if position is None else position)
        hint = "it may have been cut off while copying" if cut_off else "correct it there"
        return DataError(f"{self.path} is not valid JSON (line {line}: {reason}); {hint}.")


def list_members(text: str) -> list[Any] | None:
    """The members in a text that `JsonStream.members_up_to` gave; None if it is not whole members."""
    try:
        members: list[Any] = DECODER.decode(f"[{text.removesuffix(',')}]")
    except (ValueError, RecursionError):
        return None
    return members


def _number_end(text: str, start: int) -> int:
    match = NUMBER.match(text, start)
    return match.end() if match else start


@contextmanager
def open_json(path: Path, encoding: str | None = None) -> Iterator[JsonStream]:
    """Open a JSON file as a stream. Raises DataError if it is not text, or no JSON, or cut off."""
    with open_text(path, encoding) as file:
        yield JsonStream(path, file)
