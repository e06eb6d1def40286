"""The memory of this process: how much it has used, and what it keeps."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

GIB = 2**30
STATUS = Path("/proc/self/status")
# Of malloc.h of glibc. The size is the largest that glibc takes for the first of them.
MMAP_THRESHOLD, TRIM_THRESHOLD, LARGEST_KEPT, ALL = -3, -1, 2**25, 2**31 - 1


def peak_memory_gib() -> float:
    """The most memory that this process has held so far, in GiB.

    On Linux this is VmHWM. Other systems use `ru_maxrss`, which starts at the memory of the parent process; it is in
    kibibytes, on macOS in bytes.
    """
    if STATUS.is_file():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB


def keep_freed_memory() -> None:
    """Let this process use freed blocks of up to 32 MiB again, instead of giving them back to the system.

    A network on a CPU takes and frees megabytes in each layer. The system clears each block that it gives out again,
    which took a quarter of the time of extracting image features. Nothing changes where the C library is not glibc.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(TRIM_THRESHOLD, ALL)
