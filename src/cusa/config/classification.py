"""The sections of the benchmarks that classify images: zero-shot, and by a linear probe."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cusa.config.benchmark_section import BenchmarkSection
from cusa.config.section import Name

DATASET = "dataset"  # what `class_names` calls the data set's own images
CLASS_NAME = "{}"
Names = str | list[str]


class Classification(BenchmarkSection):
    """Labelled images: the user's own and those of the data set itself."""

    labelled_images: dict[Name, str] = Field(
        default={}, description="Your own: name to a folder with a folder per class, or to a CSV of image and label."
    )
    dataset_images: bool = Field(
        default=False, description="Also the test images of the data set itself, by the labels that its format reads."
    )

    @model_validator(mode="after")
    def _some_images(self) -> Self:
        if not (self.labelled_images or self.dataset_images):
            raise ValueError("there are no images; name labelled_images, or set dataset_images: true")
        return self

    @property
    def places(self) -> dict[str, str]:
        """Every data set that is named."""
        return dict(self.labelled_images)

    @property
    def brings_data(self) -> bool:
        """Whether no labels of the data set are needed."""
        return not self.dataset_images


class ZeroShotClassification(Classification):
    """The class whose name, in a template, is nearest to the image."""

    templates: list[str] = Field(
        default=["a photo of a {}."],
        min_length=1,
        description="Texts with {} for the name of the class; their embeddings are averaged.",
    )
    class_names: dict[str, dict[str, Names] | str] = Field(
        default={},
        description="The names of the classes, for each of labelled_images (`dataset` for the data set's own): a name "
        "or a list of names for each label, or a table with the columns label and name. Other classes are called as "
        "their label.",
    )

    @field_validator("templates")
    @classmethod
    def _one_place_for_the_name(cls, templates: list[str]) -> list[str]:
        for template in templates:
            if template.count(CLASS_NAME) != 1 or template.count("{") != 1 or template.count("}") != 1:
                raise ValueError(f"`{template}` needs {{}} once, where the name of the class goes")
        return templates

    @model_validator(mode="after")
    def _names_of_known_data(self) -> Self:
        known = [*self.labelled_images, *([DATASET] if self.dataset_images else [])]
        if unknown := [name for name in self.class_names if name not in known]:
            raise ValueError(f"class_names has {unknown[0]}, which is none of {', '.join(known)}; correct it")
        return self

    @property
    def name_files(self) -> dict[str, str]:
        """The tables of class names, by the data whose classes they name."""
        return {data: names for data, names in self.class_names.items() if isinstance(names, str)}


class LinearProbe(Classification):
    """A logistic regression on the embeddings of images."""

    train_images: dict[Name, str] = Field(
        default={},
        description="The labelled images that the probe of one of labelled_images learns from, as these are given. "
        "Without them, a share of its own images is for learning.",
    )
    train_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="That share of the images of each class."
    )
    head: Literal["cross", "uni"] = Field(default="uni", description="The head whose embeddings are probed.")

    @model_validator(mode="after")
    def _train_images_of_known_data(self) -> Self:
        for name in self.train_images:
            if name not in self.labelled_images:
                raise ValueError(f"train_images has {name}, which labelled_images lacks; name the images to test there")
            if train_data(name) in self.labelled_images:
                raise ValueError(
                    f"labelled_images: {train_data(name)} is the name of the train images of {name}; rename it"
                )
        return self

    @property
    def places(self) -> dict[str, str]:
        """Every data set that is named; `NAME-train` are the train images of NAME."""
        return self.labelled_images | {train_data(name): place for name, place in self.train_images.items()}


def train_data(name: str) -> str:
    """The name of the train images of the labelled images `name`."""
    return f"{name}-train"
