"""The processes of one training: ranks, collectives, and gradients through gathered rows."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# PyTorch 2.14 gives this collective its new name; the lowest that is supported, 2.9, has the old one only.
_gather_rows: Callable[[Tensor, Tensor], Any] = (
    dist.all_gather_single if hasattr(dist, "all_gather_single") else dist.all_gather_into_tensor
)


@dataclass(frozen=True)
class Group:
    """The processes that train one run, on one machine or several, as one of them sees them.

    Every process must call the collectives (all methods) in the same order. With one process they return at once.
    """

    world_size: int = 1
    rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    # gloo, for messages between the hosts while the devices compute; None with one process
    hosts: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0, which validates, writes files and logs."""
        return self.rank == 0

    def gather_rows(self, tensor: Tensor) -> Tensor:
        """Gather [b, ...] of every process into [b * world_size, ...], in the order of ranks.

        b must be the same in every process. A row's gradient is the sum of its gradients in all processes.
        """
        if self.world_size == 1:
            return tensor
        gathered: Tensor = _AllGather.apply(tensor, self.world_size, self.rank)
        return gathered

    def any(self, *flags: bool) -> Callable[[], list[bool]]:
        """Start to find out, for each flag, whether any process has set it: clocks and signals differ between
        processes.

        The hosts communicate while their devices compute. The returned function waits for the answer.
        """
        if self.world_size == 1:
            return lambda: list(flags)
        values = torch.tensor(flags, dtype=torch.uint8)
        work = dist.all_reduce(values, dist.ReduceOp.MAX, group=self.hosts, async_op=True)

        def answer() -> list[bool]:
            work.wait()
            return [bool(value) for value in values.tolist()]

        return answer

    def mean(self, values: Tensor) -> Tensor:
        """The mean of each value over the processes, without gradients; the shape stays."""
        if self.world_size == 1:
            return values
        values = values.detach().clone()
        dist.all_reduce(values)
        return values / self.world_size

    def gather_objects(self, value: Any) -> list[Any]:
        """The value of every process, in the order of ranks; any object that pickle can write."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0; the values of the other processes are ignored."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


class SharedFlags:
    """Flags that any process may set. All processes read them at the same step, one step later.

    The answer is communicated while the devices take a step, so no device waits for it. With one process, the flags are
    read at once.
    """

    def __init__(self, group: Group, count: int) -> None:
        self._group = group
        self._earlier: Callable[[], list[bool]] | None = None
        self._none = [False] * count

    def read(self, *flags: bool, now: bool) -> list[bool]:
        """For each flag, whether any process has set it; every process calls this after every step.

        `now` also waits for the flags of this step. A set flag does so too, so that no communication is pending when
        the processes act on it.
        """
        started = self._group.any(*flags)
        earlier, self._earlier = self._earlier, started
        found = self._none if earlier is None else earlier()
        if now or any(found) or self._group.world_size == 1:
            found = [one or other for one, other in zip(found, started(), strict=True)]
            self._earlier = None
        return found


def join(gpu: bool) -> Group:
    """The group that torchrun started this process in, or a group of one process without torchrun.

    `gpu` chooses nccl and this process's GPU; otherwise the processes use gloo and the CPU.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if gpu:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if world_size == 1:
        return Group(device=device)
    dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(minutes=30))
    return Group(world_size, rank, device, dist.new_group(backend="gloo"))


def leave() -> None:
    """Leave the group, at the end of a training."""
    if dist.is_initialized():
        dist.destroy_process_group()


def die_with_launcher() -> None:
    """Ask Linux to kill this process when torchrun is killed with -9.

    torchrun starts each process in its own session. Without this, the processes would continue to train and to hold
    the run's lock, beside the processes that the same command starts next.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class _AllGather(torch.autograd.Function):
    """all_gather with gradients: each process gets the sum, over all processes, of the gradients of its own rows.

    torch.distributed.nn.functional.all_gather does the same, but is deprecated.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, world_size: int, rank: int) -> Tensor:
        ctx.rows = slice(rank * len(tensor), (rank + 1) * len(tensor))
        gathered = tensor.new_empty((world_size * len(tensor), *tensor.shape[1:]))
        _gather_rows(gathered, tensor.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return summed[ctx.rows], None, None
