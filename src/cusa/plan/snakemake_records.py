"""Reads Snakemake's record of each output before Snakemake opens its records itself, which is after it read the rules.

A record is a JSON file whose name is the path of the output in base64. A long name is split: all parts but the last are
folders, which begin with @.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORDS = Path(".snakemake/metadata")


def recorded_outputs(folder: str | Path = RECORDS) -> Iterator[tuple[str, Path]]:
    """Each output that has a record, with the path of the record. Files that are not records are left out."""
    for path in Path(folder).rglob("*"):
        name = "".join(part.removeprefix("@") for part in path.relative_to(folder).parts)
        if not path.is_file():
            continue
        try:
            yield urlsafe_b64decode(name).decode(), path
        except ValueError:
            continue


def read_record(path: str | Path | None) -> dict[str, Any]:
    """The content of a record: the `params`, the `endtime` and more.

    Empty if `path` is None, or the record is gone or incomplete, as while another Snakemake writes it: Snakemake
    takes such an output for one without a record too.
    """
    try:
        content = {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
