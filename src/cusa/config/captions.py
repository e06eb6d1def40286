"""The section `captions`, and the cleaning of a data set's captions that follows from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from cusa.config.dataset import DatasetSection, load_dataset
from cusa.config.dataset_section import Cleaning
from cusa.config.section import Count, Section, validate

PUBLISHED_WORDS = 64


class CaptionCleaning(Section):
    """How captions are cleaned before the tokeniser and the text teacher read them."""

    clean: Cleaning
    max_words: Count | None

    def __str__(self) -> str:
        """In words, for logs and for meta.json."""
        if self == PUBLISHED:
            return "caption clean-up as published"
        limit = "any number of" if self.max_words is None else f"at most {self.max_words}"
        return f"caption clean-up {self.clean}, {limit} words"


PUBLISHED = CaptionCleaning(clean="published", max_words=PUBLISHED_WORDS)


class Captions(Section):
    """Keys of the section `captions`."""

    clean: Literal["published", "none"] | None = Field(
        default=None,
        description="`published`: the clean-up of the paper (lower case, punctuation to spaces); `none` keeps the "
        "caption, but for runs of white space, which become one blank. null takes the default of the format.",
    )
    max_words: Count | None = Field(
        default=None,
        description="Captions are cut after this many words; null cuts none. Not given: 64 for `published`, null for "
        "`none`.",
    )

    def cleaning(self, dataset: DatasetSection) -> CaptionCleaning:
        """The cleaning of a data set's captions."""
        clean = self.clean or dataset.cleaning
        implied = PUBLISHED_WORDS if clean == "published" else None
        return CaptionCleaning(
            clean=clean, max_words=self.max_words if "max_words" in self.model_fields_set else implied
        )


def conversion_json(dataset: DatasetSection, cleaning: CaptionCleaning) -> str:
    """The settings that a conversion depends on, as one line of JSON for the parameters of its job.

    It is the section `dataset` alone if captions are cleaned as published. Earlier releases had only this cleaning, and
    their results must not be converted again.
    """
    if cleaning == PUBLISHED:
        return dataset.as_json()
    sections = {"captions": cleaning.as_json(), "dataset": dataset.as_json()}
    return json.dumps({name: json.loads(section) for name, section in sections.items()}, sort_keys=True)


def read_conversion(mapping: Mapping[str, Any]) -> tuple[DatasetSection, CaptionCleaning]:
    """The sections that `conversion_json` wrote. Raises ConfigurationError if a key is wrong."""
    if "format" in mapping:
        return load_dataset(mapping), PUBLISHED
    dataset = load_dataset(mapping.get("dataset", {}))
    return dataset, validate(Captions, mapping.get("captions", {}), at="captions").cleaning(dataset)
