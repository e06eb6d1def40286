"""The transform that a model's preprocessor_config.json describes, compared with the pixels that transformers makes."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from cusa.errors import ConfigurationError, cause_of
from cusa.teachers.transform import ImageTransform, Interpolation

log = logging.getLogger(__name__)

INTERPOLATIONS: dict[int, Interpolation] = {0: "nearest-exact", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
# From this input side on, ConvNeXT's processor squeezes a picture instead of cropping it.
CONVNEXT_SQUARE_FROM = 384
PIXEL = 1 / 255
TOLERANCE = 2.0  # mean difference of 255 levels; two ways of rounding differ by less than one


def transform_of(name: str, image_size: int | None) -> ImageTransform:
    """The transform that a model's preprocessor_config.json describes, scaled to `image_size` if that is given.

    Raises ConfigurationError if the file describes anything else than resizing, a central square, and one scale and
    shift a colour, or if transformers makes other pixels of a picture. If only the size cannot be used,
    `image_size` takes its place: the shorter side is resized to it, and the central square is kept.
    """
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(name)  # type: ignore[no-untyped-call]
    settings: dict[str, Any] = processor.to_dict()
    if "max_num_patches" in settings:
        raise ConfigurationError(
            f"{name} takes pictures of any shape as lists of patches (NaFlex), but a batch here has squares of one "
            "size. Take the model for one size, for instance google/siglip2-base-patch16-224."
        )
    mean, std = _normalisation(name, settings)
    looks: dict[str, Any] = {"mean": mean, "std": std, "interpolation": _interpolation(name, settings)}
    sizes = _sizes(settings)
    if isinstance(sizes, str):
        if image_size is None:
            raise ConfigurationError(
                f"the preprocessor_config.json of {name} {sizes}; expected a resize and a central square of one size. "
                "Correct the file, or for an image teacher or tower give image_size in the configuration."
            )
        return ImageTransform(image_size, image_size, **looks)
    resize, crop, square = sizes
    transform = ImageTransform(resize, crop, square=square, **looks)
    crops = square or settings.get("do_center_crop") or settings.get("crop_pct")
    if not crops:
        log.warning(
            "%s resizes the shorter side to %d and does not crop; the central square is kept, because pictures of one "
            "batch have one shape",
            name,
            resize,
        )
    # A square picture that is not cropped has the same pixels in both cases.
    _require_equal(name, processor, transform, shapes=((3, 2), (2, 3)) if crops else ((2, 2),))
    if image_size is None:
        return transform
    return replace(transform, resize=round(resize * image_size / crop), crop=image_size)


def _sizes(settings: dict[str, Any]) -> tuple[int, int, bool] | str:
    """`resize`, `crop` and `square` of ImageTransform, or the settings as text if it cannot express them."""
    size = _sides(settings.get("size"))
    if not settings.get("do_resize", True):
        return "does not resize (`do_resize: false`), but a batch needs pictures of one size"
    if "crop_pct" in settings and settings["crop_pct"] and set(size) == {"shortest_edge"}:
        side = size["shortest_edge"]
        square = side >= CONVNEXT_SQUARE_FROM
        return (side, side, True) if square else (int(side / settings["crop_pct"]), side, False)
    crop_size = _sides(settings.get("crop_size")) if settings.get("do_center_crop") else None
    if set(size) == {"height", "width"} and size["height"] == size["width"]:
        side, square = size["height"], True
        crop_size = {"height": side, "width": side} if crop_size is None else crop_size
    elif set(size) == {"shortest_edge"}:
        side, square = size["shortest_edge"], False
        crop_size = {"height": side, "width": side} if crop_size is None else crop_size
    else:
        return f"has the size {size}"
    if set(crop_size) != {"height", "width"} or crop_size["height"] != crop_size["width"]:
        return f"has the crop_size {crop_size}"
    return side, crop_size["height"], square


def _sides(size: Any) -> dict[str, int]:
    """A size as a mapping of its sides; a number is both sides."""
    if size is None:
        return {}
    if isinstance(size, int | float):
        return {"height": int(size), "width": int(size)}
    return {side: int(length) for side, length in dict(size).items() if length is not None}


def _normalisation(
    name: str, settings: dict[str, Any]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """`mean` and `std` of ImageTransform, for pixels from 0 to 1; they include the factor that pixels are scaled by."""
    mean, std = (0.0,) * 3, (1.0,) * 3
    if settings.get("do_normalize", True):
        try:
            mean, std = (_colours(settings.get(key)) for key in ("image_mean", "image_std"))
        except (TypeError, ValueError):
            found = f"image_mean {settings.get('image_mean')} and image_std {settings.get('image_std')}"
            raise ConfigurationError(
                f"the preprocessor_config.json of {name} has {found}; expected three numbers each, or "
                "do_normalize: false."
            ) from None
    factor = settings.get("rescale_factor", PIXEL) if settings.get("do_rescale", True) else 1.0
    offset = 1.0 if settings.get("rescale_offset") else 0.0  # EfficientNet: from -1 to 1
    if abs(factor * 255 - 1) < 1e-6 and not offset:
        return mean, std
    scale = 255 * factor
    red, green, blue = ((each + offset) / scale for each in mean)
    return (red, green, blue), tuple(each / scale for each in std)  # type: ignore[return-value]


def _colours(value: Any) -> tuple[float, float, float]:
    red, green, blue = (value,) * 3 if isinstance(value, int | float) else value
    return float(red), float(green), float(blue)


def _interpolation(name: str, settings: dict[str, Any]) -> Interpolation:
    resample = settings.get("resample")
    number = 3 if resample is None else int(resample)
    if number not in INTERPOLATIONS:
        known = ", ".join(f"{key} ({value})" for key, value in INTERPOLATIONS.items())
        raise ConfigurationError(
            f"the preprocessor_config.json of {name} has resample {number}; expected one of {known}."
        )
    return INTERPOLATIONS[number]


def _require_equal(name: str, processor: Any, transform: ImageTransform, shapes: Iterable[tuple[int, int]]) -> None:
    """Raise ConfigurationError if transformers makes other pixels than `transform` of pictures of these shapes."""
    # An odd difference of the sides is halved up by torchvision and down by transformers: one pixel of difference.
    odd = (transform.resize - transform.crop) % 2
    allowed = TOLERANCE + odd * 255 / transform.crop
    for width, height in shapes:
        picture = _picture(width * transform.resize // 2 * 2, height * transform.resize // 2 * 2)
        file = io.BytesIO()
        picture.save(file, "PNG")
        try:
            expected = torch.as_tensor(np.asarray(processor(images=picture, return_tensors="pt")["pixel_values"][0]))
            found = transform.normalise(transform.pixels(file.getvalue(), plain=False)[None])[0]
        except Exception as error:  # the libraries raise anything at settings that they do not expect
            raise ConfigurationError(
                f"the image processor of {name} fails on a picture of {picture.width} x {picture.height} "
                f"({cause_of(error)}); correct its preprocessor_config.json."
            ) from error
        if expected.shape != found.shape:
            difference = f"shape {list(expected.shape)}, and not {list(found.shape)}"
        else:
            levels = (expected - found).abs() * 255 * torch.tensor(transform.std)[:, None, None]
            if levels.mean() <= allowed:
                continue
            difference = f"pixels that differ by {levels.mean():.0f} of 255 levels from {transform}"
        raise ConfigurationError(
            f"the image processor of {name} ({type(processor).__name__}) does more than its preprocessor_config.json "
            f"lets cusa see: of a picture of {picture.width} x {picture.height} it makes {difference}. Take another "
            "model, or a Python file that prepares its pictures (docs/extending.md in cusa's repository)."
        )


def _picture(width: int, height: int) -> Image.Image:
    """A smooth picture whose colours and corners all differ."""
    x, y = np.linspace(0, 1, width)[None, :], np.linspace(0, 1, height)[:, None]
    colours = (x + 0 * y, y + 0 * x, (x * y + 1 - x) / 1.5)
    return Image.fromarray((255 * np.stack(colours, axis=-1)).astype(np.uint8))
