"""Code that the formats share: JSON read one item at a time, image paths, and checks of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cusa.errors import DataError


def json_items(path: Path, prefix: str = "") -> Iterator[Any]:
    """The members of a JSON list, or of the list under the key `prefix` of a JSON object, one at a time.

    One member is in memory at a time. Raises DataError when the file is not there, is no JSON, or has no such list.
    """
    import ijson

    try:
        with path.open("rb") as file:
            start = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
            if start in (b"[", b"{") and start != (b"{" if prefix else b"["):
                expected = f"an object with a list `{prefix}`" if prefix else "a list"
                raise DataError(f"{path} holds a JSON {_KINDS[start]}; expected {expected}.")
            file.seek(0)
            yield from ijson.items(file, f"{prefix}.item" if prefix else "item", use_float=True)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (ijson.JSONError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is not valid JSON ({reason}); it may have been cut off while copying.") from None


_KINDS = {b"[": "list", b"{": "object"}


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, object) of a JSONL file; None for a line that is no JSON."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError:
                    yield number, None


def image_path(root: str | None, beside: Path, name: str) -> str:
    """The absolute path of an image: `name` under `root`, or else in the folder of the file `beside`."""
    folder = Path(root).expanduser() if root is not None else beside.parent
    return (folder.absolute() / name).as_posix()


def malformed(row: object, keys: Mapping[str, tuple[type, ...]]) -> str | None:
    """The reason why `row` is no object with `keys` of these types; None where it is one.

    Texts other than captions must not be empty.
    """
    if not isinstance(row, dict):
        return f"is a {_name(row)}, expected an object with {', '.join(keys)}"
    for key, types in keys.items():
        if key not in row:
            return f"has no `{key}` (its keys: {', '.join(map(str, row)) or 'none'})"
        if not isinstance(row[key], types):
            expected = " or ".join(_NAMES.get(kind, kind.__name__) for kind in types)
            return f"has a {_name(row[key])} for `{key}`, expected {expected}"
        if row[key] == "" and "caption" not in key:
            return f"has an empty `{key}`"
        if isinstance(row[key], list) and not all(isinstance(member, str) for member in row[key]):
            return f"has a list of something else than texts for `{key}`"
    return None


_NAMES = {str: "text", int: "a number", list: "a list"}


def _name(value: object) -> str:
    return type(value).__name__
