"""Drawings become pictures, in one process or several."""

from __future__ import annotations

import pytest
from PIL import Image

from cusa.annotations.sources import rasterising
from cusa.annotations.sources.rasterising import rasterise

pytest.importorskip("resvg_py")
CIRCLE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><circle cx="4" cy="4" r="{}" fill="red"/></svg>'


@pytest.fixture
def drawings(tmp_path):
    folder = tmp_path / "drawings"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.svg").write_text(CIRCLE.format(number / 2 + 1))
    return sorted(folder.iterdir())


def test_several_processes_write_the_bytes_that_one_writes(drawings, tmp_path, monkeypatch):
    monkeypatch.setattr(rasterising, "DRAWINGS_PER_PROCESS", 3)
    folders = [tmp_path / "one", tmp_path / "two"]
    for processes, folder in enumerate(folders, start=1):
        folder.mkdir()
        rasterise(drawings, folder, 16, processes)
    one, two = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert one == two
    assert sorted(one) == [f"{number}.png" for number in range(6)]
    with Image.open(folders[1] / "5.png") as picture:
        assert picture.size == (16, 16)
        assert picture.convert("RGB").getpixel((8, 8)) == (255, 0, 0)
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_file_that_is_no_drawing_ends_it(drawings, tmp_path, monkeypatch, processes):
    monkeypatch.setattr(rasterising, "DRAWINGS_PER_PROCESS", 3)
    drawings[4].write_text("no drawing")
    with pytest.raises(ValueError, match="unknown token"):
        rasterise(drawings, tmp_path, 16, processes)
