"""Pictures in a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import sys

import pytest
from conftest import draw_shape
from PIL import Image

from cusa.search.pictures import COLUMNS, LINES, fitting, half_blocks, show_strip, wanted


def encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def colours(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLORTERM", raising=False)


def test_half_blocks_have_two_pixels_in_a_character():
    picture = Image.new("RGBA", (2, 2))
    picture.putpixel((0, 0), (255, 0, 0, 255))
    picture.putpixel((0, 1), (0, 0, 255, 255))
    (line,) = half_blocks(picture, true_colour=True)
    assert line == "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m \x1b[0m"


@pytest.mark.parametrize(
    ("colour", "number"),
    [((0, 0, 0), 16), ((255, 255, 255), 231), ((255, 0, 0), 196), ((90, 140, 210), 68)],
    ids=["black", "white", "red", "blue"],
)
def test_colours_are_the_nearest_of_the_palette(colour, number):
    (line,) = half_blocks(Image.new("RGBA", (1, 2), (*colour, 255)), true_colour=False)
    assert line == f"\x1b[38;5;{number};48;5;{number}m▀\x1b[0m"


def test_a_strip_has_the_pictures_beside_each_other_above_their_labels(colours):
    stream = io.StringIO()
    shown = [encoded(draw_shape("red", "circle", "large")), None, b"no picture", encoded(Image.new("RGB", (8, 80)))]
    show_strip(shown, ["1", "2", "3", "4"], stream)
    *lines, labels = stream.getvalue().splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert len(lines) == LINES
    assert {len(line) for line in plain} == {4 * COLUMNS + 3}
    assert all(line[COLUMNS : 3 * COLUMNS + 3].strip() == "" for line in plain), "what cannot be read stays empty"
    assert plain[2][:COLUMNS] == "▀" * COLUMNS
    assert plain[2][3 * COLUMNS + 3 :].strip() == "▀", "a high picture keeps its shape"
    assert labels.split() == ["1", "2", "3", "4"]
    assert labels.index("2") == COLUMNS + 1 + labels.index("1")


def test_as_many_pictures_as_fit():
    assert fitting(80) == 6
    assert fitting(COLUMNS) == fitting(3) == 1
    assert fitting(2 * COLUMNS + 1) == 2


def test_pictures_are_for_terminals_with_colours(colours, monkeypatch):
    assert wanted("auto", Terminal())
    assert not wanted("auto", io.StringIO())
    assert not wanted("never", Terminal())
    assert wanted("always", io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wanted("auto", Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not wanted("auto", Terminal())


@pytest.mark.parametrize(
    ("kind", "starts"),
    [("SixelImage", "\x1bP0;0;0q"), ("TGPImage", "\N{COMBINING OVERLINE}")],
    ids=["sixel", "kitty"],
)
def test_real_pictures_where_the_terminal_shows_them(colours, monkeypatch, kind, starts):
    from textual_image import renderable

    monkeypatch.setattr(renderable, "Image", getattr(renderable, kind))
    stream = Terminal()
    show_strip([encoded(draw_shape("red", "circle", "large"))] * 2, ["1", "2"], stream)
    assert starts in stream.getvalue()
    assert "▀" not in stream.getvalue()
    assert stream.getvalue().split()[-2:] == ["1", "2"]


def test_half_blocks_without_textual_image(colours, monkeypatch):
    monkeypatch.setitem(sys.modules, "textual_image", None)
    stream = Terminal()
    show_strip([encoded(draw_shape("red", "circle", "large"))], ["1"], stream)
    assert "▀" in stream.getvalue()


def test_a_terminal_that_answers_nothing_gets_half_blocks(colours):
    """A real terminal without graphics, which does not answer questions: it must not be waited for."""
    code = (
        "import sys; from cusa.search.pictures import show_strip; from PIL import Image; import io; b = io.BytesIO();"
        "Image.new('RGB', (8, 8), 'red').save(b, 'PNG'); show_strip([b.getvalue()], ['1'], sys.stdout)"
    )
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", code])
    output = b""
    try:
        while chunk := os.read(terminal, 4096):
            output += chunk
    except OSError:  # Linux says so at the end of what the other side wrote
        pass
    finally:
        _, status = os.waitpid(process, 0)
        os.close(terminal)
    assert status == 0, output.decode()
    assert "▀".encode() in output
