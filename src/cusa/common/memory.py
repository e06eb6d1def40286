"""The memory that this process has used."""

from __future__ import annotations

import resource
from pathlib import Path

GIB = 2**30
STATUS = Path("/proc/self/status")


def peak_memory_gib() -> float:
    """The most memory that this process has held so far, in GiB.

    On Linux this is VmHWM. Other systems use `ru_maxrss`, which starts at the memory of the parent process; it is in
    kibibytes, on macOS in bytes.
    """
    if STATUS.is_file():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB
