"""Any vision model of transformers (ViT, DINOv2, ConvNeXt, the vision side of CLIP or SigLIP) by name or folder."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from cusa.common.files import expand_home
from cusa.config.models import ImageModel
from cusa.teachers.encoders import ImageEncoder
from cusa.teachers.image_processor import transform_of
from cusa.teachers.pretrained import load_pretrained, require_weights
from cusa.teachers.weight_files import weight_file

log = logging.getLogger(__name__)


class HuggingFaceVision(ImageEncoder):
    """The model's pooled output. If it has none, or its file has no weights for it, the mean of its last hidden state.

    A vision transformer that was saved with a classifier, for instance, has no pooler in its file.
    """

    def __init__(self, name: str, image_size: int | None) -> None:
        super().__init__()
        self.name = name
        model, not_read = load_pretrained(name)
        # Of a dual encoder only the vision side is used.
        self.network = getattr(model, "vision_model", model)
        config = getattr(model.config, "vision_config", model.config)
        sizes = getattr(config, "hidden_sizes", None)
        self.dimension = sizes[-1] if sizes else config.hidden_size
        self.transform = transform_of(name, image_size)
        self.weights_file = weight_file(name)
        self.pools = not any("pooler." in weight for weight in not_read)
        if not self.pools:
            log.warning("%s has no weights for its pooler: the mean of its last hidden state is used instead", name)
        blank = torch.zeros(1, 3, self.transform.crop, self.transform.crop, dtype=torch.uint8)
        require_weights(name, model, not_read, lambda: [self(blank)])

    def features(self, pixels: Tensor) -> Tensor:
        """Pooled features [B, dimension] of normalised pixels [B, 3, H, W]."""
        output: Any = self.network(pixel_values=pixels)
        pooled: Tensor | None = getattr(output, "pooler_output", None) if self.pools else None
        if pooled is None:
            hidden: Tensor = output.last_hidden_state
            return hidden.flatten(2).mean(dim=-1) if hidden.ndim == 4 else hidden.mean(dim=1)
        return pooled.flatten(1)


def image_encoder(model: ImageModel) -> HuggingFaceVision:
    """A pre-trained transformers vision model."""
    return HuggingFaceVision(expand_home(model.name), model.image_size)
