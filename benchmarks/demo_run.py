"""Time and memory of the demo from its start to the report, and the time of a second run that has nothing to do.

CPU seconds (user and system) are those of all jobs; they say more than the time where the machine does other work too.
"""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

from measure import Claim, peak_memory, snakemake


def main() -> None:
    # The watch over the memory takes time itself, so it has a run of its own.
    with tempfile.TemporaryDirectory() as folder, peak_memory() as peak:
        snakemake(Path(folder))
    before = _cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        seconds = snakemake(Path(folder))
        measured = f"{seconds:.0f} s, {_cpu_seconds() - before:.0f} CPU seconds"
        Claim("make demo after installation", measured, "180 s", seconds < 180).report()
        Claim("its peak memory, all processes", f"{peak[0]:.2f} GiB", "3 GiB", peak[0] < 3).report()
        seconds = min(snakemake(Path(folder)) for _ in range(3))
        Claim("no-op snakemake on the finished run", f"{seconds:.1f} s", "5 s", seconds < 5).report()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
