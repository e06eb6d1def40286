"""Chooses the kind of index of a gallery: the quickest that reaches the target recall."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cusa.errors import ConfigurationError
from cusa.index.kinds import FEWEST_ROWS, Plan, add, factory, size, trained
from cusa.index.meta import Kind, SearchSettings, Trial
from cusa.index.options import IndexOptions
from cusa.index.sample import Sample
from cusa.index.tuning import Tuner

log = logging.getLogger(__name__)
GRAPH_ROWS = 200_000  # a graph of more rows takes very long to make
# Up to this number of rows, all kinds are built, and the quickest is taken. With more rows, each kind takes minutes to
# hours, so the first that reaches the target is taken, the smallest first.
COMPARED_ROWS = 200_000


@dataclass
class Chosen:
    """An index of faiss that holds all rows, how it is searched, and what was measured on the way."""

    kind: Kind
    factory: str
    index: Any
    search: SearchSettings
    recall: float
    tried: list[Trial] = field(default_factory=list)


def choose(plan: Plan, held: np.ndarray, samples: Sequence[Sample], options: IndexOptions) -> Chosen:
    """Build and measure kinds of index until the target recall is met at the least cost.

    `plan.rows` are all rows; `held` are those of them which serve as queries, so they are added after the measuring.
    Raises ConfigurationError if no kind fits into the memory.
    """
    if not samples:
        index = trained("flat", plan)
        add(index, plan.vectors, plan.rows)
        return Chosen("flat", factory("flat", plan), index, SearchSettings(), 1.0)
    measured = np.setdiff1d(plan.rows, held, assume_unique=True)
    trials: list[Trial] = []
    best: tuple[Trial, Any] | None = None
    for kind in _candidates(plan, options):
        index = trained(kind, plan)
        add(index, plan.vectors, measured)
        tuner = Tuner(kind, factory(kind, plan), index, size(kind, plan), plan.vectors, samples)
        found = tuner.best(options.target_recall)
        trials += tuner.trials
        if found is not None and (best is None or found.milliseconds < best[0].milliseconds):
            best = found, index
        if best is not None and len(plan.rows) > COMPARED_ROWS:
            break
        del index
    if best is None and options.kind is not None:
        raise ConfigurationError(_nothing_reaches(trials, options))
    if best is None:
        log.warning("no index reaches the recall %s, so queries are compared with all rows", options.target_recall)
        index = trained("flat", plan)
        add(index, plan.vectors, plan.rows)
        return Chosen("flat", factory("flat", plan), index, SearchSettings(), 1.0, trials)
    trial, index = best
    add(index, plan.vectors, held)
    trials = [one.model_copy(update={"chosen": one is trial}) for one in trials]
    return Chosen(trial.kind, trial.factory, index, trial.search, min(trial.recall.values()), trials)


def _candidates(plan: Plan, options: IndexOptions) -> Iterator[Kind]:
    """The kinds to try, the smallest first."""
    has_codes = len(plan.rows) >= FEWEST_ROWS
    if options.kind is not None:
        if options.kind == "ivf_pq" and not has_codes:
            raise ConfigurationError(
                f"the kind ivf-pq learns its codes from {FEWEST_ROWS} rows at least, but there are {len(plan.rows)}; "
                "leave --kind out."
            )
        yield options.kind
        return
    kinds: list[Kind] = ["ivf_pq", "ivf_sq"] if has_codes else ["ivf_sq"]
    if len(plan.rows) <= GRAPH_ROWS:
        kinds.append("hnsw")
    fitting = [kind for kind in kinds if size(kind, plan) <= options.memory]
    if not fitting:
        raise ConfigurationError(
            f"the smallest index of {len(plan.rows):,} rows takes about {size('ivf_pq', plan) / 2**30:.1f} GiB, but "
            f"{options.memory / 2**30:.1f} GiB are allowed; give more by --memory."
        )
    yield from fitting


def _nothing_reaches(trials: Sequence[Trial], options: IndexOptions) -> str:
    best = max(trials, key=lambda trial: min(trial.recall.values()))
    reached = ", ".join(f"{name} {value:.3f}" for name, value in best.recall.items())
    return (
        f"no index reaches the target recall {options.target_recall} (the best, {best.factory}, has {reached}); lower "
        "--target-recall, or take --kind flat, which is exact."
    )
