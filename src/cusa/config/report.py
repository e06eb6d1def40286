"""The section `report`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Annotated

from pydantic import Field

from cusa.config.section import Count, Name, Section


class Gallery(Section):
    """The part of the report that shows the results of several models side by side."""

    experiments: list[str] = Field(
        default=["contrastive", "cusa"], min_length=1, description="Experiments shown side by side."
    )
    text_queries: Annotated[int, Field(ge=0)] = Field(default=12, description="Number of text queries.")
    image_queries: Annotated[int, Field(ge=0)] = Field(default=6, description="Number of image queries.")
    top: Count = Field(default=5, description="Images shown for each query.")


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
            similar = next(iter(get_close_matches(name, runs, n=1)), None)
            hint = f"did you mean {similar}?" if similar else "correct it, or leave it out."
            yield (
                f"Configuration key `{key}` names {name}, which is none of the experiments and checkpoints "
                f"({', '.join(sorted(runs))}); {hint}"
            )
