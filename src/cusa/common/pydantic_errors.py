"""The errors of pydantic, for sentences about damaged files."""

from __future__ import annotations

from pydantic import ValidationError


def first_problem(error: ValidationError) -> tuple[str, str]:
    """The key, with dots, and the message of the first problem that pydantic reports."""
    first = error.errors(include_url=False)[0]
    return ".".join(map(str, first["loc"])), first["msg"]
