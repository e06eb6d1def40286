"""The student: a dual encoder or a pair of towers, and the four heads of the paper.

Each head is LayerNorm(D), Linear(D, D): cross heads serve image-text retrieval, uni heads image-image and
text-text. Heads of a loss family that is off do not exist; asking for one gives the features before the heads, as
the published evaluation does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cusa.common.files import expand_home
from cusa.config.models import Towers
from cusa.errors import ConfigurationError
from cusa.teachers.encoders import ImageEncoder, TextEncoder
from cusa.teachers.huggingface_vision import transform_of
from cusa.teachers.registry import load_image_encoder, load_text_encoder
from cusa.teachers.transform import ImageTransform

TextInput = Tensor | Mapping[str, Tensor]


# The names that the paper, OpenAI's CLIP and the published configurations use.
PUBLISHED_NAMES = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}


# SigLIP reads its last text position and knows no mask: captions are padded to the length it was trained at.
FIXED_LENGTH_TEXT = ("siglip", "siglip2")


class Backbone(nn.Module):
    """Everything before the heads.

    `image_transform` is None where the image tower is frozen (its input is cached features); `tokenises` is False
    where the text tower is.
    """

    dimension: int
    image_transform: ImageTransform | None
    tokenises: bool

    def image_features(self, images: Tensor) -> Tensor:
        """uint8 pixels [B, 3, H, W], or a frozen tower's features [B, d] -> [B, dimension]."""
        raise TypeError(f"{type(self).__name__} has to define image_features()")

    def text_features(self, texts: TextInput) -> Tensor:
        """Token tensors [B, T], or a frozen tower's features [B, d] -> [B, dimension]."""
        raise TypeError(f"{type(self).__name__} has to define text_features()")

    def tokenise(self, captions: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids of each caption, and the padding id."""
        raise TypeError(f"{type(self).__name__} has to define tokenise()")

    def pretrained_parameters(self) -> set[Tensor]:
        """Parameters that `train.tower_lr` applies to."""
        return set()


class DualEncoder(Backbone):
    """A Hugging Face model with get_image_features and get_text_features (CLIP, SigLIP, ...)."""

    tokenises = True
    image_transform: ImageTransform

    def __init__(self, model: Any, tokeniser: Any, image_transform: ImageTransform, max_tokens: int) -> None:
        super().__init__()
        self.model, self.tokeniser, self.image_transform = model, tokeniser, image_transform
        # The losses bring their own temperatures; these would get no gradient.
        for unused in ("logit_scale", "logit_bias"):
            if isinstance(getattr(self.model, unused, None), nn.Parameter):
                getattr(self.model, unused).requires_grad_(False)
        limit = getattr(self.model.config, "text_config", self.model.config).max_position_embeddings
        self.fixed_length = self.model.config.model_type in FIXED_LENGTH_TEXT
        self.max_tokens = limit if self.fixed_length else min(max_tokens, limit)
        self.dimension = self._dimension()

    @classmethod
    def load(cls, name: str, max_tokens: int) -> DualEncoder:
        """A pre-trained model by its published name, its Hugging Face name or its folder."""
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
        source = expand_home(PUBLISHED_NAMES.get(name, name))
        try:
            model: Any = AutoModel.from_pretrained(source)
            tokeniser: Any = AutoTokenizer.from_pretrained(source)
            image_transform = transform_of(source, None)
        except (OSError, ValueError) as error:  # transformers raises either, for a folder that holds no model
            reason = str(error).strip().splitlines()[0]
            raise ConfigurationError(
                f"student.name {name} could not be loaded ({reason}). Give the path of a folder with the model, its "
                "tokeniser and its preprocessor_config.json, or make sure that the hub can be reached."
            ) from error
        for method in ("get_image_features", "get_text_features"):
            if not hasattr(model, method):
                raise ConfigurationError(
                    f"student.name {name} is a {type(model).__name__}, which has no {method}; choose a dual "
                    "encoder such as CLIP or SigLIP, or a pair of `towers`."
                )
        return cls(model, tokeniser, image_transform, max_tokens)

    @torch.no_grad()
    def _dimension(self) -> int:
        return _pooled(self.model.get_text_features(input_ids=torch.zeros(1, 2, dtype=torch.int64))).shape[1]

    def image_features(self, images: Tensor) -> Tensor:
        """uint8 pixels [B, 3, H, W], or float pixels that are normalised already -> [B, dimension]."""
        pixels = self.image_transform.normalise(images) if images.dtype == torch.uint8 else images
        return _pooled(self.model.get_image_features(pixel_values=pixels))

    def text_features(self, texts: TextInput) -> Tensor:
        """`input_ids` int64 [B, T], alone or with `attention_mask` in a mapping -> [B, dimension]."""
        tokens = {"input_ids": texts} if isinstance(texts, Tensor) else texts
        return _pooled(self.model.get_text_features(**tokens))

    def tokenise(self, captions: Sequence[str]) -> tuple[list[list[int]], int]:
        """The model's own tokeniser, truncated; padded as well where the model wants one length."""
        padding = "max_length" if self.fixed_length else False
        encoded = self.tokeniser(list(captions), truncation=True, max_length=self.max_tokens, padding=padding)
        return encoded["input_ids"], int(self.tokeniser.pad_token_id or 0)

    def pretrained_parameters(self) -> set[Tensor]:
        """All of them."""
        return set(self.model.parameters())


class OpenClip(Backbone):
    """A ResNet CLIP of open_clip (the extra `open-clip`), by its published name."""

    tokenises = True
    image_transform: ImageTransform

    def __init__(self, model: Any, tokeniser: Any, max_tokens: int) -> None:
        super().__init__()
        self.model, self.tokeniser = model, tokeniser
        self.model.logit_scale.requires_grad_(False)  # the losses bring their own temperatures
        about = model.visual.preprocess_cfg
        size = about["size"] if isinstance(about["size"], int) else about["size"][0]
        self.image_transform = ImageTransform(size, size, tuple(about["mean"]), tuple(about["std"]))
        self.context = int(model.context_length)
        self.max_tokens = min(max_tokens, self.context)
        self.dimension = int(model.text_projection.shape[1])

    @classmethod
    def load(cls, name: str, max_tokens: int) -> OpenClip:
        """OpenAI's weights, from open_clip's cache or fetched by it."""
        try:
            import open_clip
        except ImportError:
            raise ConfigurationError(
                f"student.name {name} is a ResNet CLIP, which needs open_clip; run pip install -e '.[open-clip]'."
            ) from None
        try:
            model = open_clip.create_model(f"{name}-quickgelu", pretrained="openai")
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigurationError(
                f"the weights of student.name {name} could not be had ({reason}); open_clip fetches them once, from "
                "where there is a network."
            ) from error
        return cls(model, open_clip.get_tokenizer(name), max_tokens)

    def image_features(self, images: Tensor) -> Tensor:
        """uint8 pixels [B, 3, H, W], or float pixels that are normalised already -> [B, dimension]."""
        pixels = self.image_transform.normalise(images) if images.dtype == torch.uint8 else images
        features: Tensor = self.model.encode_image(pixels)
        return features

    def text_features(self, texts: TextInput) -> Tensor:
        """`input_ids` int64 [B, T], alone or in a mapping -> [B, dimension]."""
        ids = texts if isinstance(texts, Tensor) else texts["input_ids"]
        features: Tensor = self.model.encode_text(nn.functional.pad(ids, (0, self.context - ids.shape[1])))
        return features

    def tokenise(self, captions: Sequence[str]) -> tuple[list[list[int]], int]:
        """CLIP's own tokeniser, truncated; what it pads with is cut off again."""
        tokens = self.tokeniser(list(captions), context_length=self.max_tokens)
        # The end of the text is the largest id; what follows is padding.
        return [row[: end + 1] for row, end in zip(tokens.tolist(), tokens.argmax(dim=1).tolist(), strict=True)], 0

    def pretrained_parameters(self) -> set[Tensor]:
        """All of them."""
        return set(self.model.parameters())


@dataclass(frozen=True)
class FrozenDimensions:
    """Lengths of the cached features of frozen towers; 0 where the tower is not frozen."""

    image: int = 0
    text: int = 0


class TowerPair(Backbone):
    """An image and a text encoder, each projected to one space; frozen ones live in the feature store only."""

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
        """Pixels of a trainable tower, or the features of a frozen one -> [B, dimension]."""
        features = images if self.image_tower is None else self.image_tower(images)
        projected: Tensor = self.image_projection(features)
        return projected

    def text_features(self, texts: TextInput) -> Tensor:
        """Tokens of a trainable tower, or the features of a frozen one -> [B, dimension]."""
        features = texts if self.text_tower is None else self.text_tower(texts)
        projected: Tensor = self.text_projection(features)
        return projected

    def tokenise(self, captions: Sequence[str]) -> tuple[list[list[int]], int]:
        """The trainable text tower's tokeniser."""
        assert self.text_tower is not None
        return self.text_tower.tokenise(captions, self.max_tokens), self.text_tower.pad_token

    def pretrained_parameters(self) -> set[Tensor]:
        """Those of the trainable towers, not the projections."""
        towers = [tower for tower in (self.image_tower, self.text_tower) if tower is not None]
        return {parameter for tower in towers for parameter in tower.parameters()}


def _projection(dimension: int, target: int | None) -> nn.Module:
    if target is None:
        return nn.Identity()
    linear = nn.Linear(dimension, target, bias=False)
    nn.init.normal_(linear.weight, std=dimension**-0.5)
    return linear


def _pooled(output: Any) -> Tensor:
    """transformers 5 returns an output object whose pooler_output is the projected feature."""
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features
