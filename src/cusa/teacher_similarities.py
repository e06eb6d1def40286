"""The frozen teachers' cosine similarities of the pairs of a batch. They need no gradients.

Unicom's features have up to 37,632 numbers, so on a GPU their products cost time, and memory if they are gathered.
`half` multiplies unit vectors of float16 and sums in float32. Rounding a vector of length 1 to float16 moves its
similarities by about 1e-5, and the losses by less than 1e-4: a test measures it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cusa.common.distinct import of_pairs
from cusa.errors import ConfigurationError

GatherRows = Callable[[Tensor], Tensor]
TEACHER_COLUMNS = 2048  # columns of teacher features that are gathered at once; Unicom's features have up to 37,632


def normalised(name: str, features: Tensor | None) -> Tensor:
    """Features [B, d] with rows of length 1, at least float32. Raises ConfigurationError if they are None."""
    if features is None:
        raise ConfigurationError(
            f"the losses that are switched on need {name}, but it is None; pass it, or switch these losses off."
        )
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    return F.normalize(features, dim=1)


def teacher_similarity(
    name: str, features: Tensor | None, row_of_pair: Tensor | None, gather_rows: GatherRows | None, half: bool = False
) -> Tensor:
    """The cosine similarities of pairs, [b, B]: of the rows `row_of_pair` of features [n, d], each two compared once.

    With `gather_rows`, see CUSALoss.forward, some columns of the features are gathered at a time, to save memory.
    """
    units = normalised(name, features)
    if half:
        units = units.half()
    if gather_rows is None:
        similarity = _products(units, units)
        return similarity if row_of_pair is None else similarity[row_of_pair[:, None], row_of_pair]
    parts = (of_pairs(part, row_of_pair) for part in torch.split(units, TEACHER_COLUMNS, dim=1))
    first = next(parts)
    similarity = _products(first, gather_rows(first))
    for part in parts:
        similarity += _products(part, gather_rows(part))
    return similarity


def _products(rows: Tensor, others: Tensor) -> Tensor:
    """The products of all rows [b, d] and [B, d], at least float32: [b, B]."""
    if rows.dtype != torch.float16:
        return rows @ others.T
    if rows.device.type == "cuda":
        return torch.mm(rows, others.T, out_dtype=torch.float32)
    return rows.float() @ others.float().T  # the same products and sums; a CPU is slower in float16
