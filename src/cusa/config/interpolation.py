"""The section `interpolate` of an experiment."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cusa.config.section import Name, NotNegative, Number, Section

Alpha = Annotated[Number, Field(ge=0, le=1)]


class Interpolation(Section):
    """Weights between those before a training and those after it (WiSE-FT, Wortsman et al., CVPR 2022)."""

    experiment: Name = Field(description="The experiment whose training it is.")
    alphas: list[Alpha] = Field(
        default=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
        min_length=1,
        description="Shares of the trained weights: 0 is before the training, 1 after it. val chooses among them.",
    )
    tolerance: NotNegative = Field(
        default=0.0,
        description="The smallest alpha is chosen whose r_mean on val is at most so many points below the best.",
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if sorted(set(self.alphas)) != self.alphas:
            raise ValueError(f"alphas: {self.alphas} do not rise; list each once, the smallest first")
        return self
