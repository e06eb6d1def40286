"""The section `train.augmentation`: pictures and captions that are changed at random for training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cusa.config.section import Count, Positive, Section, Share

VIEWS = 8
Area = Annotated[Positive, Field(le=1)]


class ImageAugmentation(Section):
    """How a picture is changed at random."""

    crop: list[Area] = Field(
        default=[0.6, 1.0],
        min_length=2,
        max_length=2,
        description="Smallest and largest share of a picture's area that is cut out, at a random place, and resized to "
        "the model's input; the sides of the part have a ratio of 3:4 to 4:3.",
    )
    flip: bool = Field(
        default=False,
        description="Mirror half of the pictures. Not for pictures with letters, or captions with left and right.",
    )
    colour: Share = Field(
        default=0.0,
        description="Brightness, contrast and saturation are each multiplied by 1 - `colour` to 1 + `colour`.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> ImageAugmentation:
        if self.crop[0] > self.crop[1]:
            raise ValueError(f"crop is {self.crop}; write the smaller share first")
        return self


class CaptionAugmentation(Section):
    """How a caption is changed at random. Commas and semicolons separate the parts of a caption."""

    drop_parts: Share = Field(
        default=0.3, description="Probability that a part is left out; one part at least is kept."
    )
    drop_words: Share = Field(
        default=0.0, description="Probability that a word is left out; one word at least is kept."
    )
    reorder: Literal["parts", "words"] | None = Field(
        default="parts", description="What is put into a random order; null keeps the order."
    )

    @property
    def changes_something(self) -> bool:
        """Whether some captions are changed at all."""
        return bool(self.drop_parts or self.drop_words or self.reorder)


class Augmentation(Section):
    """Pictures and captions are changed again for each pair and epoch.

    A trained tower reads changed pictures or captions. For a frozen tower, `views` changed ones are made once, and
    their features are cached; each epoch takes one of them, or the original, for each pair.
    """

    image: ImageAugmentation | None = Field(default=None, description="null does not change pictures.")
    caption: CaptionAugmentation | None = Field(default=None, description="null does not change captions.")
    views: Count = Field(
        default=VIEWS,
        description="Changed pictures for each picture, and changed captions for each caption, whose features are "
        "cached for a frozen tower.",
    )

    @model_validator(mode="after")
    def _check_not_empty(self) -> Augmentation:
        if self.image is None and self.caption is None:
            raise ValueError("neither `image` nor `caption` is given, so nothing is changed; give one ({} is enough)")
        if self.caption is not None and not self.caption.changes_something:
            raise ValueError(
                "caption.drop_parts and caption.drop_words are 0 and caption.reorder is null, so no caption is "
                "changed; set one of them, or caption: null"
            )
        return self
