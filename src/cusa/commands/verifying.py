"""`cusa verify`: whether what is in results folders is what the jobs wrote there."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

DESCRIPTION = """Compare the files of results folders with what the jobs that wrote them recorded: tables, shards,
features, stored pixels and tokens, runs, embeddings, scores, exports, galleries, indexes and the summary. Each of these
folders and files that is damaged or lacks a part is a line that says what to delete, so that the workflow makes it
again; the exit status is then 1. What is gone as a whole is not known here: the workflow makes it again. Pages are not
looked at. Everything is read once, and nothing is changed."""


def add_verify(commands: Any) -> None:
    """Add the command to the subparsers of `cusa`."""
    command = commands.add_parser(
        "verify",
        help="compare the files of results folders with what was recorded when they were written",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "folders",
        nargs="*",
        type=Path,
        default=[Path("results")],
        help="results (the default), or results/{dataset}",
    )
    command.set_defaults(call=_verify)


def _verify(arguments: argparse.Namespace) -> None:
    from cusa.commands.artefacts import data_set_folders, verify
    from cusa.commands.finding import require_sound

    findings = []
    for folder in data_set_folders(arguments.folders):
        for finding in verify(folder):
            findings.append(finding)
            sys.stdout.writelines(f"{line}\n" for line in finding.lines())
            sys.stdout.flush()
    require_sound(findings)
