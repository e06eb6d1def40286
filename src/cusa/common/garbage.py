"""Python's garbage collector, set for programs that import much."""

from __future__ import annotations

import atexit
import gc

# After so many new objects Python looks for garbage among the young ones; after so many such looks among older ones.
YOUNG, LOOKS = 50_000, 20


def collect_rarely() -> None:
    """Let this process look for garbage more rarely, and not when it ends. Memory without cycles is freed as before.

    PyTorch and transformers make a million objects that stay. With Python's defaults, looking through them again and
    again, and once more at the end, takes a third of the time of a program that loads a small model.
    """
    gc.set_threshold(YOUNG, LOOKS, LOOKS)
    atexit.register(gc.freeze)
