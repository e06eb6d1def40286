"""The costs of steps for the rows of the history: pairs, images and operations a second, waiting, and memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cusa.common.memory import peak_memory_gib
from cusa.common.peak_flops import peak_flops

# The columns that `speeds` gives.
SPEEDS = (
    "samples_per_second",
    "images_per_second",
    "data_wait_share",
    "model_flops_per_second",
    "mfu",
    "memory_gib",
)


@dataclass(frozen=True)
class Spent:
    """The costs of batches in one process: seconds of waiting for them, their images, and operations.

    An image that pairs of a batch share counts once, where it is encoded once. If the image tower is frozen, none is
    encoded, and `images` counts those whose features are read.
    `flops` are floating-point operations as flops.py counts them; 0 in processes that do not count.
    """

    seconds_waited: float = 0.0
    images: int = 0
    flops: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.seconds_waited + other.seconds_waited, self.images + other.images, self.flops + other.flops)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.seconds_waited - other.seconds_waited, self.images - other.images, self.flops - other.flops)


def speeds(pairs: int, seconds: float, spent: Spent, processes: int, peak: float | None) -> dict[str, float | None]:
    """The columns SPEEDS of some steps. `pairs` counts those of all processes; `spent` are this process's costs.

    Images and operations are those of this process, times the number of processes, which do the same. `peak` is the
    highest number of operations a second of this process's device, `mfu` a share of it; both are None if it is not
    known. `memory_gib` is the most memory of this process so far, without that of its GPU and of its loader's workers.
    """
    seconds = max(seconds, 1e-9)
    own_speed = spent.flops / seconds
    return {
        "samples_per_second": pairs / seconds,
        "images_per_second": spent.images * processes / seconds,
        "data_wait_share": spent.seconds_waited / seconds,
        "model_flops_per_second": own_speed * processes or None,
        "mfu": own_speed / peak if peak and own_speed else None,
        "memory_gib": peak_memory_gib(),
    }


def peak_of(device: torch.device, precision: str) -> float | None:
    """The highest number of operations a second of a device with `train.precision`; None on the CPU, see peak_flops."""
    return peak_flops(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None
