"""The kinds of index: how each is made, how large it is, and which search settings it can be given.

`flat` compares a query with every row. `hnsw` walks a graph of neighbours. `ivf_pq` and `ivf_sq` divide the rows into
lists and visit the nearest few; they hold the rows compressed (to D/8 bytes, and to D bytes), and the best candidates
are compared once more by their embeddings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cusa.gallery.store import Vectors
from cusa.index.galleries import blocks
from cusa.index.meta import Kind
from cusa.metrics.neighbours import import_faiss

LINKS = 32  # of a row of the graph; twice as many in its lowest layer
EF_CONSTRUCTION = 80
POINTS_PER_LIST = 50  # that the lists are trained on
TRAINING_BYTES = 512 << 20
ITERATIONS = 10  # of k-means
BITS = 8
FEWEST_ROWS = 1 << BITS  # that codes of so many bits can be learned from
ID_BYTES = 8


@dataclass(frozen=True)
class Plan:
    """The rows to index: mapped `vectors` [n, D], the numbers of the `rows` among them, and a seed."""

    vectors: Vectors
    rows: np.ndarray
    seed: int

    @property
    def dimension(self) -> int:
        """The length D of the embeddings."""
        return self.vectors.shape[1]

    @cached_property
    def lists(self) -> int:
        """How many inverted lists there are: the power of two that is nearest to twice the root of the rows."""
        power = round(math.log2(2 * math.sqrt(len(self.rows))))
        return max(1, min(1 << power, len(self.rows) // POINTS_PER_LIST))

    @cached_property
    def sample(self) -> np.ndarray:
        """The rows that lists and codes are trained on, float32 [m, D]."""
        count = min(len(self.rows), POINTS_PER_LIST * self.lists, TRAINING_BYTES // (4 * self.dimension))
        count = max(count, min(len(self.rows), POINTS_PER_LIST * 2**BITS))
        chosen = np.random.default_rng(self.seed).choice(len(self.rows), count, replace=False)
        return self.vectors[self.rows[np.sort(chosen)]]

    @cached_property
    def centres(self) -> Any:
        """The centres of the inverted lists, a flat index of faiss that every kind shares."""
        faiss = import_faiss()
        means = faiss.Kmeans(
            self.dimension,
            self.lists,
            niter=ITERATIONS,
            spherical=True,
            seed=self.seed + 1,
            max_points_per_centroid=len(self.sample) // self.lists + 1,
            min_points_per_centroid=1,
        )
        means.train(self.sample)
        centres = faiss.IndexFlatIP(self.dimension)
        centres.add(means.centroids)
        return centres


def subvectors(dimension: int) -> int:
    """Into how many subvectors a row is divided, one byte each: the smallest divisor that is at least D/8."""
    return next(count for count in range(max(1, dimension // 8), dimension + 1) if dimension % count == 0)


def factory(kind: Kind, plan: Plan) -> str:
    """The index as faiss.index_factory names it."""
    return {
        "flat": "IDMap,Flat",
        "hnsw": f"IDMap,HNSW{LINKS},Flat",
        "ivf_sq": f"IVF{plan.lists},SQ8",
        "ivf_pq": f"IVF{plan.lists},PQ{subvectors(plan.dimension)}",
    }[kind]


def size(kind: Kind, plan: Plan) -> int:
    """About how many bytes the index takes, on disk and while it is made."""
    row = {
        "flat": 4 * plan.dimension,
        "hnsw": 4 * plan.dimension + 4 * 2 * LINKS + 4 * LINKS + ID_BYTES,
        "ivf_sq": plan.dimension + ID_BYTES,
        "ivf_pq": subvectors(plan.dimension) + ID_BYTES,
    }[kind]
    return row * len(plan.rows) + (4 * plan.dimension * plan.lists if kind.startswith("ivf") else 0)


def trained(kind: Kind, plan: Plan) -> Any:
    """An empty index of faiss that rows can be added to by `add`. Ids are row numbers."""
    faiss = import_faiss()
    metric = faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        return faiss.IndexIDMap(faiss.IndexFlatIP(plan.dimension))
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(plan.dimension, LINKS, metric)
        graph.hnsw.efConstruction = EF_CONSTRUCTION
        return faiss.IndexIDMap(graph)
    if kind == "ivf_sq":
        code = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(plan.centres, plan.dimension, plan.lists, code, metric)
    else:
        index = faiss.IndexIVFPQ(plan.centres, plan.dimension, plan.lists, subvectors(plan.dimension), BITS, metric)
        index.pq.cp.seed = plan.seed + 2
        index.pq.cp.min_points_per_centroid = 1
    index.train(plan.sample)
    return index


def add(index: Any, vectors: Vectors, rows: np.ndarray) -> None:
    """Add rows of `vectors`, whose numbers become their ids, one block after the other."""
    for numbers, block in blocks(vectors, rows):
        index.add_with_ids(block, numbers)
