"""The section `report`."""

from __future__ import annotations

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
