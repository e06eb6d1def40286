"""The messages at the end of the workflow: the results and the next command, or the failures and how to continue."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Container, Iterable, Iterator
from itertools import takewhile
from pathlib import Path

from cusa.common.files import read_json
from cusa.errors import DataError
from cusa.index.meta import META
from cusa.plan.failed_jobs import FailedJobs, job_name
from cusa.plan.plan import Plan
from cusa.plan.search import SearchPlan
from cusa.plan.sweep import SweepPlan
from cusa.runs.record import RUN
from cusa.sweep.summary import MARKDOWN, TABLE

# Options that force finished jobs to run again, and whether names follow them.
FORCING = {"--forcerun": True, "-R": True, "--forceall": False, "-F": False, "--force": False, "-f": False}
SENTENCE = "Error: "  # the start of the programs' messages about problems that users can correct
OF_THE_LOG = re.compile(r"\[|\d\d:\d\d:\d\d ")  # the start of log lines that are not messages
STOPPED = re.compile(r"(?:\d\d:\d\d:\d\d )?(stopped by .+)")  # the last line of a job that Ctrl-C or SIGTERM has ended
MOST_LINES = 20  # of a message, after its first one
BUG = "Traceback (most recent call last):"


def lines_of_success(plan: Plan, search: SearchPlan, sweep: SweepPlan, made: Container[str]) -> Iterator[str]:
    """The trained runs, the best experiment, the address of the report, the best trial and the next command.

    `made` are the files that the targets of this workflow stand for; what is only there from before is not named.
    """
    root = plan.folder.root
    summary, page = root / "summary.parquet", root / "report/index.html"
    runs = [run for run in plan.run_files("best.safetensors") if run in made and Path(run).is_file()]
    if runs and str(summary) not in made and str(page) not in made:
        yield f"the runs:   {root / 'runs'} has {len(runs)}; {shlex.join(['cusa', 'runs', str(root)])} lists them"
        yield "next:       the target `report` measures and compares them"
    if str(summary) in made and summary.is_file():
        yield from _best(summary, plan.runs)
    if (study := sweep.study) is not None and str(study.folder / TABLE) in made:
        best = "`cusa sweep best` with the files of --configfile writes the best of them"
        yield f"the trials: {study.folder / MARKDOWN}; {best}"
    if str(page) in made and page.is_file():
        yield f"the report: {page.absolute().as_uri()}"
    if folders := [folder for folder in search.index_folders() if (Path(folder) / META).is_file()]:
        current = [folder for folder in folders if _has_weights_of_its_run(Path(folder))]
        if current:
            yield f"search:     cusa serve {shlex.join(current)}"
        if old := [folder for folder in folders if folder not in current]:
            why = "of other weights than its run has now; the target `search` builds it again"
            yield f"search:     {', '.join(old)}: {why}"


def _has_weights_of_its_run(index: Path) -> bool:
    """Whether the index {run}/search/{gallery} has what the present weights of its run embedded."""
    try:
        meta, record = read_json(index / META), read_json(index.parents[1] / RUN)
        return bool(meta["index"]["model_sha256"] == record["weights_sha256"])
    except (DataError, FileNotFoundError, KeyError, TypeError):  # a run without run.json is trained again
        return False


def lines_of_failure(logs: Collection[Path], since: float, command: str, jobs: FailedJobs) -> Iterator[str]:
    """The saved state of each stopped program, the message and log of each failed one, and how to continue.

    `logs` are folders of logs, `since` is the time when the workflow started, in seconds since 1970. `jobs` are those
    that Snakemake says have failed: a program that is killed leaves no message in its log.
    """
    failed: dict[str, list[Path]] = {}  # the same data can stop several jobs
    for path in _logs_since(logs, since, jobs):
        lines, name = _lines_of(path), job_name(path, logs)
        if stopped := STOPPED.fullmatch(lines[-1] if lines else ""):
            yield f"{name}: {stopped[1]}"
        elif sentence := _what_failed(lines):
            failed.setdefault(sentence, []).append(path)
        elif path in jobs and not jobs.was_interrupted(path):
            failed.setdefault(jobs.without_message(name, path, lines), []).append(path)
    for sentence, paths in failed.items():
        yield sentence
        others = f", and the same in {len(paths) - 1} more" if len(paths) > 1 else ""
        yield f"    the log: {paths[0]}{others}"
    yield "What is done is kept. To continue from there:"
    yield f"    {_without_forcing(command)}"


def _without_forcing(command: str) -> str:
    """A command line without the options that force jobs: the forced jobs have already started."""
    kept, is_named = [], False
    for word in shlex.split(command):
        option = word.partition("=")[0]
        if word.startswith("-"):
            is_named = FORCING.get(option, False)
        if not is_named and option not in FORCING:
            kept.append(word)
    return shlex.join(kept)


def _logs_since(folders: Iterable[Path], since: float, jobs: FailedJobs) -> list[Path]:
    """The logs that were written since a time, and then those that failed jobs never wrote."""
    times = {path: path.stat().st_mtime for folder in folders for path in folder.rglob("*.log")}
    written = sorted((path for path, time in times.items() if time >= since), key=lambda path: (times[path], path))
    return [*written, *(path for path in jobs.logs if path not in times)]


def _lines_of(log: Path) -> list[str]:
    """The lines of a log that are not blank; none if a job has ended before it had a log."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()]


def _what_failed(lines: list[str]) -> str:
    """The last error message of a program's log, or the last line of a traceback, or an empty text."""
    if starts := [number for number, line in enumerate(lines) if line.startswith(SENTENCE)]:
        first, *more = lines[starts[-1] :]
        more = list(takewhile(lambda line: not OF_THE_LOG.match(line), more))
        left = [f"    ... and {len(more) - MOST_LINES} more lines"] if len(more) > MOST_LINES else []
        return "\n".join([first, *more[:MOST_LINES], *left])
    return f"{SENTENCE}{lines[-1].strip()}" if BUG in lines else ""


def _best(summary: Path, runs: Collection[str]) -> Iterator[str]:
    """Which of the runs has the best mean recall on the test split, of all its images and texts, if it was measured."""
    import pyarrow.parquet as pq

    rows = pq.read_table(summary, columns=["benchmark", "data", "metric", "experiment", "mean"]).to_pylist()
    scores = {
        row["experiment"]: row["mean"]
        for row in rows
        if (row["benchmark"], row["data"], row["metric"]) == ("itr", "", "r_mean")  # folds and languages have data
        and row["experiment"] in runs
        and row["mean"] is not None
    }
    if scores:
        highest = f"{max(scores.values()):.1f}"
        best = [name for name in scores if f"{scores[name]:.1f}" == highest]
        chance = "" if len(best) > 1 else "; a small lead may be chance"
        among = f", the highest of {len(scores)}{chance}" if len(scores) > 1 else ""
        names = best[0] if len(best) == 1 else f"{', '.join(best[:-1])} and {best[-1]} are equal"
        yield f"best:       {names}, with a mean recall of {highest} % between images and texts of test{among}"
