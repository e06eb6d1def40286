"""Image files of any format and mode become upright RGB; other files are reported in a sentence."""

from __future__ import annotations

import io
import os
import struct
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
from PIL import Image, ImageOps

from cusa.common.images import (
    ImageCheck,
    _PixelBudget,
    check_image,
    decoded_rgb,
    open_rgb,
    picture_size,
    resize_shorter_side,
    upright_rgb,
)
from cusa.config.shards import Shards
from cusa.errors import DataError
from cusa.shards.writing import bytes_per_image
from cusa.teachers.transform import ImageTransform


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (20, 10), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_rgb(tmp_path / "turned.jpg").size == (10, 20)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "avif", "tif", "lzw.tif"])
def test_every_format_is_upright_and_has_its_upright_size(tmp_path, kind, orientation):
    stored = Image.new("RGB", (64, 32), "white")
    stored.paste("red", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{kind}"
    if kind.endswith("tif"):
        compression = "tiff_lzw" if kind == "lzw.tif" else None
        stored.save(path, tiffinfo={0x0112: orientation}, compression=compression)
    else:
        stored.save(path, exif=exif, quality=95)
    stored.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(stored), dtype=int)
    shown = open_rgb(path)
    assert picture_size(path) == picture_size(path.read_bytes()) == shown.size == expected.shape[1::-1]
    assert np.abs(np.asarray(shown, dtype=int) - expected).max() < 100  # JPEG blurs the edge of the square
    assert np.array_equal(np.asarray(upright_rgb(Image.open(path))), np.asarray(shown))


def test_a_pillow_image_that_cannot_be_decoded_is_a_sentence(shapes):
    good = next((shapes / "pics").glob("*.jpg"))
    with Image.open(good) as closed:
        pass
    for broken in (closed, Image.open(io.BytesIO(good.read_bytes()[:-200]))):
        with pytest.raises(DataError, match="cannot be read as an image"):
            upright_rgb(broken)


def test_problems_of_files(tmp_path, shapes):
    good = next((shapes / "pics").glob("*.jpg"))
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:-200])
    (tmp_path / "more.jpg").write_bytes(good.read_bytes() + b"appended by a camera" * 50)
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for how in ("decode", "header"):
        assert check_image(good, how) == check_image(tmp_path / "more.jpg", how) == ImageCheck()
        assert check_image(tmp_path / "none.jpg", how) == ImageCheck("the file does not exist", missing=True)
        assert check_image(tmp_path / "empty.jpg", how) == ImageCheck("the file has zero bytes")
        assert check_image(tmp_path / "folder.jpg", how) == ImageCheck("is a folder, not a file")
        assert check_image(tmp_path / "pipe.jpg", how) == ImageCheck("is a device or a pipe, not a file")
    assert "truncated" in check_image(tmp_path / "cut.jpg", "decode").problem
    assert check_image(tmp_path / "cut.jpg", "header").problem is None
    with pytest.raises(DataError, match="cut.jpg cannot be read as an image .*truncated.*; replace or remove it"):
        open_rgb(tmp_path / "cut.jpg")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
def test_a_jpeg_whose_rest_is_zeros_is_cut_off(tmp_path, progressive, part):
    """Small pictures of high quality: the zeros are enough for the decoder to take them for all of the pixels."""
    noise, buffer = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8), io.BytesIO()
    thumbnail = Image.Exif()
    thumbnail[0x010E] = "\xff\xd9"  # the mark of an end, in the metadata
    Image.fromarray(noise).save(buffer, "JPEG", quality=98, progressive=progressive, exif=thumbnail)
    content = buffer.getvalue()
    kept = content[: int(len(content) * part)]
    (tmp_path / "cut.jpg").write_bytes(kept + bytes(len(content) - len(kept)))
    assert "cut off" in check_image(tmp_path / "cut.jpg", "decode").problem or part < 0.5
    assert check_image(tmp_path / "cut.jpg", "decode").problem is not None
    with pytest.raises(DataError, match="cut.jpg cannot be read as an image"):
        open_rgb(tmp_path / "cut.jpg")
    for padding in (1, 64, 5000):  # after the end of a sound file
        for more in (b"", content, b"of a camera"):
            assert check_image_of(tmp_path, content + more + bytes(padding)) == ImageCheck()


def check_image_of(folder, content: bytes) -> ImageCheck:
    (folder / "of.jpg").write_bytes(content)
    return check_image(folder / "of.jpg", "decode")


@pytest.mark.parametrize("name", ["a very long caption " * 40, "nul\0.jpg", "half \ud83d.jpg", "x.jpg/y.jpg"])
def test_whatever_the_file_system_says_of_a_name_is_a_missing_image(tmp_path, name):
    (tmp_path / "x.jpg").touch()
    assert check_image(f"{tmp_path}/{name}", "decode").missing


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"not an image", "it is text"),
        ("Übergröße, ein Text".encode() * 90, "it is text"),
        (b"\n<!DOCTYPE html><title>404", "it is an HTML page, perhaps of a download that failed"),
        (b"<!-- proxy --><HTML><body>denied", "it is an HTML page, perhaps of a download that failed"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "it is an SVG drawing"),
        (b"%PDF-1.7\n%\xe2\xe3", "it is a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "drawing"),
        (b"PK\x03\x04\x14\0\0\0", "it is a ZIP archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "run `git lfs pull`"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "it is a video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "it is a raw photo (CR3)"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "it is JPEG XL"),
        (b"\xff\x0a\xfa\x7f", "it is JPEG XL"),
        (bytes(128) + b"DICM\2\0\0\0", "it is DICOM"),
        (b"\x93NUMPY\1\0v\0{'descr': '|u1'}", "it is a NumPy array"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "it is compressed with gzip"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X        ", "it holds what macOS stores beside a file"),
        (b"L\0\0\0\1\x14\2\0\0\0\0\0", "it is a shortcut of Windows"),
        (b"MM\0*\0\0\0\x08\0\0\0\0\0\0", "it is a TIFF whose samples Pillow does not read"),
        (b"\0\1\2\3" * 9, "its format is unknown, or its header is damaged"),
        (b"\x89PNG\r\n\x1a\n", "its format is unknown, or its header is damaged"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(tmp_path, content, kind):
    (tmp_path / "x.jpg").write_bytes(content)
    for how in ("decode", "header"):
        problem = check_image(tmp_path / "x.jpg", how).problem
        assert problem.startswith("cannot be read as an image (")
        assert kind in problem


@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 7), (7, 9), (3, 3000)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_pictures_of_a_few_pixels(tmp_path, kind, size):
    Image.new("RGB", size, "red").save(tmp_path / "x.jpg", kind)
    assert check_image(tmp_path / "x.jpg", "decode") == check_image(tmp_path / "x.jpg", "header") == ImageCheck()
    assert open_rgb(tmp_path / "x.jpg").size == size
    pixels = ImageTransform(32, 32, (0.5,) * 3, (0.5,) * 3).pixels((tmp_path / "x.jpg").read_bytes(), False)
    assert pixels.shape == (3, 32, 32)
    assert pixels[0].min() > 240


def png_of(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel, as a bomb is: all black, some bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + bytes(-(-width // 8))) * height, 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    (tmp_path / "bomb.png").write_bytes(png_of(4000, 3000))
    for how in ("decode", "header"):
        assert check_image(tmp_path / "bomb.png", how, 12_000_000).problem is None
        with monkeypatch.context() as patch:
            patch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("it was decoded"))
            assert check_image(tmp_path / "bomb.png", how, 11_999_999).problem == (
                "has 4,000 x 3,000 pixels, but dataset.max_pixels is 11,999,999; shrink it, or raise that key"
            )
    sentence = "bomb.png has 4,000 x 3,000 pixels, but dataset.max_pixels is 9; shrink it, or raise that key.$"
    with pytest.raises(DataError, match=sentence), decoded_rgb(tmp_path / "bomb.png", 9):
        pass


def test_threads_together_decode_no_more_pixels_than_the_budget(tmp_path, monkeypatch):
    """Eight threads, pictures of 12,000 pixels, a budget of 30,000: two at a time, and larger ones alone."""
    monkeypatch.setattr("cusa.common.images._BUDGET", _PixelBudget(30_000))
    (tmp_path / "small.png").write_bytes(png_of(120, 100))
    (tmp_path / "large.png").write_bytes(png_of(240, 200))
    now, most, lock = [0], [0], Lock()

    def decode(name: str) -> None:
        with decoded_rgb(tmp_path / name) as image:
            pixels = image.width * image.height
            with lock:
                now[0] += pixels
                most[0] = max(most[0], now[0])
                assert now[0] <= 30_000 or now[0] == pixels == 48_000
            time.sleep(0.002)
            with lock:
                now[0] -= pixels

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, ["small.png"] * 20 + ["large.png"] * 3 + ["small.png"] * 20))
    assert most == [48_000]


def test_the_budget_is_given_back_when_a_picture_is_broken(tmp_path):
    (tmp_path / "cut.png").write_bytes(png_of(4000, 3000)[:-60])
    for _ in range(30):  # together more than PIXELS_AT_ONCE
        assert "truncated" in check_image(tmp_path / "cut.png", "decode").problem


@pytest.mark.parametrize(("kind", "more"), [("GIF", {}), ("WEBP", {}), ("PNG", {}), ("TIFF", {}), ("MPO", {})])
def test_the_first_of_several_pictures_is_read_and_counted(tmp_path, kind, more):
    first, second = Image.new("RGB", (20, 10), "red"), Image.new("RGB", (20, 10), "blue")
    first.save(tmp_path / "x", kind, save_all=True, append_images=[second], **more)
    for how in ("decode", "header"):
        assert check_image(tmp_path / "x", how) == ImageCheck(notes=("several_pictures",))
    assert np.abs(np.asarray(open_rgb(tmp_path / "x"), dtype=int) - (255, 0, 0)).max() < 5


def test_greys_that_are_scaled_by_their_range_are_counted(tmp_path):
    Image.fromarray(np.full((4, 4), 0xFFFF, dtype=np.uint16)).save(tmp_path / "full.png")
    Image.fromarray(np.arange(16, dtype=np.float32).reshape(4, 4)).save(tmp_path / "float.tif")
    assert check_image(tmp_path / "full.png", "decode") == ImageCheck()
    assert check_image(tmp_path / "float.tif", "decode") == ImageCheck(notes=("grey_range",))


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    red = Image.new("RGB", (20, 10), (200, 20, 20))
    pillow_heif.from_pillow(red).save(tmp_path / "x.jpg", quality=90)
    assert check_image(tmp_path / "x.jpg", "decode") == check_image(tmp_path / "x.jpg", "header") == ImageCheck()
    assert np.abs(np.asarray(open_rgb(tmp_path / "x.jpg"), dtype=int) - (200, 20, 20)).max() < 8


def test_heic_without_pillow_heif_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr("PIL.Image.ID", [name for name in Image.ID if name != "HEIF"])
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))
    problem = check_image(tmp_path / "x.jpg", "decode").problem
    assert problem == "cannot be read as an image (it is HEIC; `pip install 'cusa[heic]'` installs what reads it)"


def test_resizing_never_enlarges():
    assert resize_shorter_side(Image.new("RGB", (640, 480)), 224).size == (299, 224)
    assert resize_shorter_side(Image.new("RGB", (100, 90)), 224).size == (100, 90)


@pytest.mark.parametrize("make", ["pipe", "device"])
def test_what_has_no_end_is_never_decoded(tmp_path, make):
    path = tmp_path / "x.jpg"
    if make == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    for read in (open_rgb, picture_size):
        with pytest.raises(DataError, match="is a device or a pipe, not a file"):
            read(path)
    assert bytes_per_image([str(path)], Shards()) == 0


def test_a_large_file_that_is_no_picture_is_not_read_into_memory(tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isommp42")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"all of {path} was read"))
    assert "it is a video" in check_image(tmp_path / "x.jpg", "decode").problem


def test_bytes_that_are_empty_are_not_called_text():
    with pytest.raises(DataError, match=r"cannot be read as an image \(it has zero bytes\)"):
        open_rgb(b"")


@pytest.mark.parametrize("how", ["decode", "header"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, how):
    path = tmp_path / "x.jpg"
    Image.new("RGB", (8, 8)).save(path)
    monkeypatch.setattr(Image, "open", forbidden)  # root may read every file
    sentence = "cannot be read (permission denied); give yourself the right to read it"
    assert check_image(path, how).problem == sentence
    with pytest.raises(DataError) as refused:
        open_rgb(path)
    assert str(refused.value) == f"{path} {sentence}."


def forbidden(path):
    """Open a file of another user."""
    raise PermissionError(13, "Permission denied", path)
