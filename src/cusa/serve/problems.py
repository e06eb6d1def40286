"""Errors for a client whose request cannot be answered: a status, and one sentence as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

RETRY_AFTER = "Retry-After"


class RequestError(Exception):
    """A request that is answered with a status from 400 on and a sentence."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, dict(headers or {})


class HungUpError(Exception):
    """The client closed its connection before its answer was there."""


def busy(sentence: str, seconds: float) -> RequestError:
    """The answer 503 of an overloaded server; the client may try again after this number of seconds."""
    return RequestError(503, sentence, {RETRY_AFTER: str(max(1, round(seconds)))})


def error_response(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """A response whose body is {"error": sentence}."""
    content = json.dumps({"error": sentence}, ensure_ascii=False)
    return Response(content, status, headers, media_type="application/json")


def shown(text: str, longest: int = 80) -> str:
    """A text of a client, to be quoted in a sentence or a log: on one line, without control characters, and short."""
    quoted = ascii(text)
    return quoted if len(quoted) <= longest else f"{quoted[:longest]}..."
