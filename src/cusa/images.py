"""Reading any image file people have as upright RGB, and the transform each model applies to it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cusa.errors import DataError

if TYPE_CHECKING:
    import torch

Image.MAX_IMAGE_PIXELS = None  # large scans are legitimate; what cannot be decoded is reported
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def image_problem(path: str | Path, how: Literal["decode", "header"]) -> str | None:
    """Say what is wrong with an image file, or None.

    `header` reads its first bytes. `decode` decodes it as well, JPEGs at an eighth of their size, which is
    several times faster and still reads every byte, so truncation is found.
    """
    path = Path(path)
    if not path.is_file():
        return "the file does not exist"
    if path.stat().st_size == 0:
        return "the file has zero bytes"
    try:
        with Image.open(path) as image:
            if how == "decode":
                image.draft("RGB", (image.width // 8, image.height // 8))
                image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        return f"cannot be read as an image ({error})"
    return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a Pillow image of any mode upright (EXIF) and into 8-bit RGB.

    Transparency is laid on white, 16-bit grey is scaled to 8 bits, CMYK, palette and grey are converted.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    if image.mode in SIXTEEN_BIT_MODES:
        grey = np.asarray(image).astype(np.uint32)
        return Image.fromarray((grey >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(np.asarray(image).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def open_rgb(source: str | Path | bytes) -> Image.Image:
    """Decode a file or its bytes to upright RGB. Raises DataError when that is impossible."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return to_rgb(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        name = "an image in a shard" if isinstance(source, bytes) else str(source)
        raise DataError(f"{name} cannot be read as an image ({error}); replace or remove it.") from None


def resize_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """Shrink so that the shorter side has `size` pixels (bicubic); smaller images stay as they are."""
    shorter = min(image.size)
    if shorter <= size:
        return image
    width, height = (max(1, round(side * size / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]


@dataclass(frozen=True)
class ImageTransform:
    """What a model does to an RGB image before its first layer; recorded in every meta.json.

    The shorter side is resized to `resize` (CLIP's way; with `square` both sides are, as SigLIP does), the centre
    `crop` x `crop` pixels are kept, and `normalise` maps uint8 to float32 with `mean` and `std` of the unit range.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bicubic"
    square: bool = False

    def pixels(self, encoded: bytes, plain: bool) -> torch.Tensor:
        """Decode, resize and crop to uint8 [3, crop, crop].

        `plain` marks bytes this project wrote itself (upright 8-bit RGB), which torchvision decodes fast.
        """
        import torch
        from torchvision.io import ImageReadMode, decode_image
        from torchvision.transforms.v2 import functional as transforms

        if plain:
            buffer = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
            image = decode_image(buffer, mode=ImageReadMode.RGB)
        else:
            image = torch.from_numpy(np.array(open_rgb(encoded))).permute(2, 0, 1)
        size = [self.resize, self.resize] if self.square else [self.resize]
        if min(image.shape[1:]) != self.resize or (self.square and image.shape[1] != image.shape[2]):
            mode = transforms.InterpolationMode(self.interpolation)
            image = transforms.resize(image, size, interpolation=mode, antialias=True)
        cropped: torch.Tensor = transforms.center_crop(image, [self.crop, self.crop])
        return cropped

    def batch(self, images: Sequence[tuple[bytes, bool]]) -> torch.Tensor:
        """`pixels` of several (encoded, plain): uint8 [B, 3, crop, crop], channels last."""
        import torch

        batch = torch.empty(
            (len(images), 3, self.crop, self.crop), dtype=torch.uint8, memory_format=torch.channels_last
        )  # decoders write channels last, so each image is copied once
        for place, (encoded, plain) in enumerate(images):
            batch[place] = self.pixels(encoded, plain)
        return batch

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> float32 [B, 3, H, W], channels last, on the device the pixels are on."""
        import torch

        # (p / 255 - mean) / std as one multiplication and one subtraction in place, over rows of W * 3 numbers: four
        # times faster on a CPU than the formula as it stands, which is bound by memory.
        width = pixels.shape[3]
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        scale, shift = (each.repeat(width).to(pixels.device) for each in (1 / (255 * std), mean / std))
        rows = pixels.permute(0, 2, 3, 1).flatten(2).to(torch.float32)
        return rows.mul_(scale).sub_(shift).view(*rows.shape[:2], width, 3).permute(0, 3, 1, 2)
