"""Copies of small tensors for the host, which reads them later, so that neither host nor device waits."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A copy of some numbers on a device, which starts at once and is read later.

    On a GPU the copy is queued after the device's earlier work, into page-locked memory. `read` waits for the copy;
    this costs no time if the device has another step to compute.
    """

    def __init__(self, values: Tensor) -> None:
        """`values` is float [n]; it may be changed afterwards."""
        self._ready: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values.detach(), non_blocking=True)
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record()
        else:
            self._values = values.detach().clone()

    def read(self) -> list[float]:
        """The numbers."""
        if self._ready is not None:
            self._ready.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers
