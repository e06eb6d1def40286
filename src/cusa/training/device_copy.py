"""Copies of batches to a GPU in a stream of its own: they go on while the GPU computes the step before."""

from __future__ import annotations

import torch

from cusa.training.batches import TrainingBatch


class DeviceCopies:
    """Copies batches to a device.

    The host runs ahead of a GPU, so it starts the copy of a batch while the GPU still computes. In the same stream, the
    copy would wait for that work; in a separate stream it does not. Later work of the GPU waits for the copy; the host
    does not wait.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def copy(self, batch: TrainingBatch) -> TrainingBatch:
        """The batch on the device; the host does not wait for it if its memory is page-locked."""
        if self._stream is None:
            return batch.to(self.device)
        with torch.cuda.stream(self._stream):
            copied = batch.to(self.device)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self._stream)
        for tensor in copied.tensors():
            tensor.record_stream(computing)  # its memory is not given to a later copy before the step is done
        return copied
