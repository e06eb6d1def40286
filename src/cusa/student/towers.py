"""A pair of towers as a student: an image encoder, a text encoder, and a projection of each into one space."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cusa.config.models import Towers
from cusa.layout import Modality
from cusa.student.backbones import Backbone, FrozenDimensions, TextInput
from cusa.teachers.encoders import ImageEncoder, TextEncoder
from cusa.teachers.registry import load_image_encoder, load_text_encoder
from cusa.teachers.token_use import Vocabulary


class TowerPair(Backbone):
    """An image and a text encoder, each projected to one space.

    A frozen encoder is not loaded: its input is its cached features, whose length `frozen` gives. Dropout acts on the
    encoders' features: they have many dimensions, so the projection would overfit the training pairs.
    """

    def __init__(self, towers: Towers, max_tokens: int, frozen: FrozenDimensions) -> None:
        super().__init__()
        self.dimension = towers.dimension or 0
        self.max_tokens = max_tokens
        self.image_tower: ImageEncoder | None = None
        self.text_tower: TextEncoder | None = None
        self.image_transform = None
        self.tokenises = towers.text.trainable
        image_dimension, text_dimension = frozen.image, frozen.text
        if towers.image.trainable:
            self.image_tower = load_image_encoder(towers.image)
            self.image_transform = self.image_tower.transform
            image_dimension = self.image_tower.dimension
        if towers.text.trainable:
            self.text_tower = load_text_encoder(towers.text)
            text_dimension = self.text_tower.dimension
        self.image_projection = _projection(image_dimension, towers.dimension)
        self.text_projection = _projection(text_dimension, towers.dimension)

    def image_features(self, images: Tensor) -> Tensor:
        """Image features [B, dimension] of pixels, or of the cached features of a frozen tower."""
        return self.projected("image", self.tower_features("image", images))

    def text_features(self, texts: TextInput) -> Tensor:
        """Text features [B, dimension] of tokens, or of the cached features of a frozen tower."""
        return self.projected("text", self.tower_features("text", texts))

    def tower_features(self, side: Modality, inputs: TextInput) -> Tensor:
        """The encoder's features [B, d]; a frozen encoder's are the inputs."""
        encoder = self.image_tower if side == "image" else self.text_tower
        features: Tensor = inputs if encoder is None else encoder(inputs)  # type: ignore[assignment]
        return features

    def projected(self, side: Modality, features: Tensor) -> Tensor:
        """An encoder's features [B, d] in the common space, [B, dimension]."""
        projection = self.image_projection if side == "image" else self.text_projection
        projected: Tensor = projection(features)
        return projected

    def tokenise(self, captions: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids by the trainable text tower's tokeniser, and its padding id."""
        assert self.text_tower is not None
        return self.text_tower.tokenise(captions, self.max_tokens), self.text_tower.pad_token

    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary of the trainable text tower."""
        return None if self.text_tower is None else self.text_tower.vocabulary(self.max_tokens)

    def parameters_after_towers(self) -> set[nn.Parameter]:
        """The parameters of the projections."""
        return {*self.image_projection.parameters(), *self.text_projection.parameters()}

    def pretrained_parameters(self) -> set[Tensor]:
        """The parameters of the trainable towers, without the projections."""
        towers = [tower for tower in (self.image_tower, self.text_tower) if tower is not None]
        return {parameter for tower in towers for parameter in tower.parameters()}


def _projection(dimension: int, target: int | None) -> nn.Module:
    if target is None:
        return nn.Identity()
    linear = nn.Linear(dimension, target, bias=False)
    nn.init.normal_(linear.weight, std=dimension**-0.5)
    return linear
