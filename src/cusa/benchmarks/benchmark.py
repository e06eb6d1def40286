"""What a benchmark gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Result:
    """What a benchmark found; metrics are in percent unless their name says rank.

    Where one benchmark scores several data sets, a metric is called `{data}/{metric}`, and `sizes` gives each data
    set's (queries, gallery). `per_query` holds, for metrics that are means over queries, what each query contributes
    (float64, from 0 to 1), so that two runs can be compared query by query. `published_as` says which benchmark and
    metric of the paper's tables a metric is.
    """

    metrics: Mapping[str, float]
    protocol: str
    n_queries: int
    n_gallery: int
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    per_query: Mapping[str, np.ndarray] = field(default_factory=dict)
    published_as: Mapping[str, tuple[str, str]] = field(default_factory=dict)
