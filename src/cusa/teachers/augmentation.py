"""Random changes of pictures as a model's input: a random part of the picture, mirroring, other colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cusa.config.augmentation import ImageAugmentation
from cusa.teachers.transform import ImageTransform

DRAWS = 8  # random numbers that a changed picture takes
NARROWEST, WIDEST = 3 / 4, 4 / 3  # width through height of the part that is cut out, as in torchvision


@dataclass(frozen=True)
class AugmentedTransform:
    """A model's transform with a random part of the picture instead of its centre, and more changes if asked for."""

    transform: ImageTransform
    settings: ImageAugmentation

    def batch(self, images: Sequence[tuple[bytes, bool]], image_of_view: np.ndarray, draws: np.ndarray) -> Tensor:
        """Changed pictures, uint8 [views, 3, crop, crop], channels last. Each image is decoded once.

        `images` are (encoded, plain), see ImageTransform.pixels. `image_of_view` int64 [views] is the place of each
        view's image in `images`. `draws`, float64 [views, DRAWS] from 0 to below 1, determine the changes.
        """
        return self.views((self.transform.decoded(*image) for image in images), image_of_view, draws)

    def views(self, images: Iterable[Tensor], image_of_view: np.ndarray, draws: np.ndarray) -> Tensor:
        """The same of decoded images, uint8 [3, H, W] each, which are read one at a time."""
        side = self.transform.crop
        batch = torch.empty((len(draws), 3, side, side), dtype=torch.uint8, memory_format=torch.channels_last)
        for place, image in enumerate(images):
            for view in np.flatnonzero(image_of_view == place):
                batch[int(view)] = self.view(image, draws[view])
        return batch

    def view(self, image: Tensor, draws: np.ndarray) -> Tensor:
        """One changed picture, uint8 [3, crop, crop], of an image, uint8 [3, H, W]; `draws` are float64 [DRAWS]."""
        from torchvision.transforms import InterpolationMode  # takes seconds to import
        from torchvision.transforms.v2 import functional

        side = self.transform.crop
        top, left, height, width = part_of(image.shape[1], image.shape[2], self.settings, draws)
        changed: Tensor = functional.resized_crop(
            image,
            top,
            left,
            height,
            width,
            [side, side],
            interpolation=InterpolationMode(self.transform.interpolation),
            antialias=True,
        )
        if self.settings.flip and draws[4] < 0.5:
            changed = functional.horizontal_flip(changed)
        if colour := self.settings.colour:
            brightness, contrast, saturation = (1 + colour * (2 * draws[5:8] - 1)).tolist()
            changed = functional.adjust_brightness(changed, brightness)
            changed = functional.adjust_contrast(changed, contrast)
            changed = functional.adjust_saturation(changed, saturation)
        return changed


def part_of(height: int, width: int, settings: ImageAugmentation, draws: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, height and width, in pixels, of a random part of an image.

    Its area is uniform in `settings.crop`, and the logarithm of its ratio in that of 3:4 to 4:3. A part that is wider
    or higher than the image is shrunk, with its ratio, until it fits. `draws` are float64 [>= 4].
    """
    smallest, largest = settings.crop
    area = height * width * (smallest + (largest - smallest) * draws[0])
    ratio = math.exp(math.log(NARROWEST) + (math.log(WIDEST) - math.log(NARROWEST)) * draws[1])
    part_width, part_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
    shrink = min(1.0, width / part_width, height / part_height)
    rows, columns = max(1, round(part_height * shrink)), max(1, round(part_width * shrink))
    return int((height - rows + 1) * draws[2]), int((width - columns + 1) * draws[3]), rows, columns
