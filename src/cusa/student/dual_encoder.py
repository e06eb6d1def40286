"""Dual encoders of Hugging Face (CLIP, SigLIP, ...) as students, by name or folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cusa.common.files import expand_home
from cusa.config.models import StudentSettings
from cusa.errors import ConfigurationError
from cusa.student.backbones import Backbone, TextInput
from cusa.student.positions import stretch_transformers
from cusa.teachers.image_processor import transform_of
from cusa.teachers.pretrained import load_pretrained, require_weights
from cusa.teachers.token_use import Vocabulary, vocabulary_of
from cusa.teachers.tokenisers import known_ids, load_tokeniser, padding_id, require_known, shortest, token_ids
from cusa.teachers.transform import ImageTransform

# Published names of CLIPs, and their names at Hugging Face.
PUBLISHED_NAMES = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
# SigLIP reads the last text position and takes no mask, so captions are padded to the length it was trained with.
FIXED_LENGTH_TEXT = ("siglip", "siglip2")
TWO_TOKENS = torch.zeros(1, 2, dtype=torch.int64)


class DualEncoder(Backbone):
    """A Hugging Face model with get_image_features and get_text_features (CLIP, SigLIP, ...)."""

    tokenises = True
    image_transform: ImageTransform

    def __init__(self, model: Any, tokeniser: Any, image_transform: ImageTransform, max_tokens: int) -> None:
        super().__init__()
        self.model, self.tokeniser, self.image_transform = model, tokeniser, image_transform
        # The losses have their own temperatures, so these would get no gradient.
        for unused in ("logit_scale", "logit_bias"):
            if isinstance(getattr(self.model, unused, None), nn.Parameter):
                getattr(self.model, unused).requires_grad_(False)
        text = getattr(self.model.config, "text_config", self.model.config)
        limit = shortest(getattr(text, "max_position_embeddings", None), default=max_tokens)
        self.known_ids = known_ids(model)
        self.fixed_length = self.model.config.model_type in FIXED_LENGTH_TEXT
        self.max_tokens = limit if self.fixed_length else min(max_tokens, limit)
        self.dimension = self._dimension()

    @classmethod
    def load(cls, name: str, max_tokens: int, stretch: bool = False) -> DualEncoder:
        """A pre-trained model by its published name, its Hugging Face name or its folder.

        With `stretch` it has `max_tokens` positions at least, see cusa.student.positions.

        Raises ConfigurationError if it is not a dual encoder, or if weights that its features depend on are missing.
        """
        source = expand_home(PUBLISHED_NAMES.get(name, name))
        model, not_read = load_pretrained(source)
        tokeniser = load_tokeniser(source)
        image_transform = transform_of(source, None)
        for method in ("get_image_features", "get_text_features"):
            if not hasattr(model, method):
                raise ConfigurationError(
                    f"student.name {name} is a {type(model).__name__}, which has no {method}; choose a dual "
                    "encoder such as CLIP or SigLIP, or a pair of `towers`."
                )
        if stretch:
            stretch_transformers(model, max_tokens, name)
        encoder = cls(model, tokeniser, image_transform, max_tokens)
        blank = torch.zeros(1, 3, image_transform.crop, image_transform.crop, dtype=torch.uint8)
        require_weights(
            name, model, not_read, lambda: [encoder.image_features(blank), encoder.text_features(TWO_TOKENS)]
        )
        return encoder

    @torch.no_grad()
    def _dimension(self) -> int:
        return self.text_features(TWO_TOKENS).shape[1]

    def image_features(self, images: Tensor) -> Tensor:
        """Image features [B, dimension] of uint8 pixels [B, 3, H, W], or of float pixels already normalised."""
        pixels = self.image_transform.normalise(images) if images.dtype == torch.uint8 else images
        return _pooled(self.model.get_image_features(pixel_values=pixels))

    def text_features(self, texts: TextInput) -> Tensor:
        """Text features [B, dimension] of `input_ids`, int64 [B, T], alone or in a mapping with `attention_mask`."""
        tokens = {"input_ids": texts} if isinstance(texts, Tensor) else texts
        return _pooled(self.model.get_text_features(**tokens))

    def tokenise(self, captions: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids by the model's own tokeniser, truncated; SigLIP's are also padded.

        Raises ConfigurationError if the model does not know an id.
        """
        tokens = token_ids(self.tokeniser, captions, self.max_tokens)
        require_known(tokens, self.known_ids, self.tokeniser.name_or_path)
        pad = padding_id(self.tokeniser, self.known_ids)
        if self.fixed_length:
            tokens = [[*row, *[pad] * (self.max_tokens - len(row))] for row in tokens]
        return tokens, pad

    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the model's own tokeniser."""
        return vocabulary_of(self.tokeniser, self.max_tokens)

    def pretrained_parameters(self) -> set[Tensor]:
        """All parameters of the model."""
        return set(self.model.parameters())


def backbone(settings: StudentSettings) -> DualEncoder:
    """The pre-trained dual encoder that `settings.name` names."""
    assert settings.name is not None
    return DualEncoder.load(settings.name, settings.max_tokens, settings.stretch_positions)


def _pooled(output: Any) -> Tensor:
    """The projected features [B, D]: transformers 5 returns them as `pooler_output` of an object."""
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features
