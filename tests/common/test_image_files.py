"""Metadata never cost the picture; a mutated file is a picture that every later stage reads, or a sentence."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from cusa.common.image_files import without_metadata
from cusa.common.images import check_image, decoded_rgb, open_rgb
from cusa.config.shards import Shards
from cusa.errors import DataError
from cusa.shards.writing import _Encoded

LEFT, RIGHT = (200, 30, 30), (30, 30, 200)


def two_halves(size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Red on the left, blue on the right: rotated by 90 degrees, red is above."""
    image = Image.new("RGB", size, LEFT)
    image.paste(RIGHT, (size[0] // 2, 0, *size))
    return image


def is_upright(image: Image.Image) -> bool:
    return image.width > image.height and close(image, LEFT)


def is_turned(image: Image.Image) -> bool:
    return image.width < image.height and close(image, LEFT)


def close(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    return np.abs(np.asarray(image, dtype=int)[2, 2] - colour).max() < 12


def file_of(kind: str, image: Image.Image | None = None, **keywords: object) -> bytes:
    buffer = io.BytesIO()
    (image or two_halves()).copy().save(
        buffer, kind, **keywords
    )  # a copy: Pillow's images remember how they were saved
    return buffer.getvalue()


def directory(*tags: tuple[int, int, int, bytes], tail: bytes = b"") -> bytes:
    """A TIFF directory, which is what EXIF data are: (tag, type, count, four bytes of value) each."""
    entries = b"".join(struct.pack("<HHI", *tag[:3]) + tag[3] for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + tail


TURNED = (0x112, 3, 1, b"\6\0\0\0")
EXIF = {
    "a rational of -1/0": directory(TURNED, (0x11A, 10, 1, struct.pack("<I", 38)), tail=struct.pack("<ii", -1, 0)),
    "a rational of 0/0": directory(TURNED, (0x11A, 5, 1, struct.pack("<I", 38)), tail=struct.pack("<II", 0, 0)),
    "an offset behind the end": directory(TURNED, (0x10F, 2, 4000, struct.pack("<I", 1 << 30))),
    "a sub-directory that is not there": directory(TURNED, (0x8769, 4, 1, struct.pack("<I", 60_000))),
    "a directory of GPS that is a text": directory(TURNED, (0x8825, 2, 4, b"abc\0")),
    "60 kB of a maker's notes": directory(TURNED, (0x927C, 7, 60_000, struct.pack("<I", 38)), tail=b"\7" * 60_000),
    "an unknown type": directory(TURNED, (0x9000, 99, 1, bytes(4))),
}
NOT_TURNED = {
    "orientation 0": directory((0x112, 3, 1, bytes(4))),
    "orientation 9": directory((0x112, 3, 1, b"\x09\0\0\0")),
    "orientation 65535": directory((0x112, 3, 1, b"\xff\xff\0\0")),
    "orientation as text": directory((0x112, 2, 4, b"six\0")),
    "two orientations": directory((0x112, 3, 2, b"\1\0\1\0")),
    "noise": b"\xff\x00\x13" * 30,
    "nothing": b"",
    "a cut directory": directory(TURNED)[:11],
}


def jpeg_with(payload: bytes, marker: int = 0xE1) -> bytes:
    plain = file_of("JPEG", quality=95)
    return plain[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + plain[2:]


def stored_in_every_format(path: Path) -> list[Image.Image]:
    """The picture as each stage and writer has it, which includes those that store metadata if one lets them."""
    settings = [Shards(shorter_side=None), *(Shards(image_format=kind) for kind in ("jpg", "png", "webp"))]
    return [open_rgb(path), *(open_rgb(_Encoded(str(path), each, 10**6).content) for each in settings)]


@pytest.mark.parametrize(
    ("exif", "right"), [*((name, is_turned) for name in EXIF), *((n, is_upright) for n in NOT_TURNED)]
)
def test_odd_exif_never_costs_the_picture(tmp_path, exif, right):
    content = (EXIF | NOT_TURNED)[exif]
    files = {
        "x.jpg": jpeg_with(b"Exif\0\0" + content),
        "x.webp": file_of("WEBP", exif=content or b"\0", quality=95),
        "x.png": png_with((b"eXIf", content)),
    }
    for name, file in files.items():
        (tmp_path / name).write_bytes(file)
        assert check_image(tmp_path / name, "decode").problem is None
        assert all(map(right, stored_in_every_format(tmp_path / name))), name


def test_avif_and_tiff_with_odd_exif(tmp_path):
    """AVIF says which side is up in a place of its own, TIFF among its tags."""
    exif = Image.Exif()
    exif[0x112], exif[0x11A] = 6, 72.0
    avif = file_of("AVIF", exif=exif, quality=95)
    for sound, broken in {b"\1\x1a\0\5": b"\1\x1a\0\x0a", struct.pack(">II", 72, 1): struct.pack(">ii", -1, 0)}.items():
        assert sound in avif
        avif = avif.replace(sound, broken)
    (tmp_path / "x.avif").write_bytes(avif)
    assert check_image(tmp_path / "x.avif", "decode").problem is None
    assert all(map(is_turned, stored_in_every_format(tmp_path / "x.avif")))
    plain = file_of("TIFF")
    (start,) = struct.unpack_from("<I", plain, 4)
    (count,) = struct.unpack_from("<H", plain, start)
    entries = [plain[place : place + 12] for place in range(start + 2, start + 2 + 12 * count, 12)]
    for odd in ((0x11A, 10, 1), (0x8769, 4, 1), (0x8825, 2, 40), (0x9000, 99, 1), (0x83BB, 7, 10**6), (34665, 4, 1)):
        for value in (0, len(plain) - 8, 1 << 30):
            more = sorted([*entries, struct.pack("<HHII", *odd, value), struct.pack("<HHII", 0x112, 3, 1, 6)])
            body = plain[:4] + struct.pack("<I", len(plain)) + plain[8:] + struct.pack("<H", len(more))
            (tmp_path / "x.tif").write_bytes(body + b"".join(more) + bytes(4))
            assert check_image(tmp_path / "x.tif", "decode").problem is None
            assert all(map(is_turned, stored_in_every_format(tmp_path / "x.tif")))


@pytest.mark.parametrize("xmp", [b"<x tiff:Orientation='6'", b"\xff\xfe", b"", b'tiff:Orientation="0"', b"x" * 60_000])
def test_odd_xmp_profiles_and_comments_never_cost_the_picture(tmp_path, xmp):
    files = [
        jpeg_with(b"http://ns.adobe.com/xap/1.0/\0" + xmp),
        jpeg_with(b"ICC_PROFILE\0\1\1" + xmp, 0xE2),
        jpeg_with(b"ICC_PROFILE\0" + xmp, 0xE2),
        jpeg_with(b"MPF\0" + xmp, 0xE2),
        jpeg_with(b"MPF\0" + directory((0xB001, 4, 1, b"\2\0\0\0")), 0xE2),
        jpeg_with(b"Photoshop 3.0\0" + xmp, 0xED),
        jpeg_with(xmp, 0xFE),
        file_of("WEBP", xmp=xmp or b"\0", icc_profile=xmp or b"\0"),
        file_of("TIFF", icc_profile=xmp),
        file_of("PNG", icc_profile=xmp),
        file_of("AVIF", icc_profile=xmp, xmp=xmp),
    ]
    for number, file in enumerate(files):
        (tmp_path / "x").write_bytes(file)
        assert check_image(tmp_path / "x", "decode").problem is None, number
        assert all(map(is_upright, stored_in_every_format(tmp_path / "x"))), number


def chunk(name: bytes, data: bytes, crc: bytes | None = None) -> bytes:
    return struct.pack(">I", len(data)) + name + data + (crc or struct.pack(">I", zlib.crc32(name + data)))


def png_with(*chunks: tuple[bytes, ...], behind: bool = False, image: Image.Image | None = None) -> bytes:
    """A PNG with more chunks, before or behind its pixels."""
    plain = file_of("PNG", image)
    place = plain.index(b"IEND") - 4 if behind else plain.index(b"IDAT") - 4
    return plain[:place] + b"".join(chunk(*each) for each in chunks) + plain[place:]


def long_text() -> bytes:
    return zlib.compress(b"node " * 400_000)


CHUNKS: dict[str, tuple[tuple[bytes, ...], ...]] = {
    "a long text": ((b"tEXt", b"workflow\0" + b"node " * 400_000),),
    "a text that is long when decompressed": ((b"zTXt", b"workflow\0\0" + long_text()),),
    "the same as international text": ((b"iTXt", b"workflow\0\1\0en\0\0" + long_text()),),
    "many texts": ((b"zTXt", b"a\0\0" + zlib.compress(b"x" * 900_000)),) * 80,
    "a text that does not decompress": ((b"zTXt", b"a\0\0nonsense"),),
    "a text of an unknown compression": ((b"zTXt", b"a\0\7nonsense"),),
    "a text with a wrong checksum": ((b"tEXt", b"a\0b", b"1234"),),
    "a text that is empty": ((b"tEXt", b""), (b"zTXt", b""), (b"iTXt", b"")),
    "a profile that does not decompress": ((b"iCCP", b"name\0\0nonsense"),),
    "a profile that is long when decompressed": ((b"iCCP", b"name\0\0" + long_text()),),
    "colours, gamma and times that are cut": ((b"cHRM", b"1"), (b"gAMA", b"1"), (b"tIME", b"1"), (b"pHYs", b"1")),
    "unknown chunks": ((b"abCd", b"?" * 500), (b"prVt", b"")),
    "an animation that is announced and not there": ((b"acTL", struct.pack(">II", 3, 0)),),
    "an animation that is cut": ((b"acTL", b"1"),),
}


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("chunks", CHUNKS)
def test_odd_chunks_of_a_png_never_cost_the_picture(tmp_path, chunks, behind):
    (tmp_path / "x.png").write_bytes(png_with(*CHUNKS[chunks], behind=behind))
    assert check_image(tmp_path / "x.png", "decode").problem is None
    assert check_image(tmp_path / "x.png", "header").problem is None
    assert all(map(is_upright, stored_in_every_format(tmp_path / "x.png")))


def test_a_png_with_a_broken_text_is_turned_and_transparent_as_it_says(tmp_path):
    clear = Image.new("RGB", (40, 20), (9, 9, 9))
    chunks = [(b"tRNS", struct.pack(">HHH", 9, 9, 9)), (b"eXIf", EXIF["a rational of 0/0"]), (b"zTXt", b"a\0\0broken")]
    (tmp_path / "x.png").write_bytes(png_with(*chunks, image=clear))
    found = open_rgb(tmp_path / "x.png")
    assert found.size == (20, 40)
    assert np.asarray(found).min() == 255


def test_without_metadata_ends_for_files_that_are_not_even_outlined():
    for content in (
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xe1\0",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*",
        b"\x89PNG\r\n\x1a\n\0",
    ):
        assert content not in list(without_metadata(content))


def several() -> dict[str, object]:
    return {"save_all": True, "append_images": [Image.new("RGB", (19, 11))]}


@cache
def samples() -> dict[str, bytes]:
    """A small file of each kind that people have, with metadata."""
    info, exif = PngImagePlugin.PngInfo(), Image.Exif()
    info.add_text("a", "b" * 60, zip=True)
    exif[0x112], exif[0x11A], exif[0x10F] = 6, 72.0, "maker"
    image = two_halves((19, 11))
    grey = Image.fromarray(np.arange(209, dtype=np.uint16).reshape(11, 19) * 300)
    return {
        "jpeg": file_of("JPEG", image, exif=exif, icc_profile=b"p" * 40, comment=b"c"),
        "progressive jpeg": file_of("JPEG", image, progressive=True),
        "cmyk jpeg": file_of("JPEG", image.convert("CMYK")),
        "mpo": file_of("MPO", image, **several()),
        "png": file_of("PNG", image, pnginfo=info, exif=exif),
        "alpha png": file_of("PNG", image.convert("RGBA")),
        "palette png": file_of("PNG", image.convert("P"), transparency=b"\0\x80"),
        "deep png": file_of("PNG", grey),
        "apng": file_of("PNG", image, **several()),
        "gif": file_of("GIF", image, **several()),
        "webp": file_of("WEBP", image, exif=exif),
        "animated webp": file_of("WEBP", image, **several()),
        "bmp": file_of("BMP", image),
        "tiff": file_of("TIFF", image, exif=exif),
        "lzw tiff": file_of("TIFF", image, compression="tiff_lzw"),
        "tiff of pages": file_of("TIFF", image, **several()),
        "float tiff": file_of("TIFF", Image.fromarray(np.asarray(grey).astype(np.float32))),
        "avif": file_of("AVIF", image, exif=exif),
        "ppm": file_of("PPM", image),
        "jpeg 2000": file_of("JPEG2000", image),
    }


def mutations() -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """Changes of a file: bytes overwritten, removed, added, mostly in its first 300 bytes; or its end is cut off."""
    places = st.one_of(st.integers(0, 299), st.integers(0, 3000))
    written = st.one_of(
        st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
    )
    overwrite = st.tuples(places, written).map(lambda c: lambda b: b[: c[0]] + c[1] + b[c[0] + len(c[1]) :])
    remove = st.tuples(places, st.integers(1, 20)).map(lambda c: lambda b: b[: c[0]] + b[c[0] + c[1] :])
    add = st.tuples(places, written).map(lambda c: lambda b: b[: c[0]] + c[1] + b[c[0] :])
    cut = places.map(lambda place: lambda b: b[:place])
    return st.one_of(overwrite, overwrite, remove, add, cut)


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(samples())),
    changes=st.lists(mutations(), max_size=4),
    stored=st.tuples(st.sampled_from([None, 1, 8]), st.sampled_from(["jpg", "png", "webp"])),
)
def test_a_mutated_file_is_a_picture_for_every_stage_or_a_sentence(tmp_path, kind, changes, stored):
    content = samples()[kind]
    for change in changes:
        content = change(content)
    path, limit = tmp_path / "x", 500_000
    path.write_bytes(content)
    found = check_image(path, "decode", limit)
    if found.problem is None:
        assert check_image(path, "header", limit).problem is None
        encoded = _Encoded(str(path), Shards(shorter_side=stored[0], image_format=stored[1]), limit)
        image = open_rgb(encoded.content)
        assert (image.mode, image.size) == ("RGB", (encoded.width, encoded.height))
    else:
        assert "\n" not in found.problem
        with pytest.raises(DataError), decoded_rgb(path, limit):
            pass
