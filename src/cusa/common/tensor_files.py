"""Files that torch.save wrote: which plain values they may hold, and what a file is that is not read as tensors."""

from __future__ import annotations

import argparse
import codecs
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cusa.common.text import GZIP, stand_in

HEAD = 4096  # bytes
SAFETENSORS_HEADER = slice(8, 10)  # after eight bytes with its length
LONGEST_REASON = 200  # characters
# What PyTorch says of an object of a class, and the advice before it, which would execute what the file holds.
_CLASS = re.compile(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)|GLOBAL ([\w.]+) was not an allowed global")
_ADVICE = re.compile(r"Weights only load failed\..*?(?=WeightsUnpickler error)|\x1b\[[0-9;]*m", re.DOTALL)
ALONE = "save its state dict alone, with torch.save(model.state_dict(), FILE)"

# NumPy 1 and 2 call the function that makes a number by different names.
_SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_NUMBERS = tuple(type(np.dtype(kind)) for kind in "?bhilqBHILQefd")


def plain_classes() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What a file of tensors may hold beside plain values, for torch.serialization.safe_globals.

    Programs save their arguments (argparse.Namespace) and their best scores (numbers of NumPy) beside the weights.
    Reading these executes no code from the file.
    """
    scalar = np.float64(0).__reduce__()[0]
    assert callable(scalar)
    return [argparse.Namespace, np.dtype, *_NUMBERS, *((scalar, name) for name in _SCALAR)]


def why_no_tensors(path: str | Path, error: Exception) -> str:
    """The reason why `error` was raised for a file, as a remark in brackets, and what to do if that is known."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(HEAD)
    except OSError as unreadable:
        return unreadable.strerror or str(unreadable)
    if not start:
        return "it has zero bytes"
    if (what := stand_in(start)) is not None:
        return f"it {what}"
    if start.startswith(GZIP):
        return "it is compressed with gzip; unpack it"
    if start[SAFETENSORS_HEADER] == b'{"':
        return "it is a safetensors file; give it the ending .safetensors"
    if b"\0" not in start and _is_text(start):
        return "it is text"
    message = str(error)
    if start[:1] == b"\x80" and "Unsupported operand" in message:  # torch.save writes protocol 2
        return "it is a pickle of Python, not of torch.save"
    if "TorchScript" in message:
        return f"it is a program of TorchScript; {ALONE}"
    if "legacy .tar format" in message:
        return "it is a tar, perhaps around a file of weights; unpack it"
    if "not in a subdirectory" in message:
        return "it is a ZIP archive, perhaps around a file of weights; unpack it"
    if (match := _CLASS.search(message)) is not None:
        return f"it holds {match[1] or match[2]}; {ALONE}"
    return " ".join(_ADVICE.sub("", message).split())[:LONGEST_REASON] or type(error).__name__


def _is_text(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # the last character may be incomplete
    except UnicodeDecodeError:
        return False
    return True
