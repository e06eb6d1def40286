"""`cusa runs`: the list of runs and their progress."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cusa.common.progress import duration

if TYPE_CHECKING:
    from cusa.runs.overview import RunRow

DESCRIPTION = """List runs: state, epochs, validation score (r_mean), pairs per second and time.

Trainings write these numbers every few seconds, also on other machines that share the disk. For the curves, run
tensorboard --logdir results"""
HEADING = ("run", "state", "epochs", "best r_mean", "of epoch", "last", "pairs/s", "time")


def add_runs(commands: Any) -> None:
    """Add the command to the subparsers of `cusa`."""
    command = commands.add_parser(
        "runs",
        help="list runs: state, epochs, validation score, speed and time left",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "folders", nargs="*", type=Path, default=[Path("results")], help="results, results/{dataset} or run folders"
    )
    command.add_argument("--json", action="store_true", help="print a JSON list, which has more than the table")
    command.set_defaults(call=_runs)


def _runs(arguments: argparse.Namespace) -> None:
    from cusa.runs.overview import overview

    rows = list(overview(arguments.folders))
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines(rows))


def lines(rows: Sequence[RunRow]) -> Iterator[str]:
    """A table of runs, and a line for each error."""
    yield from text_table([HEADING, *map(_cells, rows)], left=2)
    for row in rows:
        if row.message:
            yield f"{row.run}: {row.message}"


def _cells(row: RunRow) -> tuple[str, ...]:
    state = row.state if row.host is None else f"{row.state} on {row.host}, seen {row.updated or 'never'}"
    time = ""
    if row.seconds is not None:
        time = f"took {duration(row.seconds)}"
    elif row.seconds_left is not None and row.state == "running":
        time = f"{duration(row.seconds_left)} left"
    return (
        row.run,
        state,
        _progress(row),
        _number(row.best_r_mean, 2),
        "" if row.best_epoch is None else str(row.best_epoch + 1),
        _number(row.last_r_mean, 2),
        _number(row.pairs_per_second, 0),
        time,
    )


def _progress(row: RunRow) -> str:
    """How many epochs a training has finished, or how far an interpolation lies between before and after one."""
    if row.alpha is not None:
        return f"alpha {row.alpha:g}"
    return "" if row.epoch is None else f"{row.epoch}/{row.epochs}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def text_table(rows: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """Lines of cells in columns; the first `left` columns start at the left, the others end at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
