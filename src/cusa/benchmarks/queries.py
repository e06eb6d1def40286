"""The queries of a benchmark, so that readers see which of them a model answers.

A benchmark's module may have `queries(folder, metric)`. It returns Queries for a metric of its statistics, in the order
of the outcomes, or None if it cannot list them. It reads only the annotations, so existing scores need not be computed
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cusa.annotations.tables import SplitTables
from cusa.layout import DatasetFolder


@dataclass(frozen=True, eq=False)
class Items:
    """Pictures or texts; one array of embeddings has a row for each.

    `array` is the file embeddings/{data}/{array}.npy of a run, with `count` rows; `rows`, int64 [n], are those of the
    items. Pictures are those at the positions `rows` of the split `split` of `folder`; `texts` are the texts of these
    rows, and None for pictures.
    """

    folder: DatasetFolder
    data: str
    split: str
    array: Literal["image_cross", "image_uni", "text_cross", "text_uni"]
    count: int
    rows: np.ndarray
    texts: Sequence[str] | None = None

    @classmethod
    def pictures(
        cls, folder: DatasetFolder, data: str, split: str, array: Literal["image_cross", "image_uni"], count: int
    ) -> Items:
        """All pictures of a split."""
        return cls(folder, data, split, array, count, np.arange(count))


@dataclass(frozen=True, eq=False)
class Queries:
    """Queries and the gallery that they search; None for a gallery if each query is a pair that is only compared.

    `with_itself` says that the gallery contains the queries, so a query's own row is left out of its results.
    """

    items: Items
    gallery: Items | None
    with_itself: bool = False


def test_captions(folder: DatasetFolder) -> Items:
    """The captions of the test split."""
    tables = SplitTables.open(folder, "test", captions=["caption"])
    texts = tables.captions["caption"].to_pylist()
    return Items(folder, "test", "test", "text_cross", len(texts), np.arange(len(texts)), texts)


def test_pictures(folder: DatasetFolder) -> Items:
    """The pictures of the test split."""
    return Items.pictures(folder, "test", "test", "image_cross", len(SplitTables.open(folder, "test").image_rows))


def across(metric: str, texts: Items, pictures: Items) -> Queries:
    """The queries of a metric i2t_... or t2i_..., with or without a data set's name before it."""
    to_texts = metric.rpartition("/")[2].startswith("i2t_")
    return Queries(pictures, texts) if to_texts else Queries(texts, pictures)
