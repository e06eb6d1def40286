"""Starts the processes of a training by torchrun, and ends with the error sentence of a process that failed.

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
    """Run torchrun. If a process fails, end with its status, and print its error sentence as the last line."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    logging.disable(
        logging.ERROR
    )  # torchrun's own report of signals and failed processes; the sentence below replaces it
    try:
        torchrun()
    except SignalException as stopped:
        sys.exit(SIGNALLED + stopped.sigval)
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        if message := _failure_sentence(first):
            sys.stderr.write(f"{message}\n")
        sys.exit(first.exitcode if first.exitcode > 0 else SIGNALLED - first.exitcode)


def _failure_sentence(failure: ProcessFailure) -> str:
    """The error sentence of a failed process, or the signal that killed it; empty if the process ended itself."""
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return (
            f"Error: process {failure.local_rank} of the training was ended by {name}{memory}; the same command "
            "continues from the last state that was saved, if there is one."
        )
    if failure.exitcode > SIGNALLED:
        return ""
    report = failure.error_file_data if isinstance(failure.error_file_data, dict) else {}
    message = report.get("message")
    return str(message["message"]) if isinstance(message, dict) else ""


if __name__ == "__main__":
    run(main)
