"""Time and memory of the demo from its start to the report, and the time of a second run that has nothing to do."""

from __future__ import annotations

import tempfile
from pathlib import Path

from measure import Claim, peak_memory, snakemake


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with peak_memory() as peak:
            seconds = snakemake(Path(folder))
        Claim("make demo after installation", f"{seconds / 60:.1f} min", "8 min", seconds < 480).report()
        Claim("its peak memory, all processes", f"{peak[0]:.2f} GiB", "3 GiB", peak[0] < 3).report()
        seconds = min(snakemake(Path(folder)) for _ in range(3))
        Claim("no-op snakemake on the finished run", f"{seconds:.1f} s", "5 s", seconds < 5).report()


if __name__ == "__main__":
    main()
