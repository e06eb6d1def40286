"""`cusa sweep`: the trials of a sweep so far, and the best of them as an overlay."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from cusa.commands.command_parser import describe
from cusa.common.workflow_files import workflow_command
from cusa.config import load
from cusa.config.files import read_files
from cusa.errors import ConfigurationError, DataError


def add_sweep(commands: Any) -> None:
    """Add `cusa sweep best` and `cusa sweep trials` to the commands."""
    sweep = commands.add_parser(
        "sweep", help="show the trials of a search over settings, or write the best one to a file"
    )
    actions = sweep.add_subparsers(required=True, metavar="ACTION", dest="action")
    best = actions.add_parser("best", help="write the values of the best trial to a file for --configfile")
    trials = actions.add_parser("trials", help="print a table of the trials that have ended, also during the search")
    for action in (best, trials):
        action.add_argument(
            "files",
            nargs="*",
            type=Path,
            help="YAML files, merged onto config/config.yaml in this order",
        )
    best.add_argument("--output", type=Path, help="YAML file to write; default: standard output")
    best.set_defaults(call=_best)
    trials.set_defaults(call=_trials)
    describe(actions)


def _ended(arguments: argparse.Namespace) -> tuple[Any, list[Any]]:
    """The folder of the sweep, and the results of those of its trials that have ended."""
    from cusa.plan import Plan, SweepPlan

    plan = SweepPlan(Plan(load(read_files(arguments.files))))
    if plan.study is None:
        raise ConfigurationError(
            "Configuration key `sweep` is null or missing, so there are no trials; name the files of the sweep, as in "
            f"`cusa sweep {arguments.action} mine.yaml`."
        )
    ended = [result for name in plan.points if (result := plan.study.trial(name).result) is not None]
    if not ended:
        raise DataError(
            f"{plan.study.folder} has no trial that has ended (relative paths start at {Path.cwd()}); run "
            f"`{workflow_command('sweep')}` with these files first, or go to the folder that has results/."
        )
    remaining = len(plan.points) - len(ended)
    if remaining:
        sys.stderr.write(f"{remaining} of {len(plan.points)} trials have not ended yet\n")
    return plan.study, ended


def _best(arguments: argparse.Namespace) -> None:
    from cusa.common.files import atomic_file
    from cusa.sweep.summary import overlay_of

    study, ended = _ended(arguments)
    text = overlay_of(ended, study)
    if arguments.output is None:
        sys.stdout.write(text)
        return
    if arguments.output.exists():
        raise ConfigurationError(f"{arguments.output} exists already; name another file, nothing is overwritten.")
    with atomic_file(arguments.output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _trials(arguments: argparse.Namespace) -> None:
    from cusa.sweep.summary import markdown_lines, table_rows

    _, ended = _ended(arguments)
    sys.stdout.writelines(f"{line}\n" for line in markdown_lines(table_rows(ended)))
