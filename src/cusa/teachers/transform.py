"""The preprocessing of an image before a model's first layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from cusa.common.images import decoded_rgb
from cusa.errors import DataError, reason_of

if TYPE_CHECKING:
    import torch
    from PIL import Image


CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Longer side divided by shorter side. Of a longer strip, only the middle is resized: the rest is cropped away anyway,
# and a strip of 6000 x 2 pixels would be 672,000 pixels long at a shorter side of 224.
LONGEST_ASPECT = 16
FILTER_SUPPORT = 3  # source pixels on either side that Lanczos, the widest filter, reads; more if the image shrinks
Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest", "nearest-exact"]


@dataclass(frozen=True)
class ImageTransform:
    """The preprocessing of an RGB image, which every meta.json records.

    The shorter side is resized to `resize`, as CLIP does; with `square` both sides are, as SigLIP does. The central
    `crop` x `crop` pixels are kept. `normalise` maps uint8 to float32 by `mean` and `std`, of pixels from 0 to 1.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bicubic"
    square: bool = False

    def pixels(self, encoded: bytes, plain: bool) -> torch.Tensor:
        """Decode, resize and crop to uint8 [3, crop, crop].

        `plain` marks upright 8-bit RGB, as cusa's shards store it, which torchvision decodes fast. Raises DataError
        if the image cannot be decoded.
        """
        if not plain:
            with decoded_rgb(encoded) as picture:
                return self.pixels_of(picture)
        return self._resized_and_cropped(self.decoded(encoded, plain))

    @staticmethod
    def decoded(encoded: bytes, plain: bool) -> torch.Tensor:
        """Decode to uint8 [3, H, W], in the size of the file; see `pixels`."""
        import torch
        from torchvision.io import ImageReadMode, decode_image

        if not plain:
            with decoded_rgb(encoded) as picture:
                return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        try:
            image = decode_image(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), mode=ImageReadMode.RGB)
        except (RuntimeError, ValueError) as error:
            raise DataError(
                f"an image in a shard cannot be decoded ({reason_of(error)}); the shard is damaged: write it again."
            ) from None
        return torch.as_tensor(image)

    def pixels_of(self, picture: Image.Image) -> torch.Tensor:
        """Resize and crop an 8-bit RGB image to uint8 [3, crop, crop]."""
        import torch

        return self._resized_and_cropped(torch.from_numpy(np.array(picture)).permute(2, 0, 1))

    def array_of(self, picture: Image.Image) -> np.ndarray:
        """Resize and crop an 8-bit RGB image to uint8 [3, crop, crop] by Pillow, for programs that have no torch.

        Levels differ by rounding from those of `pixels_of`, by one or two of 255.
        """
        if not self.square and (part := self._part_of_strip(picture.height, picture.width)) is not None:
            start, end = part
            along_width = picture.width > picture.height
            picture = picture.crop((start, 0, end, picture.height) if along_width else (0, start, picture.width, end))
        width, height = self._resized_size(picture.width, picture.height)
        if (width, height) != picture.size:
            picture = _resized(picture, width, height, self.interpolation)
        left, top = (self._crop_starts(side) for side in (width, height))
        cropped = picture.crop((left, top, left + self.crop, top + self.crop))
        return np.ascontiguousarray(np.asarray(cropped).transpose(2, 0, 1))

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing, as torchvision rounds them."""
        if self.square:
            return self.resize, self.resize
        longer = int(self.resize * max(width, height) / min(width, height))
        return (self.resize, longer) if width <= height else (longer, self.resize)

    def _crop_starts(self, side: int) -> int:
        """Where the crop starts along a side, as torchvision rounds it; below 0 if black is put around the image."""
        return round((side - self.crop) / 2) if side >= self.crop else -((self.crop - side) // 2)

    def _resized_and_cropped(self, image: torch.Tensor) -> torch.Tensor:
        from torchvision.transforms.v2 import functional as transforms

        image = image if self.square else self._middle_of_strip(image)
        size = [self.resize, self.resize] if self.square else [self.resize]
        if min(image.shape[1:]) != self.resize or (self.square and image.shape[1] != image.shape[2]):
            mode = transforms.InterpolationMode(self.interpolation)
            image = transforms.resize(image, size, interpolation=mode, antialias=True)
        cropped: torch.Tensor = transforms.center_crop(image, [self.crop, self.crop])
        return cropped

    def _middle_of_strip(self, image: torch.Tensor) -> torch.Tensor:
        """The part of a long strip [3, H, W] that its central crop is made of; other images as they are."""
        height, width = image.shape[1:]
        if (part := self._part_of_strip(height, width)) is None:
            return image
        start, end = part
        return image.narrow(1 if height > width else 2, start, end - start)

    def _part_of_strip(self, height: int, width: int) -> tuple[int, int] | None:
        """Where the part of a long strip starts and ends that its central crop is made of; None for other images.

        The part has the strip's centre, so its central crop equals that of the strip, except for rounding of its
        length.
        """
        shorter, longer = sorted((height, width))
        if longer <= LONGEST_ASPECT * shorter:
            return None
        scale = shorter / self.resize  # source pixels a resized one
        margin = math.ceil(FILTER_SUPPORT * max(1, scale))
        length = max(shorter, math.ceil(self.crop * scale)) + 2 * margin  # it stays the longer side
        length += (longer - length) % 2  # the same number of pixels is left out on both sides
        start = max(0, (longer - length) // 2)
        return start, start + min(length, longer)

    def batch(self, images: Sequence[tuple[bytes, bool]]) -> torch.Tensor:
        """`pixels` of several images, each (encoded, plain): uint8 [B, 3, crop, crop], channels last."""
        import torch

        batch = torch.empty(
            (len(images), 3, self.crop, self.crop), dtype=torch.uint8, memory_format=torch.channels_last
        )  # decoders write channels last, so each image is copied once
        for place, (encoded, plain) in enumerate(images):
            batch[place] = self.pixels(encoded, plain)
        return batch

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels, float32 [B, 3, H, W], channels last, of uint8 [B, 3, H, W], on the same device."""
        import torch

        # (p / 255 - mean) / std as one multiplication and one subtraction in place, over rows of W * 3 numbers. On a
        # CPU this is four times faster than the formula, which is bound by memory.
        width = pixels.shape[3]
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        scale, shift = (each.repeat(width).to(pixels.device) for each in (1 / (255 * std), mean / std))
        rows = pixels.permute(0, 2, 3, 1).flatten(2).to(torch.float32)
        return rows.mul_(scale).sub_(shift).view(*rows.shape[:2], width, 3).permute(0, 3, 1, 2)


def _resized(picture: Image.Image, width: int, height: int, interpolation: Interpolation) -> Image.Image:
    """An image in another size, by Pillow."""
    from PIL import Image

    if interpolation in ("nearest", "nearest-exact"):  # by torch's rounding in float32, which Pillow does not do
        offset = np.float32(0.5 if interpolation == "nearest-exact" else 0)
        rows, columns = (
            np.minimum(((np.arange(to, dtype=np.float32) + offset) * np.float32(of / to)).astype(np.int64), of - 1)
            for to, of in ((height, picture.height), (width, picture.width))
        )
        return Image.fromarray(np.asarray(picture)[rows][:, columns])
    return picture.resize((width, height), Image.Resampling[interpolation.upper()])
