"""CLIP with a ResNet as a student, by its published name. The model is open_clip's; transformers has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cusa.config.models import StudentSettings
from cusa.errors import ConfigurationError, reason_of
from cusa.student.backbones import Backbone, TextInput
from cusa.teachers.token_use import Vocabulary
from cusa.teachers.transform import ImageTransform


class OpenClip(Backbone):
    """A ResNet CLIP of open_clip (the extra `open-clip`), by its published name."""

    tokenises = True
    image_transform: ImageTransform

    def __init__(self, model: Any, tokeniser: Any, max_tokens: int) -> None:
        super().__init__()
        self.model, self.tokeniser = model, tokeniser
        self.model.logit_scale.requires_grad_(False)  # the losses have their own temperatures
        about = model.visual.preprocess_cfg
        size = about["size"] if isinstance(about["size"], int) else about["size"][0]
        self.image_transform = ImageTransform(size, size, tuple(about["mean"]), tuple(about["std"]))
        self.context = int(model.context_length)
        self.max_tokens = min(max_tokens, self.context)
        self.dimension = int(model.text_projection.shape[1])

    @classmethod
    def load(cls, name: str, max_tokens: int, weights: bool = True) -> OpenClip:
        """A model with OpenAI's weights, which open_clip fetches where its cache lacks them; random ones without them.

        Raises ConfigurationError where open_clip is not installed or the weights cannot be fetched.
        """
        try:
            import open_clip
        except ImportError:
            raise ConfigurationError(
                f"student.name {name} is a ResNet CLIP, which needs open_clip; run pip install -e '.[open-clip]'."
            ) from None
        try:
            model = open_clip.create_model(f"{name}-quickgelu", pretrained="openai" if weights else None)
        except (OSError, RuntimeError) as error:
            raise ConfigurationError(
                f"the weights of student.name {name} could not be had ({reason_of(error)}); open_clip fetches them "
                "once, from where there is a network."
            ) from error
        return cls(model, open_clip.get_tokenizer(name), max_tokens)

    def image_features(self, images: Tensor) -> Tensor:
        """Image features [B, dimension] of uint8 pixels [B, 3, H, W], or of float pixels already normalised."""
        pixels = self.image_transform.normalise(images) if images.dtype == torch.uint8 else images
        features: Tensor = self.model.encode_image(pixels)
        return features

    def text_features(self, texts: TextInput) -> Tensor:
        """Text features [B, dimension] of `input_ids`, int64 [B, T], alone or in a mapping."""
        ids = texts if isinstance(texts, Tensor) else texts["input_ids"]
        features: Tensor = self.model.encode_text(nn.functional.pad(ids, (0, self.context - ids.shape[1])))
        return features

    def tokenise(self, captions: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids by CLIP's own tokeniser, truncated and without padding."""
        tokens = self.tokeniser(list(captions), context_length=self.max_tokens)
        # The end of the text has the largest id, and padding follows it.
        return [row[: end + 1] for row, end in zip(tokens.tolist(), tokens.argmax(dim=1).tolist(), strict=True)], 0

    def vocabulary(self) -> Vocabulary:
        """CLIP's own: it knows every byte, so no token is unknown. A start and an end are around each text."""
        return Vocabulary(lambda texts: [self.tokeniser.encode(text) for text in texts], None, self.max_tokens - 2)

    def pretrained_parameters(self) -> set[Tensor]:
        """All parameters of the model."""
        return set(self.model.parameters())


def backbone(settings: StudentSettings) -> OpenClip:
    """The ResNet CLIP that `settings.name` names, with OpenAI's weights."""
    assert settings.name is not None
    return OpenClip.load(settings.name, settings.max_tokens)
