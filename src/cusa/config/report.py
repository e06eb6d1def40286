"""The section `report`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Self

from pydantic import Field, model_validator

from cusa.config.nearest_key import hint
from cusa.config.section import Count, Name, Section, Whole

MOST_PICTURES = 20_000  # on the page, which holds them all: some 80 MB


class Gallery(Section):
    """The part of the report that shows the results of several models side by side."""

    experiments: list[str] = Field(
        default=["contrastive", "cusa"], min_length=1, description="Experiments shown side by side."
    )
    text_queries: Whole = Field(default=12, description="Number of text queries.")
    image_queries: Whole = Field(default=6, description="Number of image queries.")
    top: Count = Field(default=5, description="Images shown for each query.")

    @model_validator(mode="after")
    def _fits_a_page(self) -> Self:
        pictures = (self.text_queries + self.image_queries) * self.top * len(self.experiments)
        if pictures > MOST_PICTURES:
            raise ValueError(
                f"(text_queries {self.text_queries} + image_queries {self.image_queries}) x top {self.top} x "
                f"{len(self.experiments)} experiments are {pictures:,} pictures, and a browser cannot show a page of "
                f"more than {MOST_PICTURES:,}; lower one of them"
            )
        return self


class Report(Section):
    """The HTML report, and the comparison in the summary."""

    gallery: Gallery = Gallery()
    reference: Name | None = Field(
        default="contrastive", description="Experiment that the others are compared with; null makes no comparison."
    )


def unknown_runs(report: Report, runs: Collection[str]) -> Iterator[str]:
    """A sentence for each name in the section that is none of `runs`, which has also those that are null.

    The names that the section has by default are not asked for, so they may be missing.
    """
    named = []
    if "reference" in report.model_fields_set and report.reference is not None:
        named.append(("report.reference", report.reference))
    if "experiments" in report.gallery.model_fields_set:
        named += [("report.gallery.experiments", name) for name in report.gallery.experiments]
    for key, name in named:
        if name not in runs:
            yield (
                f"Configuration key `{key}` names {name}, which is none of the experiments and checkpoints "
                f"({', '.join(sorted(runs))}); {hint(name, runs)}"
            )
