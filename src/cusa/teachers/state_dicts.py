"""Reads state dicts of PyTorch: wrapped in a dict or not, with prefixes of wrapper modules, of any float type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cusa.errors import DataError

# The keys under which training programs save a model, beside its epoch and its optimiser.
WRAPPED_UNDER = ("model", "state_dict", "model_state_dict", "module", "net")
# The prefixes that DataParallel, DistributedDataParallel and torch.compile put before each name.
PREFIXES = ("module.", "_orig_mod.")
EXAMPLES = 5


def state_dict_of(content: Any, source: str) -> dict[str, Tensor] | None:
    """The state dict in a file's content: under one of WRAPPED_UNDER, or the content itself; None if there is none.

    The prefixes of wrapping modules are removed from the names. Raises DataError, which names `source`, if two weights
    then have one name.
    """
    if not isinstance(content, Mapping):
        return None
    for candidate in (*(content.get(key) for key in WRAPPED_UNDER), content):
        if (
            isinstance(candidate, Mapping)
            and candidate
            and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in candidate.items())
        ):
            return _unwrapped(candidate, source)
    return None


def _unwrapped(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    first: dict[str, str] = {}
    for name in state:
        if (other := first.setdefault(_without_prefixes(name), name)) != name:
            raise DataError(
                f"{source} has the weights `{other}` and `{name}`, which are one weight without the prefixes of "
                "wrapping programs; remove those that are not wanted, and save the others again."
            )
    return {short: state[name] for short, name in first.items()}


def _without_prefixes(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    return name


def require_plain(state: Mapping[str, Tensor], source: str) -> None:
    """Raise DataError, which lists examples, when tensors are sparse, complex, quantised or without numbers."""
    kinds = {name: kind for name, tensor in state.items() if (kind := _unusual_kind(tensor)) is not None}
    if kinds:
        raise DataError(
            f"{source}: {examples(list(kinds), len(state))} are {next(iter(kinds.values()))}; expected plain tensors "
            "of float32, float16 or bfloat16. Save the weights as such."
        )


def require_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise DataError, which lists examples, when tensors hold NaN or infinite numbers, or are no plain tensors."""
    require_plain(state, source)
    bad = [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all()
    ]
    if bad:
        raise DataError(
            f"{source}: {examples(bad, len(state))} hold NaN or infinite numbers, and then the features do too. The "
            "training that made them diverged, or half precision overflowed; give other weights."
        )


def _unusual_kind(tensor: Tensor) -> str | None:
    """The kind of a tensor that PyTorch would not copy into a model, or would with other numbers; None for others."""
    if tensor.is_meta:
        return "without numbers (the device meta)"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.is_complex():
        return "complex"
    eight_bits = tensor.dtype == torch.int8 or str(tensor.dtype).startswith("torch.float8")
    return "quantised to 8 bits" if tensor.is_quantized or (eight_bits and tensor.ndim > 1) else None


def examples(names: list[str], of: int) -> str:
    """`3 of 20 weights (a, b, c)`, with at most five names."""
    shown = ", ".join(names[:EXAMPLES]) + (", ..." if len(names) > EXAMPLES else "")
    return f"{len(names)} of {of} weights ({shown})"
