"""Reading images of any file format and mode as upright RGB, checking image files, and shrinking images.

The check decodes with the same code as every later stage, so every later stage can read the checked images.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Lock
from typing import Literal, TypeVar

from PIL import ExifTags, Image, ImageChops, UnidentifiedImageError

from cusa.common import colours
from cusa.common.image_files import (
    HEAD,
    ZEROS,
    can_be_stripped,
    file_problem,
    is_heif,
    kind_of,
    lost_its_end,
    register_heif,
    without_metadata,
)
from cusa.common.perceptual_hash import SIDE, perceptual_hash
from cusa.errors import DataError, reason_of

Image.MAX_IMAGE_PIXELS = None  # dataset.max_pixels is the limit instead; it is compared with the header of a file

# Pillow stores large images in blocks. The C library gives blocks of more than 32 MiB back when they are freed. Smaller
# ones it keeps for the thread that freed them, which doubled the memory of eight threads.
Image.core.set_block_size(2**26)  # type: ignore[attr-defined]

# Pixels that are decoded at the same time in one process. A pixel takes 4 bytes, and 4 more while it is converted, so
# all threads together need about 1.5 GB. A larger image waits until it is the only one.
PIXELS_AT_ONCE = 178_956_970
UNKNOWN = "its format is unknown, or its header is damaged"
DRAWINGS = ("EPS", "WMF")
JPEGS = ("JPEG", "MPO")
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = frozenset(TRANSPOSITIONS[number] for number in (5, 6, 7, 8))

Source = str | Path | bytes
Result = TypeVar("Result")
Note = Literal["several_pictures", "grey_range"]


@dataclass(frozen=True)
class ImageCheck:
    """The result of a check: the problem of an image file, None if there is none, and notes.

    `missing` is true if the file does not exist. `perceptual_hash` is 0 for an image that was not decoded, or is nearly
    flat.
    """

    problem: str | None = None
    missing: bool = False
    notes: tuple[Note, ...] = ()
    perceptual_hash: int = field(default=0, compare=False)


def check_image(path: str | Path, how: Literal["decode", "header"], max_pixels: int | None = None) -> ImageCheck:
    """Check an image file: the file, its number of pixels, and with `decode` all that later stages do with it.

    `header` reads only the first bytes. `decode` also finds truncated files. JPEGs are decoded at an eighth of their
    size: this is several times faster and still reads every byte.
    """
    if (found := file_problem(path)) is not None:
        return ImageCheck(*found)
    try:
        if how == "header":
            return ImageCheck(notes=_retrying(path, lambda source: _read_header(source, max_pixels)))
        with ExitStack() as held:
            picture = _retrying(path, lambda source: _decode(source, max_pixels, held, at_an_eighth=True))
            check = ImageCheck(notes=picture.notes, perceptual_hash=perceptual_hash(picture.image))
            del picture  # frees its memory before its share of the budget
        return check
    except DataError as error:
        return ImageCheck(str(error))


@contextmanager
def decoded_rgb(
    source: Source, max_pixels: int | None = None, name: str = "an image in a shard"
) -> Iterator[Image.Image]:
    """Decode an image file, given by its path or as bytes, to upright 8-bit RGB without metadata.

    The image's `format` is that of the file. Until the block ends, other threads decode no more than PIXELS_AT_ONCE
    allows, so shrink the image within it. Raises DataError if the image cannot be decoded, or if its header says that
    it has more than `max_pixels` pixels; `name` is what the message calls an image that is given as bytes.
    """
    with ExitStack() as held:
        try:
            image = _retrying(source, lambda content: _decode(content, max_pixels, held)).image
        except DataError as error:
            name = name if isinstance(source, bytes) else str(source)
            advice = "" if isinstance(error, _FinalError) else "; replace or remove it"
            raise DataError(f"{name} {error}{advice}.") from None
        yield image


def open_rgb(source: Source) -> Image.Image:
    """Decode an image file as `decoded_rgb` does, for a place where one image at a time is decoded."""
    with decoded_rgb(source) as image:
        return image


def picture_size(source: Source) -> tuple[int, int]:
    """Width and height in pixels of an image file, as it is once it is upright. Only its header is read.

    Raises DataError, whose message continues a sentence about the file, if that is not the header of an image.
    """
    return _retrying(source, _upright_size)


def upright_rgb(image: Image.Image) -> Image.Image:
    """A Pillow image of any mode as upright 8-bit RGB. Raises DataError if it cannot be decoded."""
    with _decoders_errors():
        return _upright_rgb(image)


def upright(image: Image.Image, of: Image.Image) -> Image.Image:
    """Rotate an image as the EXIF data of the image `of` say. Raises an error of Pillow's if it cannot be decoded.

    ImageOps.exif_transpose writes the EXIF data again, which fails for some values that can be read.
    """
    of.load()  # which turns a TIFF, and removes the orientation
    transposition = _transposition(of)
    return image if transposition is None else image.transpose(transposition)


def resize_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """Shrink an image so that its shorter side has `size` pixels (bicubic); smaller images stay as they are."""
    shorter = min(image.size)
    if shorter <= size:
        return image
    width, height = (max(1, round(side * size / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


class _PixelBudget:
    """Limits the number of pixels that all threads together decode at the same time."""

    def __init__(self, pixels: int) -> None:
        self.pixels = self.free = pixels
        self._turn = Lock()  # a thread that waits for many pixels is not overtaken by threads that need few
        self._changed = Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Wait until this number of pixels is free; a number above the budget takes the whole budget."""
        wanted = min(pixels, self.pixels)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self.free >= wanted)
            self.free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self.free += wanted
                self._changed.notify_all()


_BUDGET = _PixelBudget(PIXELS_AT_ONCE)


@dataclass(frozen=True)
class _Picture:
    """A decoded image, and notes about its file."""

    image: Image.Image
    notes: tuple[Note, ...]


class _FinalError(DataError):
    """Other attempts to read the file would fail in the same way; the message says what to do."""


@contextmanager
def _decoders_errors() -> Iterator[None]:
    """Turn any error of a decoder into a DataError whose message continues a sentence about the file."""
    try:
        yield
    except _FinalError:
        raise
    except PermissionError:
        raise _FinalError("cannot be read (permission denied); give yourself the right to read it") from None
    except MemoryError:
        raise DataError("cannot be read as an image (it needs more memory than there is)") from None
    # On broken files Pillow's decoders raise errors of many types: struct.error, ZeroDivisionError, OverflowError,
    # KeyError, IndexError, TypeError, zlib.error, ... No list of them is complete, and all have the same meaning.
    except Exception as error:  # noqa: BLE001
        known = isinstance(error, (DataError, OSError, SyntaxError, ValueError, EOFError))
        reason = reason_of(error) if known else f"{type(error).__name__}: {reason_of(error)}"
        raise DataError(f"cannot be read as an image ({reason})") from None


def _retrying(source: Source, read: Callable[[Source], Result]) -> Result:
    """The result of `read` on an image file; if that fails, its result on the file without metadata."""
    # A pipe without a writer would block its reader for ever, and a device may have no end.
    if not isinstance(source, bytes) and (found := file_problem(source)) is not None:
        raise DataError(f"cannot be read as an image ({found[0]})")
    try:
        with _decoders_errors():
            return read(source)
    except _FinalError:
        raise
    except DataError as error:
        first = str(error)
    with _decoders_errors():
        if can_be_stripped(_head(source)):
            content = source if isinstance(source, bytes) else Path(source).read_bytes()
        else:  # such as a large video, whose rest is not read into memory
            content = b""
    for stripped in without_metadata(content):
        try:
            with _decoders_errors():
                return read(stripped)
        except _FinalError:
            raise
        except DataError:
            continue
    raise DataError(first)


def _open(source: Source) -> Image.Image:
    """Open an image file without decoding it. Raises DataError, which names the file's kind, if it is not an image."""
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except UnidentifiedImageError:
        head = _head(source)
        if not (is_heif(head) and register_heif()):
            raise DataError(kind_of(head) or UNKNOWN) from None
        try:
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        except UnidentifiedImageError:
            raise DataError(UNKNOWN) from None
    if image.format in DRAWINGS:
        image.close()
        raise DataError(f"it is a drawing ({image.format}), which has no pixels; convert it to PNG")
    return image


def _head(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source[:HEAD]
    with Path(source).open("rb") as file:
        return file.read(HEAD)


def _refuse_oversized(image: Image.Image, max_pixels: int | None) -> None:
    if min(image.size) < 1:
        raise DataError(f"it has {image.width} x {image.height} pixels")
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise _FinalError(
            f"has {image.width:,} x {image.height:,} pixels, but dataset.max_pixels is {max_pixels:,}; shrink it, or "
            "raise that key"
        )


def _read_header(source: Source, max_pixels: int | None) -> tuple[Note, ...]:
    with _open(source) as image:
        _refuse_oversized(image, max_pixels)
        return _notes_of_header(image)


def _upright_size(source: Source) -> tuple[int, int]:
    with _open(source) as image:
        _refuse_oversized(image, None)
        # Pillow turns a TIFF as it loads it, and its size is the upright one from the start.
        sideways = image.format != "TIFF" and _transposition(image) in SIDEWAYS
        return (image.height, image.width) if sideways else image.size


def _notes_of_header(image: Image.Image) -> tuple[Note, ...]:
    try:
        several = bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 (a second picture that is broken, in whatever way, is none that could be read)
        several = False
    return ("several_pictures",) if several else ()


def _decode(source: Source, max_pixels: int | None, held: ExitStack, at_an_eighth: bool = False) -> _Picture:
    """Decode an image file to upright RGB. The share of the pixel budget that this takes is kept in `held`."""
    with ExitStack() as budget, _open(source) as image:
        _refuse_oversized(image, max_pixels)
        if image.format in JPEGS and lost_its_end(image.fp):  # type: ignore[attr-defined]
            raise DataError(f"it is cut off: its last {ZEROS} bytes or more are zero, and it has no end")
        notes = _notes_of_header(image)
        pixels = image.width * image.height
        if at_an_eighth:
            image.draft("RGB", (max(SIDE, image.width // 8), max(SIDE, image.height // 8)))
            if not image.info.get("progressive"):  # the decoder holds a whole progressive JPEG in memory
                pixels = image.width * image.height
        budget.enter_context(_BUDGET.take(pixels))
        deep = colours.has_deep_colours(image)
        image.load()
        if deep and (colours.is_dark(image) or colours.has_clear_colour(image)):
            with _open(source) as lower:
                rgb = upright(colours.combined_bytes(image, colours.read_lower_bytes(lower)), image)
            notes = (*notes, "grey_range") if colours.is_dark(image) else notes
        else:
            if image.mode in colours.DEEP_GREYS and colours.grey_scale(image) != colours.FULL_SIXTEEN_BITS:
                notes = (*notes, "grey_range")
            rgb = _upright_rgb(image)
        rgb = rgb.copy() if rgb is image else rgb
        # Without its metadata, of which a writer would store some, and which may be broken.
        rgb.info, rgb.format = {}, image.format
        image.close()  # which frees its pixels
        held.enter_context(budget.pop_all())
        return _Picture(rgb, notes)


def _upright_rgb(image: Image.Image) -> Image.Image:
    rgb = colours.to_rgb(upright(image, image))
    return ImageChops.invert(rgb) if colours.has_white_zero(image) else rgb


def _transposition(image: Image.Image) -> Image.Transpose | None:
    """The transposition that makes an image upright, by its EXIF data; None if these cannot be read."""
    try:
        # Orientation is a number, or whatever a broken file has there; what cannot be a key raises TypeError.
        return TRANSPOSITIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 (broken EXIF data raise errors of any type, and never cost the picture)
        return None
