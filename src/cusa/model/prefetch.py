"""Threads that work ahead of the reader of their results, in order and with bounded memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
LOWER_PRIORITY = 5  # of the decoding threads, so that they use only the cores that the model leaves free


def available_cores() -> int:
    """The cores that this process may use, which a container or a scheduler may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prefetched(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    ahead: int,
    threads: int | None = None,
    prepare_thread: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """`work` of each item, in order; threads compute up to `ahead` results before they are requested.

    By default there are as many threads as cores. Each calls `prepare_thread` first; by default that lowers its
    priority, so that the thread which reads the results goes first. An error of `work` is raised where its result would
    be. Items are read in the thread that reads the results.
    """
    source, waiting = iter(items), deque[Future[Result]]()
    pool = ThreadPoolExecutor(threads or available_cores(), "prefetch", initializer=prepare_thread or _lower_priority)
    try:
        waiting.extend(pool.submit(work, item) for item in islice(source, max(1, ahead)))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(source, 1))
            if not waiting:
                pool.shutdown()  # a reader that knows how many there are does not come back after the last one
            yield result
    finally:
        # Nothing is waited for: the garbage collector may come here, in a thread that is only starting and holds the
        # lock that the end of another thread needs.
        pool.shutdown(wait=False, cancel_futures=True)


def _lower_priority() -> None:
    # Linux has a priority for each thread, by its number. Elsewhere no process has such a number: nothing changes.
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWER_PRIORITY)
