"""Search settings of an index, found by measuring: the quickest ones that reach the target recall."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cusa.gallery.store import Vectors
from cusa.index.meta import Kind, SearchSettings, Trial
from cusa.index.sample import TOP, Sample
from cusa.index.searching import faiss_nearest

RERANK = (1, 2, 5, 10, 20, 50)  # candidates for each of the TOP results
EF_SEARCH = (16, 32, 64, 128, 256, 512, 1024)
STEPS_BETWEEN = 2  # values that are tried between the last that misses the target and the first that reaches it
TIMED = 50  # queries
AT_ONCE = 64  # queries


def reaches(recalls: dict[str, np.ndarray], target: float) -> bool:
    """Whether the recall of every sample, less the standard error of its mean, is at least the target."""
    return all(values.mean() - values.std() / np.sqrt(len(values)) >= target for values in recalls.values())


class Tuner:
    """Measures settings of one index. `trials` has all that were measured."""

    def __init__(
        self, kind: Kind, factory: str, index: Any, size: int, vectors: Vectors, samples: Sequence[Sample]
    ) -> None:
        self.kind, self.factory, self.index, self.size = kind, factory, index, size
        self.vectors, self.samples = vectors, samples
        self.trials: list[Trial] = []
        self._reaching: list[Trial] = []

    def best(self, target: float) -> Trial | None:
        """The quickest setting that reaches the target; None if none does."""
        if self.kind == "flat":
            self._measure(SearchSettings(), target)
        elif self.kind == "hnsw":
            self._first_that_reaches(list(EF_SEARCH), target)
        else:
            lists = self.index.nlist
            self._first_that_reaches([2**power for power in range(2, 30) if 2**power < lists] + [lists], target)
        return min(self._reaching, key=lambda trial: trial.milliseconds, default=None)

    def _first_that_reaches(self, values: list[int], target: float) -> None:
        """Measure rising values until one reaches the target, and a few between it and the one before."""
        before = 0
        for value in values:
            if self._try(value, target):
                between = np.linspace(before, value, STEPS_BETWEEN + 2)[1:-1].round().astype(int).tolist()
                for middle in between if before else []:
                    if middle not in values and self._try(middle, target):
                        break
                return
            before = value

    def _try(self, value: int, target: float) -> bool:
        """Measure one nprobe with the fewest candidates that reach the target, or one efSearch."""
        if self.kind == "hnsw":
            return self._measure(SearchSettings(ef_search=value), target)
        most = SearchSettings(nprobe=value, rerank=RERANK[-1])
        if not reaches(self.recalls(most), target):
            self._note(most, self.recalls(most), target)
            return False
        return any(self._measure(SearchSettings(nprobe=value, rerank=rerank), target) for rerank in RERANK)

    def _measure(self, settings: SearchSettings, target: float) -> bool:
        return self._note(settings, self.recalls(settings), target)

    def _note(self, settings: SearchSettings, recalls: dict[str, np.ndarray], target: float) -> bool:
        trial = Trial(
            kind=self.kind,
            factory=self.factory,
            search=settings,
            recall={name: round(float(values.mean()), 4) for name, values in recalls.items()},
            milliseconds=round(self._milliseconds(settings), 3),
            bytes=self.size,
        )
        self.trials.append(trial)
        if reached := reaches(recalls, target):
            self._reaching.append(trial)
        return reached

    def recalls(self, settings: SearchSettings) -> dict[str, np.ndarray]:
        """The recall of each query of each sample, float64 [n], by the sample's name."""
        return {sample.name: sample.recall(self._scores(sample.queries, settings)) for sample in self.samples}

    def _scores(self, queries: np.ndarray, settings: SearchSettings) -> np.ndarray:
        parts = [
            faiss_nearest(self.index, settings, self.vectors, queries[start : start + AT_ONCE], TOP)[0]
            for start in range(0, len(queries), AT_ONCE)
        ]
        return np.concatenate(parts)

    def _milliseconds(self, settings: SearchSettings) -> float:
        """The median time of one query, over the samples in turn."""
        queries = np.concatenate([sample.queries[:TIMED] for sample in self.samples])
        times = []
        for number in range(len(queries)):
            started = time.perf_counter()
            faiss_nearest(self.index, settings, self.vectors, queries[number : number + 1], TOP)
            times.append(time.perf_counter() - started)
        return 1000 * float(np.median(times))
