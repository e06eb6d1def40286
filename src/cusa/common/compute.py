"""Devices, mixed precision and random states of PyTorch."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal

import torch

from cusa.errors import ConfigurationError

log = logging.getLogger(__name__)


def random_state() -> dict[str, Any]:
    """The states of PyTorch's random generators in this process: `cpu`, and `cuda` (None without a GPU)."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the states that `random_state` returned."""
    torch.set_rng_state(state["cpu"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


Precision = Literal["fp32", "tf32", "fp16", "bf16"]
AUTOCAST_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def has_instructions(device: str, precision: Precision) -> bool:
    """Whether a device, `cpu` or `cuda`, multiplies matrices in a precision faster than in fp32.

    PyTorch computes it in any case. Without such instructions, a processor takes 5 to 100 times as long as in fp32.
    """
    if precision not in AUTOCAST_TYPES:
        return True
    if device == "cuda":
        return precision == "fp16" or torch.cuda.is_bf16_supported(including_emulation=False)
    supported = {"bf16": "_is_mkldnn_bf16_supported", "fp16": "_is_mkldnn_fp16_supported"}[precision]
    return bool(getattr(torch.ops.mkldnn, supported)())


@cache
def _warn_if_slow(device: str, precision: Precision) -> None:
    """Warn once per process."""
    if not has_instructions(device, precision):
        log.warning(
            "this %s has no instructions for %s, so it computes it many times slower than fp32; set the precision to "
            "fp32 (train.precision for trainings)",
            "GPU" if device == "cuda" else "processor",
            precision,
        )


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """A context with mixed precision for `fp16` and `bf16`; for the others a context that changes nothing.

    The log warns if that is slower than fp32 on the device.
    """
    dtype = AUTOCAST_TYPES.get(precision)
    _warn_if_slow(device.type, precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def set_matrix_precision(precision: Precision) -> None:
    """Let GPUs multiply matrices of float32 in TF32, which keeps 10 bits of 23, for `tf32`, and exactly for the others.

    This holds for the process, because backward passes look at it too; each training sets it. Convolutions stay as
    PyTorch has them.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def visible_gpus() -> int:
    """How many GPUs PyTorch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def choose_device(gpu: bool) -> torch.device:
    """The device `cuda` if `gpu` is true, else `cpu`. Raises ConfigurationError when PyTorch sees no GPU."""
    if gpu and not visible_gpus():
        raise ConfigurationError(
            "train.gpus asks for a GPU, but PyTorch sees none; set train.gpus: 0, or run nvidia-smi to see why."
        )
    device = torch.device("cuda" if gpu else "cpu")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    log.info("on %s%s", device.type, "" if visible is None else f", CUDA_VISIBLE_DEVICES={visible}")
    return device
