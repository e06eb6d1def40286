"""Tensors that say they are on a GPU and have no values: they find mixed devices where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
import torch.cuda.amp.common
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cusa.common import transfer

CUDA = torch.device("cuda", 0)


@contextmanager
def fake_gpu(*modules: nn.Module) -> Iterator[None]:
    """A block in which tensors are fake, and the weights and buffers of modules are on a GPU.

    Tensors that were made before are on the host. An operation with tensors on different devices raises as it does with
    a GPU. What reads a value on the host (`item()`, `tolist()`, an `if`) raises too: on a GPU it would wait. Backward
    passes need a real GPU.
    """
    mode = FakeTensorMode(static_shapes=True, allow_non_fake_inputs=True)
    parts = [part for module in modules for part in module.modules()]
    _replace(parts, lambda tensor: mode.from_tensor(tensor.detach()))
    with pytest.MonkeyPatch.context() as patch:
        # Without a GPU, autocast and GradScaler would switch themselves off.
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
        patch.setattr(Tensor, "numpy", _zeros_of_the_host)
        patch.setattr(Tensor, "pin_memory", lambda tensor: tensor)  # not implemented for fake tensors
        with mode:
            _replace(parts, lambda tensor: tensor.detach().to(CUDA))
            yield


class _Stream:
    """In the place of torch's streams and events, which need a driver: work is done in the order in which it comes."""

    def __init__(self, *_: object) -> None: ...

    wait_stream = record = synchronize = __init__


def without_streams(patch: pytest.MonkeyPatch) -> None:
    """Let copies between host and GPU, which run in streams of their own, be made with fake tensors."""
    for name in ("Stream", "Event", "current_stream"):
        patch.setattr(torch.cuda, name, _Stream)
    patch.setattr(torch.cuda, "stream", nullcontext)
    patch.setattr(transfer, "_STREAMS", {})
    patch.setattr(Tensor, "record_stream", lambda *_: None)


def _zeros_of_the_host(tensor: Tensor) -> np.ndarray:
    """What `numpy()` gives of a fake tensor, which has no values; as ever, it has to be on the host."""
    assert tensor.device.type == "cpu", "numpy() of a tensor on a GPU"
    return np.zeros(tensor.shape, dtype=str(tensor.dtype).removeprefix("torch."))


def _replace(parts: Sequence[nn.Module], change: Callable[[Tensor], Tensor]) -> None:
    """Put changed tensors in the place of the weights and buffers of modules; shared weights stay shared."""
    changed: dict[Tensor, nn.Parameter] = {}
    for part in parts:
        for name, weight in part._parameters.items():
            if weight is not None and weight not in changed:
                changed[weight] = nn.Parameter(change(weight), requires_grad=weight.requires_grad)
            if weight is not None:
                part._parameters[name] = changed[weight]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = change(buffer)
