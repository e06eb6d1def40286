"""The one exception that reaches people: a sentence saying what was found, what was expected and what to do."""

from __future__ import annotations


class CusaError(Exception):
    """Something the user can mend; its message is printed without a traceback."""


class ConfigurationError(CusaError):
    """A key of the configuration is unknown, of the wrong type, or contradicts another."""


class DataError(CusaError):
    """The data set, the shards or the features on disk are not what the configuration says."""


class ResumeError(CusaError):
    """The state of an interrupted run cannot be continued."""


class TrainingError(CusaError):
    """Training had to stop, for instance because a loss is not finite."""


class StoppedError(CusaError):
    """A signal asked for an end before the work was done; nothing is wrong, and the same command continues."""


def reason_of(error: BaseException) -> str:
    """The first line of an error's message, to be quoted in a sentence; the error's kind where it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
