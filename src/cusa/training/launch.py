"""The start of the several processes of a training: torchrun, which leaves the last word to the sentence of a process.

    python -m cusa.training.launch --standalone --nproc-per-node 2 workflow/scripts/train.py ...

The arguments are those of torchrun. SIGTERM and Ctrl-C reach all processes, which save and end; see interruption.py.
"""

from __future__ import annotations

import logging
import signal
import sys
from typing import TYPE_CHECKING

from cusa.common.program import SIGNALLED, run

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure


def main() -> None:
    """Run torchrun. If a process fails, end with its status, and with the sentence that it told as the last line."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    logging.disable(logging.ERROR)  # what torchrun says of signals and of failed processes is said in a sentence below
    try:
        torchrun()
    except SignalException as stopped:
        sys.exit(SIGNALLED + stopped.sigval)
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        if message := _why(first):
            sys.stderr.write(f"{message}\n")
        sys.exit(first.exitcode if first.exitcode > 0 else SIGNALLED - first.exitcode)


def _why(failure: ProcessFailure) -> str:
    """The sentence that a failed process told, or what ended it; empty if it has ended after a signal by itself."""
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return (
            f"Error: process {failure.local_rank} of the training was ended by {name}{memory}; the same command "
            "continues from the last state that was saved."
        )
    if failure.exitcode > SIGNALLED:
        return ""
    told = failure.error_file_data if isinstance(failure.error_file_data, dict) else {}
    message = told.get("message")
    return str(message["message"]) if isinstance(message, dict) else ""


if __name__ == "__main__":
    run(main)
