"""Logging, error messages and exit statuses that all command-line programs of this project share."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from cusa.common.garbage import collect_rarely
from cusa.common.memory import keep_freed_memory
from cusa.errors import CusaError, StoppedError

SIGNALLED = 128  # plus the number of a signal: the exit status that a shell reports for a process that it ended
STOPPED, INTERRUPTED, NOBODY_READS = (SIGNALLED + name for name in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE))
# The environment variable with the file in which a process of torchrun reports its error.
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
ADVICE = {
    errno.ENOSPC: "the disk is full; free some space or move the results folder, then run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space, then run the same command again",
    errno.EROFS: "the file system is read-only; choose a results folder that can be written",
    errno.ENAMETOOLONG: "the name is too long for the file system; check it",
    errno.ELOOP: "these links lead in a circle; check them",
    errno.ENOTDIR: "something on the way to it is not a folder; check the path",
    errno.EISDIR: "it is a folder, but a file is expected; name a file",
    errno.EACCES: "permission is denied; give yourself the right to it (chmod), or choose another place",
}


def run(main: Callable[[], None]) -> None:
    """Run `main`. A problem that the user can fix ends the process with status 1 and a message on standard error.

    These are CusaError and the OSErrors of a full, read-only or protected disk, and of impossible paths. SIGTERM
    ends the process with status 143, Ctrl-C with 130, and a pipe that is closed, as that of `| head` is, with 141. Any
    other exception is a bug of this project and keeps its traceback. Of several processes that are stopped, the first
    says so.
    """
    collect_rarely()
    keep_freed_memory()
    _open_standard_streams()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    # This project reports their failures in its own messages. The hub's package sets its level when it is imported.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    for package in ("faiss", "sentence_transformers", "httpx"):
        logging.getLogger(package).setLevel(logging.ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text, as on standard error
    try:
        main()
    except StoppedError as stopped:
        if os.environ.get("RANK", "0") == "0":
            logging.getLogger(__name__).info("%s", stopped)
        _end(SIGNALLED + stopped.number)
    except BrokenPipeError:
        # The rest of standard output's buffer would raise the error again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(NOBODY_READS)
    except (Exception, KeyboardInterrupt) as error:
        if _was_interrupted(error):
            sys.stderr.write("stopped by Ctrl-C\n")
            _end(INTERRUPTED)
        if isinstance(error, CusaError):
            _fail(f"Error: {error}")
        if isinstance(error, OSError) and error.errno in ADVICE:
            file = f"{error.filename}: " if error.filename else ""
            _fail(f"Error: {file}{ADVICE[error.errno]}.")
        raise


def _open_standard_streams() -> None:
    """Replace a standard stream that was closed before the program began (`>&-`, some services) by one of nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 (it lives as long)


def _end(status: int) -> NoReturn:
    """End the process. Another Ctrl-C while Python ends changes nothing, and gives no traceback."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
    sys.exit(status)


def _fail(message: str) -> NoReturn:
    """End the process with status 1 and a message on standard error, and report it to torchrun."""
    if path := os.environ.get(ERROR_FILE):
        report = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
        Path(path).write_text(json.dumps({"message": report}), encoding="utf-8")
    sys.exit(message)


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused an error: libraries turn a Ctrl-C during their import into their own errors."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
