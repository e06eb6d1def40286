"""The section `report`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cusa.config.section import Count, Name, Section


class Gallery(Section):
    """The side-by-side pictures of the report."""

    experiments: list[str] = Field(
        default=["contrastive", "cusa"], min_length=1, description="Models shown side by side."
    )
    text_queries: Annotated[int, Field(ge=0)] = 12
    image_queries: Annotated[int, Field(ge=0)] = 6
    top: Count = Field(default=5, description="Pictures shown for each query.")


class Report(Section):
    """The HTML page."""

    gallery: Gallery = Gallery()
    reference: Name | None = Field(
        default="contrastive", description="Experiment that the others are compared with; null compares with none."
    )
