"""Hides messages that some libraries write to the root logger."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def root_logger_at(level: int) -> Iterator[None]:
    """Records below `level` (logging.ERROR, ...) do not pass the root logger in this block."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(level)
    try:
        yield
    finally:
        root.setLevel(before)
