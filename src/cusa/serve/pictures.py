"""The pictures of an index for a browser: as they are, or smaller, and only those of a row."""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from PIL import Image

from cusa.common.colours import DEEP_GREYS, has_deep_colours
from cusa.common.images import decoded_rgb, picture_size, upright
from cusa.config.dataset_section import MAX_PIXELS
from cusa.errors import DataError
from cusa.serve.engine import Engine

HEIGHTS = (64, 96, 128, 192, 256, 384, 512, 768, 1024)  # pixels
KEPT_BYTES = 64 << 20
WEBP = "image/webp"
WEBP_SIDE = 16_383  # pixels; the format has no longer one
TRANSPARENT_PIXELS = 4_000_000  # pictures with more pixels than this are shown without transparency


@dataclass(frozen=True)
class Shown:
    """Bytes for a browser and their media type."""

    content: bytes
    media_type: str


class Pictures:
    """Makes what browsers show, and keeps the last of it, 64 MiB in all."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int, int | None], Shown] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def shown(self, engine: Engine, row: int, height: int | None) -> Shown:
        """The picture of a row as its file is, or one of about `height` pixels, made smaller but never larger.

        Files that browsers do not show, such as TIFF, become WebP. Raises DataError if the picture cannot be read.
        """
        height = None if height is None else next((each for each in HEIGHTS if each >= height), None)
        key = (engine.fingerprint, row, height)
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept
        content = engine.index.picture_bytes(row)
        kind = browser_type(content)
        if kind is not None and (height is None or picture_size(content)[1] <= height):
            return Shown(content, kind)
        shown = Shown(_webp(content, height), WEBP)
        self._keep(key, shown)
        return shown

    def _keep(self, key: tuple[str, int, int | None], shown: Shown) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = shown
            self._bytes += len(shown.content)
            while self._bytes > KEPT_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest.content)


def browser_type(content: bytes) -> str | None:
    """The media type of a picture file that browsers show, by its first bytes; None for any other file."""
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return WEBP
    return None


def measure(engine: Engine, rows: list[int]) -> None:
    """Look up the width and height of the pictures of rows, and note them in the engine; unreadable ones stay 0."""
    for row in rows:
        try:
            engine.sizes[row] = picture_size(engine.index.picture_bytes(row))
        except DataError:
            engine.sizes[row] = -1


def _webp(content: bytes, height: int | None) -> bytes:
    buffer = io.BytesIO()
    width, own_height = picture_size(content)
    wanted = min(own_height, height or WEBP_SIDE, WEBP_SIDE)
    size = (max(1, min(WEBP_SIDE, round(width * wanted / own_height))), wanted)
    if (transparent := _transparent(content)) is not None:
        transparent.resize(size, Image.Resampling.LANCZOS).save(buffer, "WEBP", quality=85)
        return buffer.getvalue()
    with decoded_rgb(content, MAX_PIXELS) as picture:
        smaller = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    smaller.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()


def _transparent(content: bytes) -> Image.Image | None:
    """A picture with transparency, upright and as RGBA; None if it has none, or is large, deep or odd."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            small = picture.width * picture.height <= TRANSPARENT_PIXELS
            deep = picture.mode in DEEP_GREYS or has_deep_colours(picture)
            if small and not deep and (picture.mode in ("RGBA", "LA") or "transparency" in picture.info):
                return upright(picture.convert("RGBA"), picture)
    # Pillow's decoders raise errors of any type; decoded_rgb, which is tried next, reports the problem.
    except Exception:  # noqa: BLE001
        return None
    return None
