"""Progress and rate of a loop: a bar on a terminal, a line of text every ten seconds in a log file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0
SHORTEST_REPORTED_SECONDS = 1.0
# A line about a loop, as `_write_line` writes it.
PACE = (
    r"(?P<what>.+): (?P<done>\d+)(?:/(?P<total>\d+))? (?P<unit>\S+) in (?P<seconds>[\d.]+) s \((?P<rate>[\d.]+ \S+/s)\)"
)


def stopwatch(log: logging.Logger) -> Callable[[str], None]:
    """A function that logs what was done, with the seconds since this call."""
    started = time.monotonic()
    return lambda done: log.info("%s, in %.1f s", done, time.monotonic() - started)


def progress(items: Iterable[Item], total: int | None, unit: str, description: str, step: int = 1) -> Iterator[Item]:
    """Yield `items` and report on standard error how many of `total` are done; each item counts as `step` units.

    `total` is None if nobody knows it. `unit` names what is counted, for instance `images`. Loops of less than a
    second are not reported to log files.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, unit=unit, desc=description, unit_scale=step != 1) as bar:
            for item in items:
                yield item
                bar.update(step if total is None else min(step, total - bar.n))
        return
    started = reported = time.monotonic()
    done = 0
    for item in items:
        yield item
        done = done + step if total is None else min(done + step, total)
        now = time.monotonic()
        if now - reported >= SECONDS_BETWEEN_LINES:
            reported = now
            if total is None or done < total:
                _write_line(description, done, total, unit, now - started)
    if (seconds := time.monotonic() - started) >= SHORTEST_REPORTED_SECONDS:
        _write_line(description, done, total, unit, seconds)


def _write_line(description: str, done: int, total: int | None, unit: str, seconds: float) -> None:
    rate = done / max(seconds, 1e-9)
    of = "" if total is None else f"/{total}"
    sys.stderr.write(f"{description}: {done}{of} {unit} in {seconds:.1f} s ({rate:.1f} {unit}/s)\n")
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """A time for people: `42 s`, `17 min`, `3 h 05 min`, `2 d 7 h`."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
