"""Pictures of any mode become 8-bit RGB that people can see: deep greys by their real range, transparency on white."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cusa.common import colours
from cusa.common.colours import FULL_SIXTEEN_BITS, scale_of, to_rgb
from cusa.common.images import check_image, open_rgb, upright_rgb


def levels(image: Image.Image) -> list[int]:
    """The red levels of a picture of one row."""
    return np.asarray(image)[0, :, 0].tolist()


def test_grey_palette_and_cmyk_become_rgb():
    red = Image.new("RGB", (4, 4), (200, 30, 30))
    for mode, tolerance in (("L", 255), ("P", 40), ("CMYK", 3), ("1", 255), ("HSV", 3), ("YCbCr", 3), ("RGBX", 0)):
        image = to_rgb(red.convert(mode))
        assert image.mode == "RGB"
        assert np.abs(np.asarray(image, dtype=int)[0, 0] - (200, 30, 30)).max() <= tolerance
    assert np.asarray(to_rgb(Image.new("L", (2, 2), 77))).tolist() == [[[77] * 3] * 2] * 2


def test_lab_becomes_rgb(tmp_path):
    from PIL import ImageCms

    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    red = Image.new("RGB", (4, 4), (200, 30, 30))
    ImageCms.applyTransform(red, ImageCms.buildTransform(*profiles, "RGB", "LAB")).save(tmp_path / "lab.tif")
    assert check_image(tmp_path / "lab.tif", "decode").problem is None
    assert np.abs(np.asarray(open_rgb(tmp_path / "lab.tif"), dtype=int)[0, 0] - (200, 30, 30)).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_transparency_is_laid_on_white(mode):
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image = {"PA": lambda: Image.new("PA", (4, 4)), "La": lambda: clear.convert("LA").convert("La")}.get(
        mode, lambda: clear.convert(mode)
    )()
    assert np.asarray(to_rgb(image)).min() == 255


@pytest.mark.parametrize(
    ("mode", "colour", "transparency"),
    [("P", 0, 0), ("P", 0, b"\0\xff"), ("L", 7, 7), ("1", 0, 0), ("RGB", (1, 2, 3), (1, 2, 3))],
)
def test_a_transparent_colour_of_a_png_becomes_white(tmp_path, mode, colour, transparency):
    image = Image.new(mode, (4, 4), colour)
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "p.png", transparency=transparency)
    assert np.asarray(open_rgb(tmp_path / "p.png")).min() == 255


def test_sixteen_bit_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert levels(open_rgb(tmp_path / "deep.png")) == [0, 128, 255]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("samples", "dtype", "expected"),
    [
        ([0, 100, 252], np.int32, [0, 100, 252]),  # 8 bits
        ([0, 512, 1023], np.uint16, [0, 128, 255]),  # 10 bits
        ([0, 2048, 4095], np.uint16, [0, 128, 255]),  # 12 bits
        ([0, 0x2000, 0x3FFF], np.int32, [0, 128, 255]),  # 14 bits
        ([0, 300, 20_000], np.uint16, [0, 1, 78]),  # 16 bits that are not full: as always
        ([0, 1, 1], np.uint16, [0, 255, 255]),  # a mask
        ([0, 1 << 29, 1 << 30], np.int32, [0, 128, 255]),
        ([-1000, 0, 1000], np.int32, [0, 128, 255]),  # Hounsfield units
        ([0, 0.5, 1], np.float32, [0, 128, 255]),
        ([0, 0.5, 1.003], np.float32, [0, 127, 255]),  # more than 1 by rounding
        ([0, 0.005, 0.01], np.float32, [0, 128, 255]),
        ([0.4, 100.7, 255], np.float32, [0, 100, 255]),
        ([0, 2048, 4095], np.float32, [0, 128, 255]),
        ([-1, 0, 1], np.float32, [0, 128, 255]),
        ([-1e38, 0, 3e38], np.float32, [0, 63, 255]),
        ([NAN, 0.5, 1], np.float32, [0, 128, 255]),
        ([-INF, INF, 0.5], np.float32, [0, 255, 128]),
        ([100, 100, 100], np.int32, [100, 100, 100]),  # one value everywhere
        ([0.5, 0.5, 0.5], np.float32, [128, 128, 128]),
        ([0, 0, 0], np.uint16, [0, 0, 0]),
        ([-7, -7, -7], np.int32, [128, 128, 128]),
        ([1e30, 1e30, 1e30], np.float32, [128, 128, 128]),
    ],
)
def test_deep_greys_are_seen_by_their_real_range(tmp_path, samples, dtype, expected):
    Image.fromarray(np.array([samples], dtype=dtype)).save(tmp_path / "deep.tif")
    assert check_image(tmp_path / "deep.tif", "decode").problem is None
    assert levels(open_rgb(tmp_path / "deep.tif")) == expected


@pytest.mark.parametrize(
    ("samples", "dtype", "expected"),
    [
        ([0, 100, 252], np.uint8, [255, 155, 3]),  # Pillow inverts these
        ([0, 0x8000, 0xFFFF], np.uint16, [255, 127, 0]),
        ([0, 2048, 4095], np.uint16, [255, 127, 0]),
        ([0, 0.5, 1], np.float32, [255, 127, 0]),
    ],
)
def test_a_tiff_whose_zero_is_white_is_no_negative(tmp_path, samples, dtype, expected):
    Image.fromarray(np.array([samples], dtype=dtype)).save(tmp_path / "grey.tif")
    content = (tmp_path / "grey.tif").read_bytes()
    black_is_zero, white_is_zero = (struct.pack("<HHIHH", 262, 3, 1, value, 0) for value in (1, 0))
    assert content.count(black_is_zero) == 1
    (tmp_path / "grey.tif").write_bytes(content.replace(black_is_zero, white_is_zero))
    assert check_image(tmp_path / "grey.tif", "decode").problem is None
    assert levels(open_rgb(tmp_path / "grey.tif")) == expected
    with Image.open(tmp_path / "grey.tif") as image:
        assert levels(upright_rgb(image)) == expected


def test_values_that_are_all_not_a_number_are_a_finding(tmp_path):
    Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)).save(tmp_path / "nan.tif")
    problem = check_image(tmp_path / "nan.tif", "decode").problem
    assert problem == "cannot be read as an image (all its values are infinite or not a number)"


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(deadline=None, max_examples=200)
@given(st.lists(numbers, min_size=2, max_size=9), st.booleans())
def test_different_values_are_never_black_and_keep_their_order(values, integers):
    samples = np.array(values, dtype=np.float32)
    if integers:
        samples = samples.clip(-(2**31), 2**31 - 1).astype(np.int64)
    scaled = scale_of(float(samples.min()), float(samples.max()), integers).apply(samples)
    assert (np.diff(scaled[np.argsort(samples)].astype(int)) >= 0).all()
    if samples.max() > samples.min():
        assert scaled.max() >= 16


def test_full_sixteen_bits_are_the_upper_eight():
    samples = np.arange(2**16)
    assert scale_of(0, 2**16 - 1, integers=True) == FULL_SIXTEEN_BITS
    assert np.array_equal(FULL_SIXTEEN_BITS.apply(samples), samples >> 8)


def write_sixteen_bit_colours(path, samples: np.ndarray, transparent: int | None = None) -> None:
    """A PNG of 16 bits a channel, which Pillow cannot write: samples [H, W, 1 to 4], the level that is transparent."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    clear = [] if transparent is None else [chunk(b"tRNS", struct.pack(">H", transparent) * channels)]
    parts = chunk(b"IHDR", header), *clear, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize(
    ("samples", "expected", "notes"),
    [
        ([0, 0x8000, 0xFFFF], [0, 128, 255], ()),
        ([0, 2048, 4095], [0, 128, 255], ("grey_range",)),  # 12 bits, of which the upper eight are black
        ([0, 100, 252], [0, 100, 252], ("grey_range",)),
        ([0, 0, 0], [0, 0, 0], ("grey_range",)),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_colours_of_sixteen_bits_are_seen_by_their_real_range(tmp_path, samples, expected, notes, channels):
    pixels = np.repeat(np.array(samples)[None, :, None], channels, axis=2)
    if channels in (2, 4):
        pixels[..., -1] = 0xFFFF
    write_sixteen_bit_colours(tmp_path / "deep.png", pixels)
    found = check_image(tmp_path / "deep.png", "decode")
    assert (found.problem, found.notes) == (None, notes)
    assert levels(open_rgb(tmp_path / "deep.png")) == expected


@pytest.mark.parametrize("channels", [2, 4])
def test_a_black_icon_of_sixteen_bits_is_laid_on_white(tmp_path, channels):
    pixels = np.zeros((1, 3, channels), dtype=np.uint16)
    pixels[..., -1] = [0, 0x8000, 0xFFFF]
    write_sixteen_bit_colours(tmp_path / "icon.png", pixels)
    assert check_image(tmp_path / "icon.png", "decode").problem is None
    assert levels(open_rgb(tmp_path / "icon.png")) == [255, 127, 0]


@pytest.mark.parametrize(
    ("samples", "transparent", "expected"),
    [
        ([20000, 20001, 0, 0xFFFF], 20000, [255, 78, 0, 255]),  # both are 78 in eight bits
        ([0, 100, 252], 100, [0, 255, 252]),  # dark, so that the range decides
        ([0, 100, 252], 7, [0, 100, 252]),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_sixteen_bits_becomes_white(tmp_path, samples, transparent, expected, channels):
    pixels = np.repeat(np.array(samples)[None, :, None], channels, axis=2)
    write_sixteen_bit_colours(tmp_path / "clear.png", pixels, transparent)
    assert check_image(tmp_path / "clear.png", "decode").problem is None
    assert levels(open_rgb(tmp_path / "clear.png")) == expected


@pytest.mark.parametrize("mode", ["RGBA", "I;16", "F", "P"])
def test_a_picture_in_bands_is_the_picture_at_once(monkeypatch, mode):
    noise = np.random.default_rng(0).integers(0, 255, (40, 30, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(noise[..., 0].astype(np.float32))
    else:
        image = Image.fromarray(noise).convert(mode)
    image.info["transparency"] = 3 if mode == "P" else image.info.get("transparency")
    if mode != "P":
        del image.info["transparency"]
    whole = np.asarray(to_rgb(image))
    monkeypatch.setattr(colours, "BAND_PIXELS", 7 * 30)
    assert np.array_equal(np.asarray(to_rgb(image)), whole)


def test_cmyk_of_adobe_is_not_inverted(tmp_path):
    """Pillow writes the marker of Adobe, whose CMYK is stored inverted."""
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    assert np.abs(np.asarray(open_rgb(tmp_path / "red.jpg"), dtype=int) - (255, 0, 0)).max() < 6
