"""Models whose features of changed pictures or captions are cached, for towers that are frozen."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from cusa.config.augmentation import CaptionAugmentation, ImageAugmentation
from cusa.config.experiments import RunConfiguration
from cusa.config.models import ImageModel, TextModel
from cusa.config.section import Count, Section, validate


class ModelViews(Section):
    """The common keys of the views of an image model and of a sentence model."""

    views: Count
    augmentation: ImageAugmentation | CaptionAugmentation

    @property
    @abstractmethod
    def original(self) -> ImageModel | TextModel:
        """The model, as it reads what is not changed."""

    @property
    def identity(self) -> str:
        """The name of the model and its views in meta.json."""
        return f"{self.original.identity} of {self.views} views: {self.augmentation.as_json()}"

    @property
    def folder(self) -> str:
        """Folder of the features of these views."""
        return f"{self.original.folder}-views{self.views}-{_digest(self.augmentation)}"


class ImageViews(ModelViews, ImageModel):
    """A frozen image model that reads `views` changed pictures of each picture."""

    augmentation: ImageAugmentation

    @property
    def original(self) -> ImageModel:
        """The model, as it reads pictures that are not changed."""
        return ImageModel(**self.model_dump(include=set(ImageModel.model_fields)))


class TextViews(ModelViews, TextModel):
    """A frozen sentence model that reads `views` changed captions of each caption."""

    augmentation: CaptionAugmentation

    @property
    def original(self) -> TextModel:
        """The model, as it reads captions that are not changed."""
        return TextModel(**self.model_dump(include=set(TextModel.model_fields)))


class FrozenViews(NamedTuple):
    """The views of the train split that a training draws from; None for a tower that has none."""

    image: ImageViews | None = None
    text: TextViews | None = None


def views_of_training(configuration: RunConfiguration) -> FrozenViews:
    """The views whose features the training of a run reads: those of its frozen towers."""
    augmentation, towers = configuration.train.augmentation, configuration.student.towers
    if augmentation is None or towers is None:
        return FrozenViews()
    image = text = None
    if augmentation.image is not None and not towers.image.trainable:
        own = towers.image.model_dump(include=set(ImageModel.model_fields))
        image = ImageViews(**own, views=augmentation.views, augmentation=augmentation.image)
    if augmentation.caption is not None and not towers.text.trainable:
        own = towers.text.model_dump(include=set(TextModel.model_fields))
        text = TextViews(**own, views=augmentation.views, augmentation=augmentation.caption)
    return FrozenViews(image, text)


def image_model(mapping: Mapping[str, Any]) -> ImageModel:
    """The image model that `as_json` wrote, with its views if it has some. Raises ConfigurationError."""
    return validate(ImageViews if "views" in mapping else ImageModel, mapping)


def text_model(mapping: Mapping[str, Any]) -> TextModel:
    """The text model that `as_json` wrote, with its views if it has some. Raises ConfigurationError."""
    return validate(TextViews if "views" in mapping else TextModel, mapping)


def _digest(section: Section) -> str:
    return hashlib.sha256(section.as_json().encode()).hexdigest()[:8]
