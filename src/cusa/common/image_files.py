"""Detects the kind of an image file by its first bytes, and removes the parts of a file that hold no pixels.

Broken metadata must not make a picture unreadable. If decoding fails, it is tried again on the file without texts,
colour profiles and EXIF. `without_metadata` builds this file for the formats whose metadata can make Pillow fail.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
import struct
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import IO
from urllib.parse import unquote

from PIL import features

IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jp2", ".ppm", ".pgm", ".pbm"),
)
ZEROS = 64  # bytes at the end of a file, which may stand for lost ones
HEAD = 1024  # bytes from which the kind of a file is detected
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL})
TEXT = "it is text"
HTML_PAGE = "it is an HTML page, perhaps of a download that failed"
JPEG_XL = "it is JPEG XL, which Pillow does not read; convert it to PNG or JPEG"
TIFF_STARTS = (b"ii*\0", b"mm\0*", b"ii+\0", b"mm\0+")  # in small letters, as those below
DICOM_AT = 128  # where a DICOM file says that it is one
NOT_AN_IMAGE = (
    (b"version https://git-lfs", "it is a pointer of Git LFS; run `git lfs pull`"),
    (b"<!doctype html", HTML_PAGE),
    (b"%pdf", "it is a PDF document"),
    (b"%!ps", "it is a drawing in PostScript, which has no pixels; convert it to PNG"),
    (b"pk\x03\x04", "it is a ZIP archive"),
    (b"\x1f\x8b", "it is compressed with gzip; unpack it"),
    (b"\xff\x0a", JPEG_XL),
    (b"\0\0\0\x0cjxl ", JPEG_XL),
    (b"\x93numpy", "it is a NumPy array; write it as PNG"),
    (b"\0\x05\x16\x07", "it holds what macOS stores beside a file, not its pixels; remove it"),
    (b"l\0\0\0\x01\x14\x02\0", "it is a shortcut of Windows; copy the file that it names"),
    *(
        (start, "it is a TIFF whose samples Pillow does not read, or it is damaged; convert it to 8 bits")
        for start in TIFF_STARTS
    ),
)

_heif_lock = Lock()
# What was joined to a folder, though it starts none: an address, whose slashes a path has once, or a drive.
_ELSEWHERE = re.compile(r"(?:^|/)(?:(?P<address>(?:https?|ftp|s3|gs):/)|(?P<file>file:/)|(?P<drive>[A-Za-z]:/))")
_WHERE_ELSE = {
    "address": ": it is an address; download the images first, for instance with img2dataset",
    "file": ": it is an address of a file; write its path, without file://",
    "drive": ": it is a path of Windows; write the path of the file here, or name its start in dataset.image_prefix",
}


def file_problem(path: str | Path) -> tuple[str, bool] | None:
    """Why a path is not a readable file, and whether the reason is that it does not exist. None if it is readable.

    Any error of the file system counts as an answer, also for a name that it cannot store.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 (a path that cannot be encoded fails here, and nowhere before)
    except ValueError:  # a NUL or half a surrogate pair
        return "the file does not exist", True
    except OSError as error:
        if error.errno in NO_FILE:
            return "the file does not exist", True
        return f"cannot be opened ({error.strerror})", False
    if stat.S_ISDIR(status.st_mode):
        return "is a folder, not a file", False
    if not stat.S_ISREG(status.st_mode):
        return "is a device or a pipe, not a file", False
    return ("the file has zero bytes", False) if status.st_size == 0 else None


def why_missing(path: str | Path) -> str:
    """A remark about a file that does not exist; empty without one.

    It is an address or a path of Windows, or its folder has its name in another spelling or as a broken link. The
    spellings are those of upper and lower case, of blanks at the ends, of addresses (%20), other endings, and
    Unicode's: macOS stores an accent as a character of its own. The folder itself may be twice in it, or be spelled in
    another case.
    """
    if (match := _ELSEWHERE.search(str(path))) is not None:
        return _WHERE_ELSE[match.lastgroup or ""]
    try:
        names = os.listdir(os.path.dirname(path))  # noqa: PTH120, PTH208 (a Path cannot have every text)
    except (OSError, ValueError):
        return _other_folder(path)
    wanted = os.path.basename(path)  # noqa: PTH119
    if wanted in names:
        return ": it is a symbolic link to something that does not exist"
    found = next((name for name in names if name.lower() == wanted.lower()), None)
    if found is not None:
        return f", but {found} does"
    if (found := next((plain for plain in (wanted.strip(), unquote(wanted)) if plain in names), None)) is not None:
        return f", but {found} does, without {'blanks at its ends' if found == wanted.strip() else 'percent signs'}"
    if (found := _other_ending(wanted, names)) is not None:
        return found
    composed = unicodedata.normalize("NFC", wanted)
    if any(unicodedata.normalize("NFC", name) == composed for name in names):
        return ", but one does whose accents are other Unicode characters (NFC or NFD); rename it, or correct the path"
    return ""


def _other_ending(wanted: str, names: Sequence[str]) -> str | None:
    """A remark about a picture of the same name with another ending, or with one at all; None if there is none."""
    stem, ending = os.path.splitext(wanted)  # noqa: PTH122
    for name in names:
        other, own = os.path.splitext(name)  # noqa: PTH122
        if own.lower() in IMAGE_ENDINGS and wanted and other == wanted:
            return f", but {name} does; image_name: {{}}{own} completes such names"
        if own.lower() in IMAGE_ENDINGS and ending.lower() in IMAGE_ENDINGS and other == stem:
            return f", but {name} does"
    return None


def _other_folder(path: str | Path) -> str:
    """A remark about the first folder of a path that does not exist; empty without one.

    It is twice in the path, as when image_root and the names of images both have it, or has its name in another case.
    """
    folder = os.path.dirname(path)  # noqa: PTH120
    while (above := os.path.dirname(folder)) != folder:  # noqa: PTH120
        wanted = os.path.basename(folder)  # noqa: PTH119
        try:
            names = os.listdir(above)  # noqa: PTH208
        except (OSError, ValueError):
            folder = above
            continue
        once = f"{above}{str(path)[len(folder) :]}"
        if os.path.basename(above) == wanted and os.path.exists(once):  # noqa: PTH110, PTH119
            return f", but {once} does: {wanted} is in dataset.image_root and in the name"
        found = next((name for name in names if name.lower() == wanted.lower()), None)
        return f": there is no folder {wanted}, but {found}" if found not in (None, wanted) else ""
    return ""


def kind_of(head: bytes) -> str | None:
    """The kind of a file that no decoder knows, by its first bytes, and advice; None if the kind is not known."""
    if not head:
        return "it has zero bytes"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, kind in NOT_AN_IMAGE:
        if text.startswith(start):
            return kind
    if b"<html" in text and text.startswith(b"<"):
        return HTML_PAGE
    if b"<svg" in text and text.startswith(b"<"):
        return "it is an SVG drawing, which has no pixels; convert it to PNG"
    if is_avif(head):
        return None if features.check("avif") else "it is AVIF, which Pillow reads from version 11.3 on"
    if is_heif(head):
        return None if register_heif() else "it is HEIC; `pip install 'cusa[heic]'` installs what reads it"
    if head[DICOM_AT : DICOM_AT + 4] == b"DICM":
        return "it is DICOM, a format of medical images; convert it to PNG"
    if _brands(head)[:1] == [b"crx "]:
        return "it is a raw photo (CR3); convert it to JPEG"
    if head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "it is a video"
    if b"\0" not in head:
        try:
            codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be incomplete
        except UnicodeDecodeError:
            return None
        return TEXT
    return None


def is_avif(head: bytes) -> bool:
    """Whether the first bytes of a file name a brand of AVIF."""
    return any(brand in _brands(head) for brand in (b"avif", b"avis"))


def is_heif(head: bytes) -> bool:
    """Whether the first bytes of a file name a brand of HEIF, and none of AVIF."""
    return not is_avif(head) and any(brand[:3] in (b"hei", b"hev", b"mif", b"msf") for brand in _brands(head))


def _brands(head: bytes) -> list[bytes]:
    if head[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return [head[place : place + 4] for place in (8, *range(16, end - 3, 4))]


def register_heif() -> bool:
    """Teach Pillow to read HEIC, if the package pillow-heif is installed. Returns whether it is."""
    with _heif_lock:
        try:
            import pillow_heif
        except ImportError:
            return False
        pillow_heif.register_heif_opener()
        return True


def without_metadata(content: bytes) -> Iterator[bytes]:
    """The file with its pixels and the EXIF that says which side is up, then with its pixels alone.

    Yields nothing for formats whose metadata cannot make a decoder fail, and nothing that was yielded before.
    """
    yielded = {content}
    for strip in _strippers(content):
        for keep_exif in (True, False):
            try:
                stripped = strip(content, keep_exif)
            except (struct.error, IndexError, ValueError):
                return  # the structure of the file cannot be read
            if stripped not in yielded:
                yielded.add(stripped)
                yield stripped


def can_be_stripped(head: bytes) -> bool:
    """Whether `without_metadata` may yield something for a file with these first bytes."""
    return bool(_strippers(head))


def _strippers(content: bytes) -> list[Callable[[bytes, bool], bytes]]:
    if content.startswith(PNG_SIGNATURE):
        return [_png]
    if content.startswith(b"\xff\xd8"):
        return [_jpeg]
    if content[:4] in (b"II*\0", b"MM\0*"):
        return [_tiff]
    return [_exif_emptied] if is_avif(content[:HEAD]) or is_heif(content[:HEAD]) else []


def _png(content: bytes, keep_exif: bool) -> bytes:
    """A PNG with its critical chunks, and the sound ones that say which side is up and what is transparent."""
    parts, place = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while place + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        chunk = content[place : place + 12 + length]
        critical = not name[0] & 0x20  # a capital letter
        sound = zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]
        if critical or (keep_exif and sound and name in (b"eXIf", b"tRNS")):
            parts.append(chunk)
        place += 12 + length
        if name == b"IEND":
            break
    return b"".join(parts)


def _jpeg(content: bytes, keep_exif: bool) -> bytes:
    """A JPEG without comments and application segments, but those that say how its colours are stored."""
    parts = [content[:2]]
    for marker, segment in _jpeg_segments(content):
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        is_exif = marker == 0xE1 and segment[4:8] == b"Exif"
        if not is_metadata or marker in (0xE0, 0xEE) or (keep_exif and is_exif):
            parts.append(segment)
    return b"".join(parts)


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The markers and segments of a JPEG. The last one is all from its pixels to the end of the file."""
    place = 2
    while content[place] == 0xFF and content[place + 1] != 0xDA:  # the pixels begin at 0xDA
        if content[place + 1] == 0xFF:  # padding
            place += 1
            continue
        marker, length = struct.unpack_from(">xBH", content, place)
        yield marker, content[place : place + 2 + length]
        place += 2 + length
    yield 0xDA, content[place:]


def _jpeg_pixels(content: bytes) -> bytes:
    return list(_jpeg_segments(content))[-1][1]


def lost_its_end(jpeg: IO[bytes]) -> bool:
    """Whether a JPEG ends in zeros where its pixels should go on, as when a download stopped whose place was reserved.

    Decoders take the zeros for pixels. A sound file has the mark of the end after its pixels, also if zeros follow.
    """
    place = jpeg.tell()
    try:
        jpeg.seek(max(0, jpeg.seek(0, os.SEEK_END) - ZEROS))
        if jpeg.read().strip(b"\0"):
            return False
        jpeg.seek(0)
        content = jpeg.read()
    finally:
        jpeg.seek(place)
    try:
        start = len(content) - len(_jpeg_pixels(content))
    except (struct.error, IndexError):
        return False  # the structure of the file cannot be read
    return content.find(b"\xff\xd9", start) < 0


# The tags of a TIFF that say how its pixels are stored: sizes, samples, strips, tiles, colours; not the other ones.
TIFF_TAGS = frozenset(
    {*range(254, 260), 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, *range(322, 326), 332, 336}
    | {338, 339, 347, *range(512, 522), *range(529, 533)}
)
TIFF_ORIENTATION = 274


def _tiff(content: bytes, keep_exif: bool) -> bytes:
    """A TIFF whose first directory has the tags of its pixels alone. The new directory is put at the end."""
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    entries = [content[place : place + 12] for place in range(start + 2, start + 2 + 12 * count, 12)]
    tags = TIFF_TAGS | ({TIFF_ORIENTATION} if keep_exif else set())
    kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] in tags]
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    body = content + bytes(len(content) % 2)  # a directory begins at an even place
    return body[:4] + struct.pack(f"{order}I", len(body)) + body[8:] + directory


def _exif_emptied(content: bytes, keep_exif: bool) -> bytes:
    """An AVIF or HEIC whose EXIF directory has no entry; which side is up stands elsewhere in these formats."""
    for magic, empty in ((b"II*\0", struct.pack("<IHI", 8, 0, 0)), (b"MM\0*", struct.pack(">IHI", 8, 0, 0))):
        parts = content.split(magic)
        content = magic.join([parts[0], *(empty + part[len(empty) :] for part in parts[1:] if len(part) >= len(empty))])
    return content
