"""`cusa verify`: checks that the files in results folders are those that the jobs wrote."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

DESCRIPTION = """Find damaged results: compare their files with what was recorded when they were written.

The command checks tables, shards, features, stored pixels and tokens, runs, embeddings, scores, exports, galleries,
indexes and the summary, but not the report. For each damaged file it prints what to delete, and the exit status is 1.
The workflow then makes it again. Files that are completely gone are not reported, because the workflow makes them
again anyway. Everything is read once, and nothing is changed."""


def add_verify(commands: Any) -> None:
    """Add the command to the subparsers of `cusa`."""
    command = commands.add_parser(
        "verify",
        help="find damaged results",
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
