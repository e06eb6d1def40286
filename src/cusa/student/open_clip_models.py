"""Models of open_clip as students: by architecture and weights, by folder, and the ResNet CLIPs by published name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cusa.common.files import write_json
from cusa.config.models import StudentSettings
from cusa.errors import ConfigurationError
from cusa.student.backbones import Backbone, TextInput
from cusa.student.open_clip_loading import CONFIGURATION, LOOKS, Loaded, load_open_clip
from cusa.student.positions import stretch_open_clip
from cusa.teachers.state_dicts import require_finite
from cusa.teachers.token_use import Vocabulary, vocabulary_of
from cusa.teachers.tokenisers import positions_of, shortest
from cusa.teachers.transform import ImageTransform

SAVED_WEIGHTS = "open_clip_model.safetensors"


class OpenClip(Backbone):
    """A model of open_clip (the extra `open-clip`).

    `model_settings` are open_clip's own settings of the architecture, `model_cfg` in its files; None if they are not
    known, for models that were not loaded by `load`.
    """

    tokenises = True
    image_transform: ImageTransform

    def __init__(
        self, model: Any, tokeniser: Any, max_tokens: int, model_settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.model, self.tokeniser, self.model_settings = model, tokeniser, model_settings
        for unused in ("logit_scale", "logit_bias"):  # the losses have their own
            if isinstance(getattr(self.model, unused, None), nn.Parameter):
                getattr(self.model, unused).requires_grad_(False)
        if hasattr(self.model, "text_decoder"):  # CoCa writes captions with it, and no embedding depends on it
            self.model.text_decoder.requires_grad_(False)
        self.image_transform = image_transform_of(model.visual.preprocess_cfg)
        # The number of positions that texts are padded to; None for text models of transformers, which take a mask.
        self.context: int | None = int(tokeniser.context_length)
        limit: int | None = self.context
        if type(getattr(model, "text", None)).__name__ == "HFTextEncoder":
            self.context, limit = None, positions_of(model.text.transformer)
        self.max_tokens = shortest(max_tokens, limit, default=max_tokens)
        self.pad = int(self.words.pad_token_id or 0) if self.words is not None else 0
        self.dimension = self._dimension()

    @classmethod
    def load(cls, settings: StudentSettings, weights: bool = True) -> OpenClip:
        """A model with its weights, which open_clip fetches if its cache lacks them; random ones without them.

        Raises ConfigurationError if open_clip is not installed, if the architecture or the weights are not known,
        and if the weights cannot be read or fetched.
        """
        loaded: Loaded = load_open_clip(settings, weights)
        if weights:
            require_finite(loaded.model.state_dict(), f"student.name {settings.name}")
        if settings.stretch_positions:
            name = str(settings.name)
            stretch_open_clip(loaded.model, loaded.tokeniser, loaded.model_settings, settings.max_tokens, name)
        return cls(loaded.model, loaded.tokeniser, settings.max_tokens, loaded.model_settings)

    @property
    def words(self) -> Any | None:
        """The tokeniser of transformers inside open_clip's; None for CLIP's own byte pairs."""
        return getattr(self.tokeniser, "tokenizer", None)

    @property
    def has_resnet(self) -> bool:
        """Whether the image side is one of CLIP's ResNets."""
        return hasattr(self.model.visual, "attnpool") and hasattr(self.model.visual, "layer4")

    @torch.no_grad()
    def _dimension(self) -> int:
        training = self.model.training
        self.model.train(False)
        length = self.text_features(torch.ones(1, 2, dtype=torch.int64)).shape[1]
        self.model.train(training)
        return length

    def save(self, folder: Path) -> None:
        """Write the model, its preprocessing and its tokeniser as open_clip reads them, by `local-dir:`.

        The architecture has to be known (`model_settings`). A text model of transformers is still named, not saved.
        """
        folder.mkdir(parents=True)
        looks = {key: self.model.visual.preprocess_cfg[key] for key in LOOKS}
        write_json(folder / CONFIGURATION, {"model_cfg": self.model_settings, "preprocess_cfg": looks})
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.model.state_dict().items()}
        save_file(tensors, folder / SAVED_WEIGHTS)
        if self.words is not None:
            self.words.save_pretrained(folder)

    def image_features(self, images: Tensor) -> Tensor:
        """Image features [B, dimension] of uint8 pixels [B, 3, H, W], or of float pixels already normalised."""
        pixels = self.image_transform.normalise(images) if images.dtype == torch.uint8 else images
        features: Tensor = self.model.encode_image(pixels)
        return features

    def text_features(self, texts: TextInput) -> Tensor:
        """Text features [B, dimension] of `input_ids`, int64 [B, T], alone or in a mapping."""
        ids = texts if isinstance(texts, Tensor) else texts["input_ids"]
        if self.context is not None:
            ids = nn.functional.pad(ids, (0, self.context - ids.shape[1]), value=self.pad)
        features: Tensor = self.model.encode_text(ids)
        return features

    def tokenise(self, captions: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids by the model's own tokeniser, after its own clean-up, truncated and without padding."""
        if self.words is None:
            tokens = self.tokeniser(list(captions), context_length=self.max_tokens)
            # The end of the text has the largest id, and padding follows it.
            ends = tokens.argmax(dim=1).tolist()
            return [row[: end + 1] for row, end in zip(tokens.tolist(), ends, strict=True)], self.pad
        if getattr(self.tokeniser, "tokenizer_mode", "") or self.words.padding_side == "left":
            # Something stands at the last position, or padding at the first.
            return self.tokeniser(list(captions), context_length=self.context or self.max_tokens).tolist(), self.pad
        cleaned = [self.tokeniser.clean_fn(caption) for caption in captions]
        rows = self.words(cleaned, truncation=True, max_length=self.max_tokens)["input_ids"]
        if self.tokeniser.strip_sep_token:
            rows = [[0 if token == self.words.sep_token_id else token for token in row] for row in rows]
        return rows, self.pad

    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the model's own tokeniser. CLIP's byte pairs know every byte, so no token is unknown."""
        if self.words is not None:
            return vocabulary_of(self.words, self.max_tokens)
        # A start and an end are around each text.
        return Vocabulary(lambda texts: [self.tokeniser.encode(text) for text in texts], None, self.max_tokens - 2)

    def pretrained_parameters(self) -> set[Tensor]:
        """All parameters of the model."""
        return set(self.model.parameters())


def backbone(settings: StudentSettings) -> OpenClip:
    """The model of open_clip that `settings.name` and `settings.pretrained` name, with its weights."""
    return OpenClip.load(settings)


def image_transform_of(settings: Mapping[str, Any]) -> ImageTransform:
    """The transform that open_clip's `preprocess_cfg` describes, for pictures that are not augmented.

    Raises ConfigurationError if that is not a square, or if pictures are made one by bars around them.
    """
    size, mode = settings["size"], settings.get("resize_mode", "shortest")
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    if height != width or mode == "longest":
        found = f"{height} x {width} pixels" if height != width else "bars around pictures (resize_mode longest)"
        raise ConfigurationError(
            f"student: this model of open_clip takes {found}; expected squares that pictures are cropped or squeezed "
            "to. Choose another model."
        )
    return ImageTransform(
        resize=height,
        crop=height,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        # open_clip takes bicubic for all others too.
        interpolation="bilinear" if settings.get("interpolation") == "bilinear" else "bicubic",
        square=mode == "squash",
    )
