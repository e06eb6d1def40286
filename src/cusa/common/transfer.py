"""Copies between the host and a GPU that neither of them waits for. On the CPU nothing is copied."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

AHEAD = 2  # batches that are computed before the results of the first of them are asked for


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor in page-locked memory, which a GPU copies from without the host, if `device` is one."""
    return tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor


def on_host(batches: Iterable[Sequence[Tensor]]) -> Iterator[list[Tensor]]:
    """The tensors of each batch on the CPU, in order.

    The results of a batch are copied from a GPU while it computes the next ones: a batch is given only when the AHEAD
    next ones were asked for.
    """
    started: deque[tuple[list[Tensor], torch.cuda.Event | None]] = deque()
    for batch in batches:
        started.append(_start(batch))
        if started[0][1] is None or len(started) > AHEAD:
            yield _finished(*started.popleft())
    while started:
        yield _finished(*started.popleft())


def _start(batch: Sequence[Tensor]) -> tuple[list[Tensor], torch.cuda.Event | None]:
    """Copies of tensors that have been started, and what says that they are complete; None if they are."""
    if not batch or batch[0].device.type != "cuda":
        return list(batch), None
    computing = torch.cuda.current_stream(batch[0].device)
    copying = _copying_stream(batch[0].device)
    copying.wait_stream(computing)
    with torch.cuda.stream(copying):
        copies = []
        for tensor in batch:
            # The allocator keeps page-locked memory that was freed, so that only the first batches wait for it.
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            copies.append(copy.copy_(tensor, non_blocking=True))
            tensor.record_stream(copying)  # its memory is not used again before it is copied
        complete = torch.cuda.Event()  # type: ignore[no-untyped-call]
        complete.record(copying)
    return copies, complete


def _finished(copies: list[Tensor], complete: torch.cuda.Event | None) -> list[Tensor]:
    if complete is not None:
        complete.synchronize()
    return copies


_STREAMS: dict[torch.device, torch.cuda.Stream] = {}


def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of copies to the host, one a device."""
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _STREAMS[device]
