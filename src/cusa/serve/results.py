"""Search results as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
from starlette.responses import Response

from cusa.serve.engine import Engine, SearchResult
from cusa.serve.served_index import ServedIndex

VERSION_DIGITS = 12
OWN = ("item", "captions")


def json_response(content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A response of JSON. Dates and other values of tables become text; NaN and infinity become null."""
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:  # NaN or infinity in a column
        text = json.dumps(_finite(content), ensure_ascii=False, allow_nan=False, default=_plain)
    return Response(text.encode(), headers=headers, media_type="application/json")


def described_index(index: ServedIndex) -> dict[str, Any]:
    """An index for /api/indexes."""
    engine = index.engine
    return {
        "name": index.name,
        "rows": engine.rows,
        "dimension": engine.index.dimension,
        "model": "/".join(engine.model.folder.parts[-2:]),
        "modality": engine.index.modality,
        "head": engine.index.head,
        "fingerprint": engine.fingerprint,
        "filters": engine.choices,
        "has_answers": len(engine.right_answers) > 0,
        "examples": engine.examples,
    }


def unmeasured(result: SearchResult) -> list[int]:
    """The rows whose pictures were not measured yet."""
    if result.engine.index.modality != "image":
        return []
    unknown: list[int] = result.rows[result.engine.sizes[result.rows, 0] == 0].tolist()
    return unknown


def results(name: str, result: SearchResult) -> list[dict[str, Any]]:
    """The items that were found in the index `name`, best first."""
    engine, rows = result.engine, result.rows.tolist()
    scores = [None] * len(rows) if result.scores is None else result.scores.tolist()
    right = None if result.right is None else set(result.right.tolist())
    sizes = engine.sizes[result.rows].tolist()
    first: dict[int, tuple[int, str]] = {}
    groups = engine.groups[result.rows].tolist()
    shown = []
    for row, score, item, (width, height), group in zip(rows, scores, result.items, sizes, groups, strict=True):
        earlier = first.setdefault(group, (row, item["item"]))
        shown.append(
            {
                "row": row,
                "item": item["item"],
                "score": score,
                "captions": item["captions"] or [],
                "image": picture_address(name, engine, row),
                "width": width if width > 0 else None,
                "height": height if width > 0 else None,
                "correct": None if right is None else row in right,
                "same_as": None if earlier[0] == row else _same_as(engine, row, earlier),
                "columns": {column: value for column, value in item.items() if column not in OWN},
            }
        )
    return shown


def unknown_texts(result: SearchResult) -> dict[str, list[str]]:
    """The field with the texts of the query that the model does not know; no field if it knows all of them."""
    return {"unknown_texts": list(result.unknown_texts)} if result.unknown_texts else {}


def answers(result: SearchResult) -> list[dict[str, Any]] | None:
    """The right answers and their ranks, best first; None if they are not known."""
    if result.right is None or result.ranks is None:
        return None
    names = [item["item"] for item in result.engine.described(result.right)]
    rows, ranks = result.right.tolist(), result.ranks.tolist()
    return [{"row": row, "item": item, "rank": rank} for row, item, rank in zip(rows, names, ranks, strict=True)]


def picture_address(name: str, engine: Engine, row: int) -> str | None:
    """The address of a row's picture; None in an index of texts."""
    if engine.index.modality != "image":
        return None
    return f"/api/indexes/{quote(name)}/pictures/{row}?v={engine.fingerprint[:VERSION_DIGITS]}"


def _same_as(engine: Engine, row: int, earlier: tuple[int, str]) -> dict[str, Any]:
    return {"row": earlier[0], "item": earlier[1], "kind": engine.kind(row, earlier[0])}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, np.generic):
        return value.item()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
