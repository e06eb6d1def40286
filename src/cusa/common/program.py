"""What every command-line program of this project does around its one library call."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable

from cusa.errors import CusaError, StoppedError

STOPPED = 143  # 128 + SIGTERM, what a shell reports of a process that obeyed it
ADVICE = {
    errno.ENOSPC: "the disk is full; free some space or move the results folder, then run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space, then run the same command again",
    errno.EROFS: "the file system is read-only; choose a results folder that can be written",
    errno.EACCES: "permission is denied; give yourself the right to write there or choose another folder",
}


def run(main: Callable[[], None]) -> None:
    """Run `main`; a mendable problem ends the process with status 1 and one sentence on standard error.

    Any other exception keeps its traceback: it is a bug of ours, and the log should say where.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for chatty in ("faiss", "sentence_transformers", "huggingface_hub", "httpx"):
        logging.getLogger(chatty).setLevel(logging.ERROR)  # their failures are reported by ours, in a sentence
    try:
        main()
    except StoppedError as stopped:
        logging.getLogger(__name__).info("%s", stopped)
        sys.exit(STOPPED)
    except CusaError as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        if error.errno in ADVICE:
            place = f"{error.filename}: " if error.filename else ""
            sys.exit(f"Error: {place}{ADVICE[error.errno]}.")
        raise
