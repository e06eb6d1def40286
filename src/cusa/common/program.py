"""Logging, error messages and exit statuses that all command-line programs of this project share."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable

from cusa.errors import CusaError, StoppedError

STOPPED = 143  # 128 + SIGTERM: the exit status that a shell reports for a process that SIGTERM ended
INTERRUPTED = 130  # 128 + SIGINT, likewise
NOBODY_READS = 141  # 128 + SIGPIPE, likewise
ADVICE = {
    errno.ENOSPC: "the disk is full; free some space or move the results folder, then run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space, then run the same command again",
    errno.EROFS: "the file system is read-only; choose a results folder that can be written",
    errno.EACCES: "permission is denied; give yourself the right to write there or choose another folder",
}


def run(main: Callable[[], None]) -> None:
    """Run `main`. A problem that the user can fix ends the process with status 1 and a message on standard error.

    These are CusaError and the OSErrors of a full, read-only or protected disk. StoppedError ends the process with
    status 143, Ctrl-C with 130, and a pipe that is closed, as that of `| head` is, with 141. Any other exception is a
    bug of this project and keeps its traceback.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for package in ("faiss", "sentence_transformers", "huggingface_hub", "httpx"):
        logging.getLogger(package).setLevel(logging.ERROR)  # this project reports their failures in its own messages
    try:
        main()
    except StoppedError as stopped:
        logging.getLogger(__name__).info("%s", stopped)
        sys.exit(STOPPED)
    except BrokenPipeError:
        # What is left in the buffer of standard output would be an error again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(NOBODY_READS)
    except (Exception, KeyboardInterrupt) as error:
        if _was_interrupted(error):
            sys.stderr.write("stopped by Ctrl-C\n")
            sys.exit(INTERRUPTED)
        if isinstance(error, CusaError):
            sys.exit(f"Error: {error}")
        if isinstance(error, OSError) and error.errno in ADVICE:
            file = f"{error.filename}: " if error.filename else ""
            sys.exit(f"Error: {file}{ADVICE[error.errno]}.")
        raise


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is what an error comes from: libraries turn one within their imports into errors of their own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
