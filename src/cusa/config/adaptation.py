"""The section `student.adapt`: the trained weights of a pre-trained model, if these are not all."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from cusa.config.section import Count, Positive, Section, Share, Whole

Pattern = Annotated[str, Field(min_length=1)]


class Lora(Section):
    """Low-rank adapters (Hu et al., LoRA, ICLR 2022): a product of two small matrices is added to a frozen matrix."""

    rank: Count = Field(default=8, description="Rank of the product that is added to each matrix.")
    alpha: Positive = Field(default=16.0, description="The product is multiplied by alpha / rank.")
    dropout: Share = Field(default=0.0, description="Share of an adapter's inputs that a training step sets to zero.")
    modules: list[Pattern] | None = Field(
        default=None,
        min_length=1,
        description="Names of the linear layers and convolutions that get an adapter, or patterns such as `*_proj`; "
        "null takes all linear layers and 1 x 1 convolutions of the side's layers.",
    )


class SideAdaptation(Section):
    """The trained weights of one side of a student. Heads and the projections of towers are always trained."""

    lora: Lora | None = Field(default=None, description="Adapters beside frozen weights; null adds none.")
    last_layers: Whole | None = Field(
        default=None,
        description="Train this many of the last layers, and what follows them; 0 trains only what follows the layers. "
        "null does not choose by layer.",
    )
    names: list[Pattern] = Field(
        default=[], description="Train the weights of these names as well; a pattern such as `*norm*` is allowed."
    )
    frozen: list[Pattern] = Field(
        default=[], description="Never train the weights of these names; alone, it trains all others."
    )

    @model_validator(mode="after")
    def _check_not_empty(self) -> SideAdaptation:
        if self.lora is None and self.last_layers is None and not self.names and not self.frozen:
            raise ValueError(
                "it says nothing; give lora, last_layers, names or frozen, or leave the side out to train it whole"
            )
        return self

    @property
    def trains_all_but_frozen(self) -> bool:
        """Whether `frozen` alone selects the trained weights."""
        return self.lora is None and self.last_layers is None and not self.names


class Adaptation(Section):
    """The trained weights of each side; null trains all weights of the side."""

    image: SideAdaptation | None = None
    text: SideAdaptation | None = None

    @model_validator(mode="after")
    def _check_not_empty(self) -> Adaptation:
        if self.image is None and self.text is None:
            raise ValueError("it names neither image nor text; give one of them, or leave `adapt` out")
        return self

    @property
    def sides(self) -> dict[str, SideAdaptation]:
        """The sides of which not all weights are trained, by `image` and `text`."""
        given = {"image": self.image, "text": self.text}
        return {name: side for name, side in given.items() if side is not None}

    @property
    def frozen_sides(self) -> set[str]:
        """The sides without trained weights, whatever the names of their weights."""
        return {name for name, side in self.sides.items() if side.lora is None and "*" in side.frozen}


def adapter_sides(adapt: Adaptation | None) -> set[str]:
    """The sides whose pre-trained weights are frozen beside adapters, whatever the names of their weights."""
    sides = {} if adapt is None else adapt.sides
    return {name for name, side in sides.items() if side.lora is not None and not side.last_layers and not side.names}
