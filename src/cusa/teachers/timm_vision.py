"""Any vision model of timm, as `timm/NAME` or a folder that timm saved."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cusa.common.files import expanded
from cusa.config.models import ImageModel
from cusa.teachers.encoders import ImageEncoder
from cusa.teachers.pretrained import recorded_state_dicts, require_weights
from cusa.teachers.transform import ImageTransform
from cusa.teachers.weight_files import require_readable, weight_file_in


class TimmVision(ImageEncoder):
    """Pooled features before the classifier, with the transform that timm records for the weights."""

    def __init__(self, name: str, image_size: int | None) -> None:
        import timm
        from timm.data.config import resolve_model_data_config

        super().__init__()
        self.name = name
        folder = expanded(name)
        source = f"local-dir:{folder}" if folder.is_dir() else name.removeprefix("timm/")
        self.weights_file = weight_file_in(folder)
        require_readable(folder)
        with recorded_state_dicts() as read:
            self.network = timm.create_model(source, pretrained=True, num_classes=0).eval()
        settings = resolve_model_data_config(self.network)  # type: ignore[no-untyped-call]
        crop = image_size or settings["input_size"][1]
        self.dimension = int(self.network.num_features)  # type: ignore[arg-type]
        self.transform = ImageTransform(
            resize=max(crop, math.floor(crop / settings["crop_pct"])),
            crop=crop,
            mean=tuple(settings["mean"]),
            std=tuple(settings["std"]),
            interpolation=settings["interpolation"],
        )
        # Without a classifier, timm also accepts a state dict that lacks weights.
        not_read = {weight: weight for module, missing in read if module is self.network for weight in missing}
        blank = torch.zeros(1, 3, crop, crop, dtype=torch.uint8)
        require_weights(name, self.network, not_read, lambda: [self(blank)])

    def features(self, pixels: Tensor) -> Tensor:
        """Pooled features [B, dimension] of normalised pixels [B, 3, H, W]."""
        pooled: Tensor = self.network(pixels)
        return pooled


def image_encoder(model: ImageModel) -> TimmVision:
    """A pre-trained timm model."""
    return TimmVision(model.name, model.image_size)
