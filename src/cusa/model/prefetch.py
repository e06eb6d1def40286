"""Work that is done by threads ahead of where its results are needed, in order and with bounded memory."""

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
LOWER_PRIORITY = 5  # of the decoding threads, so that they take what the model leaves of the cores


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
    """`work` of each item, in order; threads do it for up to `ahead` items that nobody has asked for yet.

    By default there are as many threads as cores. Each calls `prepare_thread` first; by default that lowers its
    priority, so that the thread which reads the results goes first. An error of `work` is raised where its result would
    be. Items are read in the thread that reads the results.
    """
    source, waiting = iter(items), deque[Future[Result]]()
    with ThreadPoolExecutor(
        threads or available_cores(), "prefetch", initializer=prepare_thread or _lower_priority
    ) as pool:
        try:
            waiting.extend(pool.submit(work, item) for item in islice(source, max(1, ahead)))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(source, 1))
                yield result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _lower_priority() -> None:
    # Linux has a priority for each thread, by its number. Elsewhere no process has such a number: nothing changes.
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWER_PRIORITY)
