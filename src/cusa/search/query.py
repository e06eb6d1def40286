"""A query of a search: texts, pictures and rows of the index, combined into one vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cusa.errors import ConfigurationError
from cusa.metrics.scores import unit_float32

EXCLUDE = "`not` (in Python: `exclude`)"  # its name in files, requests and options
EXCLUDED = 0.5  # share of the excluded texts' direction that is subtracted; see docs/search.md


@dataclass(frozen=True, eq=False)
class Query:
    """A text, a picture, or both; and texts that the hits should not be about.

    `image` is anything that `encode_image` of a model reads. `like` is the row of an item of the index, in place of a
    picture. If there are both a text and a picture (or row), the query is the weighted sum of their unit vectors:
    `weight`, from 0 to 1, is that of the picture. Raises ConfigurationError if these do not make a query.
    """

    text: str | None = None
    image: Any = None
    weight: float = 0.5
    exclude: Sequence[str] = ()
    like: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.exclude, str):
            object.__setattr__(self, "exclude", (self.exclude,))
        if self.text is None and self.image is None and self.like is None:
            raise ConfigurationError(
                "A query needs a text, a picture, or the row of an item; texts to exclude alone are not a query."
            )
        if self.image is not None and self.like is not None:
            raise ConfigurationError("A query has a picture and the row of an item; give one of them.")
        for name, texts in (("`text`", [] if self.text is None else [self.text]), (EXCLUDE, self.exclude)):
            for text in texts:
                if not isinstance(text, str):
                    raise ConfigurationError(f"{name} of a query is {text!r:.80}; expected a text.")
                if not text.strip():
                    raise ConfigurationError(f"{name} of a query is empty; expected a text with a word.")
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float) or not 0 <= self.weight <= 1:
            raise ConfigurationError(
                f"`weight` of a query is {self.weight!r:.80}; expected a number from 0 (text only) to 1 (picture only)."
            )
        if self.like is not None and (isinstance(self.like, bool) or not isinstance(self.like, int)):
            raise ConfigurationError(f"`like` of a query is {self.like!r:.80}; expected the number of a row.")

    @property
    def texts(self) -> list[str]:
        """Every text that the query needs an embedding of: its own, then those to exclude."""
        return [*([] if self.text is None else [self.text]), *self.exclude]

    def described(self) -> dict[str, Any]:
        """The parts that the query has, as a mapping that JSON can hold; a picture without a path is `picture`."""
        named = str(self.image) if isinstance(self.image, str | Path) else "picture"
        summed = self.text is not None and (self.image is not None or self.like is not None)
        parts = {
            "text": self.text,
            "image": None if self.image is None else named,
            "like": self.like,
            "weight": self.weight if summed else None,
            "not": list(self.exclude) or None,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def vector(self, text: np.ndarray | None, picture: np.ndarray | None, excluded: np.ndarray) -> np.ndarray:
        """The query as one unit vector, float32 [D], from the unit vectors of its parts.

        `text` and `picture` are [D], or None if the query has no such part; `excluded` is [n, D]. From the weighted
        sum, half of the direction of the excluded texts is subtracted. On the emoji of the embedded default this ranks
        as well as subtracting a penalty from the scores of items that resemble the excluded texts, and it needs no
        second search: every kind of index answers it.
        """
        if text is not None and picture is not None:
            wanted = unit(self.weight * picture + (1 - self.weight) * text)
        else:
            found = picture if text is None else text
            assert found is not None
            wanted = found
        return unit(wanted - EXCLUDED * unit(excluded.sum(axis=0))) if len(excluded) else unit(wanted)


def unit(vector: np.ndarray) -> np.ndarray:
    """A vector [D] of length 1, float32; a zero vector stays zero."""
    normalised: np.ndarray = unit_float32(vector[None])[0]
    return normalised
