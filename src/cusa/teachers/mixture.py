"""Several teachers of one modality as one: the mean of their similarities, weighted by their shares.

The cosine similarity of [sqrt(s_1) u_1, sqrt(s_2) u_2, ...], where u_i are the unit features of teacher i and the
shares s_i add up to 1, is s_1 <u_1, u_1'> + s_2 <u_2, u_2'> + ... So code that reads the features of one teacher also
reads those of a mixture, and teachers may have any number of dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cusa.teachers.store import Features


class MixedFeatures:
    """The features of several teachers for the same rows, side by side, so that their similarities are mixed."""

    def __init__(self, parts: Sequence[tuple[Features, float]]) -> None:
        """`parts` are the features of each teacher and its share; all have the same number of rows."""
        self.parts = list(parts)

    def __len__(self) -> int:
        return len(self.parts[0][0])

    @property
    def dimension(self) -> int:
        """The dimensions of all teachers together."""
        return sum(features.dimension for features, _ in self.parts)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Copies of rows, float32 [len(rows), dimension], of norm 1 unless a teacher's features are 0."""
        mixed = np.empty((len(rows), self.dimension), dtype=np.float32)
        start = 0
        for features, share in self.parts:
            own = features[rows]
            norms = np.linalg.norm(own, axis=1, keepdims=True)
            own *= math.sqrt(share) / np.where(norms > 0, norms, 1.0)
            mixed[:, start : start + features.dimension] = own
            start += features.dimension
        return mixed
