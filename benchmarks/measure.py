"""Helpers that all timing programs share: the format of results, timers, and the measuring of memory."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
SNAKEMAKE = Path(sys.executable).parent / "snakemake"
MARKER = "BENCHMARK-RESULT "


@dataclass
class Claim:
    """One row of the table: what was measured, the result, the bar (the required value), and whether it holds."""

    what: str
    measured: str
    bar: str
    holds: bool

    def report(self) -> None:
        """Print the claim as text, and once more as JSON for run_all.py."""
        print(f"{self.what}: {self.measured} (bar: {self.bar}) {'holds' if self.holds else 'DOES NOT HOLD'}")
        print(MARKER + json.dumps(asdict(self)))


def best_of(repeats: int, call: Callable[[], object]) -> float:
    """The time in seconds of the fastest of `repeats` calls."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def best_of_turns(repeats: int, **sides: Callable[[], object]) -> dict[str, float]:
    """The time in seconds of the fastest of `repeats` calls of each side.

    The sides take turns, so that a change in the machine's load affects all of them.
    """
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(repeats):
        for name, call in sides.items():
            best[name] = min(best[name], best_of(1, call))
    return best


def snakemake(directory: Path, *arguments: str) -> float:
    """The time in seconds of one call of Snakemake in `directory`."""
    command = [SNAKEMAKE, "--snakefile", ROOT / "Snakefile", "--cores", "2", "--directory", directory, *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    return time.perf_counter() - started


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Measure the memory of this process's children. At the end, the yielded list holds the peak of their sum in GiB.

    Only memory that a process does not share with others counts.
    """
    peak, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.25):
            total = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    total += child.memory_full_info().uss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            peak[0] = max(peak[0], total / 2**30)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def machine() -> str:
    """The processor, its number of cores, and the version of Python."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].split(":")[1].strip() if models else platform.processor()
    return f"{name}, {psutil.cpu_count()} cores, Python {platform.python_version()}"
