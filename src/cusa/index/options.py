"""The options of building an index."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cusa.errors import ConfigurationError
from cusa.index.meta import KINDS, Kind

Duplicates = Literal["near", "same", "none"]
DUPLICATES: tuple[Duplicates, ...] = ("near", "same", "none")


@dataclass(frozen=True)
class IndexOptions:
    """How an index is built. Raises ConfigurationError for values that make no sense.

    `kind` None chooses by measuring. `flat_rows` is the number of rows up to which a query is compared with each of
    them. `memory` is the most bytes that an index may take. `queries` is a folder that `cusa embed` wrote of texts:
    what users may ask for; None takes captions of the gallery, if there are some. `model` is a folder that answers
    queries, None: that of the gallery. `duplicates` says which rows are marked. `threads` None takes all processors.
    """

    target_recall: float = 0.95
    kind: Kind | None = None
    flat_rows: int = 20_000
    memory: int = 2 << 30
    seed: int = 23
    threads: int | None = None
    queries: Path | None = None
    model: Path | None = None
    duplicates: Duplicates = "near"

    def __post_init__(self) -> None:
        if not 0 < self.target_recall <= 1:
            raise ConfigurationError(f"the target recall is {self.target_recall}; expected a share, such as 0.95.")
        if self.kind is not None and self.kind not in KINDS:
            raise ConfigurationError(f"the kind of index is {self.kind!r}; expected one of {', '.join(KINDS)}.")
        if self.duplicates not in DUPLICATES:
            raise ConfigurationError(f"duplicates is {self.duplicates!r}; expected one of {', '.join(DUPLICATES)}.")
        for name in ("flat_rows", "memory", "threads"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigurationError(f"{name} is {value}; expected at least 1.")

    def stored(self) -> dict[str, Any]:
        """The options that meta.json keeps, so that a later change builds the index again as it was."""
        names = ("target_recall", "kind", "flat_rows", "memory", "seed", "duplicates")
        return {name: getattr(self, name) for name in names}

    def processors(self) -> int:
        """The number of threads."""
        return self.threads or len(os.sched_getaffinity(0))
