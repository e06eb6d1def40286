"""The exceptions that users see: each message says what was found, what was expected and what to do."""

from __future__ import annotations

import signal
from collections.abc import Sequence


class CusaError(Exception):
    """A problem that the user can fix; its message is printed without a traceback."""


class ConfigurationError(CusaError):
    """A key of the configuration is unknown, of the wrong type, or contradicts another."""


class DataError(CusaError):
    """The data set, shards, features or weights on disk are missing, damaged, or do not fit the configuration."""


class ResumeError(CusaError):
    """An interrupted run cannot be continued from its saved state."""


class TrainingError(CusaError):
    """Training stopped because of an error, for instance because a loss is not finite."""


class StoppedError(CusaError):
    """A signal stopped the program before its work was done. It is not an error: the same command continues."""

    def __init__(self, message: str, number: int = signal.SIGTERM) -> None:
        """`number` is that of the signal."""
        super().__init__(message)
        self.message, self.number = message, number

    def __str__(self) -> str:
        """The message alone: torch.compile adds its graph to the arguments of any error that passes through it."""
        return self.message


def first_lines(examples: Sequence[str], most: int = 5) -> str:
    """The first examples of a problem for the end of a message, a line each, and how many more there are."""
    more = [f"... and {len(examples) - most:,} more"] if len(examples) > most else []
    return "".join(f"\n    {line}" for line in [*examples[:most], *more])


def reason_of(error: BaseException) -> str:
    """The first line of an error's message, to be quoted in a sentence; the error's kind if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


LONGEST_CAUSE = 400  # characters


def cause_of(error: BaseException) -> str:
    """The kind of an error of another library, and its whole message on one line, to be quoted in a sentence."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST_CAUSE].removesuffix(": ")
