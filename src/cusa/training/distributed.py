"""Several training processes as one: who they are, what they tell each other, and gradients across them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """The processes of one training, on one machine or several, as one of them sees it. One process needs no talk."""

    processes: int = 1
    process: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process is the one that validates, writes and speaks."""
        return self.process == 0

    def all_of(self, tensor: Tensor) -> Tensor:
        """[b, ...] of each process -> [b * processes, ...] in all, in the order of the processes.

        Gradients flow back to the process that a row came from, summed over all that used it. b must be the same
        everywhere.
        """
        if self.processes == 1:
            return tensor
        gathered: Tensor = _GatherRows.apply(tensor, self.processes, self.process)
        return gathered

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in some process; clocks and signals differ between them."""
        if self.processes == 1:
            return list(flags)
        told = torch.tensor([float(flag) for flag in flags], device=self.device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return [bool(flag) for flag in told.tolist()]

    def mean(self, values: Tensor) -> Tensor:
        """The mean of each value over the processes."""
        if self.processes == 1:
            return values
        values = values.detach().clone()
        dist.all_reduce(values)
        return values / self.processes

    def each(self, value: Any) -> list[Any]:
        """What every process says, in their order."""
        if self.processes == 1:
            return [value]
        values = [None] * self.processes
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:
        """What the first process says."""
        if self.processes == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]


def join(gpu: bool) -> Group:
    """The group that torchrun started this process in (nccl on GPUs, gloo without), or a group of its own."""
    processes, process = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if gpu:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if processes > 1:
        dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(minutes=30))
    return Group(processes, process, device)


def leave() -> None:
    """Part from the others, at the end of a training."""
    if dist.is_initialized():
        dist.destroy_process_group()


def die_with_launcher() -> None:
    """Have Linux kill this process when torchrun is killed with -9.

    torchrun starts its processes in a session of their own; orphans would go on training, and hold the lock, beside
    the copy that the same command starts.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class _GatherRows(torch.autograd.Function):
    """all_gather whose gradient is the sum of what all processes found for one's own rows.

    torch.distributed.nn.functional.all_gather does the same, but is deprecated.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, processes: int, process: int) -> Tensor:
        ctx.rows = slice(process * len(tensor), (process + 1) * len(tensor))
        gathered = tensor.new_empty((processes * len(tensor), *tensor.shape[1:]))
        dist.all_gather_into_tensor(gathered, tensor.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return summed[ctx.rows], None, None
