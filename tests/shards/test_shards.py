"""Shards are WebDataset tar files: the images read from them, by row or with `webdataset`, are those written."""

from __future__ import annotations

import json
import shutil
import tarfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cusa.annotations.convert import convert
from cusa.annotations.tables import CAPTIONS, IMAGES, read_table
from cusa.common.files import read_json, sha256_of_file
from cusa.common.images import open_rgb
from cusa.config.dataset import PublishedDataset
from cusa.config.dataset_section import MAX_PIXELS
from cusa.config.shards import Shards
from cusa.errors import DataError
from cusa.shards import writing
from cusa.shards.reading import ShardReader, settings_of
from cusa.shards.writing import write_split
from cusa.teachers.transform import ImageTransform


def test_plain_webdataset_reads_them(annotations, tmp_path):
    import webdataset

    write_split(annotations, "train", tmp_path / "train", Shards(shorter_side=24, samples_per_shard=10), threads=2)
    assert sorted(path.name for path in (tmp_path / "train").glob("*.tar")) == [
        f"shard-{number:06d}.tar" for number in range(4)
    ]
    urls = str(tmp_path / "train/shard-{000000..000003}.tar")
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
    images, captions = read_table(annotations, IMAGES), read_table(annotations, CAPTIONS)
    assert len(samples) == 32
    for row, sample in enumerate(samples):
        assert sample["jpg"].size == (32, 24)
        assert sample["json"]["row"] == row == int(sample["__key__"])
        assert sample["json"]["image_id"] == images["image_id"][row].as_py()
        for caption_row, caption in zip(sample["json"]["caption_rows"], sample["json"]["captions"], strict=True):
            assert captions["caption"][caption_row].as_py() == caption
            assert captions["image"][caption_row].as_py() == row


def test_shards_of_another_program_are_read(tmp_path):
    """With the index that docs/scaling.md describes, which is read off the tar files."""
    import webdataset

    colours = [(20 * number, 100, 200) for number in range(7)]
    for shard, rows in enumerate((range(4), range(4, 7))):
        with webdataset.TarWriter(str(tmp_path / f"shard-{shard:06d}.tar")) as writer:
            for row in rows:
                picture = BytesIO()
                Image.new("RGB", (32, 24), colours[row]).save(picture, "PNG")
                details = {"image_id": f"i{row}", "row": row, "captions": ["a"], "caption_rows": [row]}
                writer.write({"__key__": f"{row:09d}", "png": picture.getvalue(), "json": details})
    index = []
    for tar in sorted(tmp_path.glob("*.tar")):
        with tarfile.open(tar) as members:
            for member in (member for member in members if member.name.endswith(".png")):
                key = member.name.removesuffix(".png")
                entry = {"key": key, "shard": int(tar.stem.removeprefix("shard-")), "extension": "png", "row": int(key)}
                entry |= {"offset": member.offset_data, "size": member.size, "width": 32, "height": 24}
                index.append(entry | {"caption_rows": [int(key)], "written": True})
    pq.write_table(pa.Table.from_pylist(index), tmp_path / "index.parquet")
    settings = {"shorter_side": 24, "image_format": "png", "quality": 95, "samples_per_shard": 4}
    statistics = {
        tar.name: {"samples": 4, "bytes": tar.stat().st_size, "sha256": sha256_of_file(tar)}
        for tar in tmp_path.glob("*.tar")
    }
    content = {"split": "train", "samples": 7, "settings": settings, "shards": statistics}
    (tmp_path / "shards.json").write_text(json.dumps(content))
    reader = ShardReader(tmp_path)
    assert [Image.open(BytesIO(reader.encoded(row))).getpixel((0, 0)) for row in range(7)] == colours
    assert settings_of(tmp_path) == Shards(**settings)


def test_threads_go_on_while_an_image_is_written(monkeypatch):
    """However many images are taken, as many as before are encoded ahead; what nobody takes is not encoded."""
    encoded: list[str] = []

    class Encoded:
        def __init__(self, path: str, *_: object) -> None:
            encoded.append(path)

    def wait_for(count: int) -> int:
        for _ in range(1000):
            if len(encoded) >= count:
                break
            time.sleep(0.01)
        return len(encoded)

    monkeypatch.setattr(writing, "_Encoded", Encoded)
    monkeypatch.setattr(writing, "IMAGES_AHEAD", 4)
    images = writing._encode_all([str(number) for number in range(100)], Shards(), 2, MAX_PIXELS)
    for taken in range(1, 20):
        assert next(images) is not None
        assert wait_for(taken + 7) == taken + 7
    images.close()
    assert len(encoded) == 26


def test_the_index_points_at_the_bytes(annotations, tmp_path):
    write_split(annotations, "val", tmp_path / "val", Shards(shorter_side=24, samples_per_shard=5))
    index = pq.read_table(tmp_path / "val/index.parquet").to_pylist()
    reader = ShardReader(tmp_path / "val")
    for position, sample in enumerate(index):
        with tarfile.open(tmp_path / f"val/shard-{sample['shard']:06d}.tar") as tar:
            content = tar.extractfile(f"{sample['key']}.jpg").read()
        assert reader.encoded(position) == content
        assert (sample["width"], sample["height"]) == (32, 24)
        assert reader.plain(position)


def test_original_bytes_are_kept(annotations, tmp_path):
    write_split(annotations, "val", tmp_path / "val", Shards(shorter_side=None))
    reader, images = ShardReader(tmp_path / "val"), read_table(annotations, IMAGES)
    for position, row in enumerate(reader.rows):
        assert reader.encoded(position) == Path(images["image_path"][int(row)].as_py()).read_bytes()
        assert not reader.plain(position)


@pytest.mark.parametrize("image_format", ["jpg", "png", "webp"])
def test_formats(annotations, tmp_path, image_format):
    write_split(annotations, "val", tmp_path / "val", Shards(shorter_side=24, image_format=image_format))
    reader = ShardReader(tmp_path / "val")
    original = read_table(annotations, IMAGES)["image_path"][int(reader.rows[0])].as_py()
    expected = np.asarray(Image.open(original).resize((32, 24), Image.Resampling.BICUBIC), dtype=int)
    assert np.abs(np.asarray(open_rgb(reader.encoded(0)), dtype=int) - expected).mean() < 6


def test_the_same_data_gives_the_same_bytes(annotations, tmp_path):
    for name in ("one", "two"):
        write_split(annotations, "val", tmp_path / name, Shards(shorter_side=24), threads=1 + (name == "two"))
    digests = [sha256_of_file(tmp_path / name / "shard-000000.tar") for name in ("one", "two")]
    assert digests[0] == digests[1] == read_json(tmp_path / "one/shards.json")["shards"]["shard-000000.tar"]["sha256"]


def test_images_of_any_kind_become_rgb(tmp_path):
    (tmp_path / "pics").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (40, 30), 9).save(tmp_path / "pics/grey.png")
    Image.new("CMYK", (40, 30), (0, 255, 255, 0)).save(tmp_path / "pics/cmyk.jpg")
    Image.new("RGBA", (40, 30), (0, 0, 0, 0)).save(tmp_path / "pics/alpha.png")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "pics/turned.jpg", exif=exif)
    Image.new("RGB", (40, 30), "red").convert("P").save(tmp_path / "pics/palette.gif")
    Image.fromarray(np.full((30, 40), 0x8000, dtype=np.uint16)).save(tmp_path / "pics/deep.png")
    for split, names in {"train": ["grey.png", "cmyk.jpg"], "val": ["alpha.png", "turned.jpg"]}.items():
        rows = [{"image_path": f"pics/{name}", "caption": name, "image_id": name} for name in names]
        (tmp_path / f"{split}.json").write_text(json.dumps(rows))
    rows = [{"image_path": f"pics/{n}", "caption": n, "image_id": n} for n in ("palette.gif", "deep.png")]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    files = {split: str(tmp_path / f"{split}.json") for split in ("train", "val", "test")}
    convert(PublishedDataset(name="s", format="published", annotations=files), tmp_path / "a", tmp_path / "i")
    for split in files:
        write_split(tmp_path / "a", split, tmp_path / "shards" / split, Shards(shorter_side=20))
        reader = ShardReader(tmp_path / "shards" / split)
        for position in range(len(reader)):
            with Image.open(BytesIO(reader.encoded(position))) as image:
                assert image.mode == "RGB"
                assert min(image.size) == 20
    index = pq.read_table(tmp_path / "shards/val/index.parquet").to_pylist()
    assert (index[1]["width"], index[1]["height"]) == (20, 27)  # upright now


def shards_of(folder: Path, images: dict[str, Image.Image], settings: Shards, max_pixels: int = MAX_PIXELS) -> Path:
    """Write images as PNGs, their table, and the shards of the split `train`."""
    folder.mkdir()
    for name, image in images.items():
        image.save(folder / name, "PNG")
    rows = [{"image_id": name, "image_path": str(folder / name), "split": "train", "label": None} for name in images]
    pq.write_table(pa.Table.from_pylist(rows), folder / IMAGES)
    captions = {name: [] for name in ("caption", "cleaned", "split", "caption_id")} | {
        "image": pa.array([], pa.int64())
    }
    pq.write_table(pa.table(captions), folder / CAPTIONS)
    write_split(folder, "train", folder / "train", settings, threads=2, max_pixels=max_pixels)
    return folder / "train"


@pytest.mark.parametrize("image_format", ["jpg", "png", "webp"])
def test_a_picture_that_is_too_long_for_the_format_becomes_a_png(tmp_path, image_format):
    sides = {"jpg": 65_500, "webp": 16_383, "png": 10**6}
    widths = [1, sides[image_format] - 1, sides[image_format], sides[image_format] + 1, 200_000]
    images = {f"{width}.png": Image.new("RGB", (width, 1), "red") for width in widths}
    images["shrunk.png"] = Image.new("RGB", (90_000, 40), "red")  # to 45,000 x 20
    folder = shards_of(tmp_path / "data", images, Shards(shorter_side=20, image_format=image_format))
    reader, index = ShardReader(folder), pq.read_table(folder / "index.parquet").to_pylist()
    for position, (width, entry) in enumerate(zip([*widths, 45_000], index, strict=True)):
        image = Image.open(BytesIO(reader.encoded(position)))
        assert image.width == entry["width"] == width
        assert np.abs(np.asarray(image.convert("RGB"), dtype=int) - (255, 0, 0)).max() < 4
        assert entry["extension"] == (image_format if width <= sides[image_format] else "png")
        assert entry["written"] == (width <= sides[image_format])
        pixels = ImageTransform(32, 32, (0.5,) * 3, (0.5,) * 3).pixels(reader.encoded(position), reader.plain(position))
        assert pixels.shape == (3, 32, 32)


def test_a_picture_of_too_many_pixels_stops_the_split(tmp_path):
    images = {"fits.png": Image.new("1", (100, 90)), "large.png": Image.new("1", (100, 91))}
    sentence = (
        r"1 images of train could not be decoded(.|\n)*large.png has 100 x 91 pixels, but dataset.max_pixels is 9,000"
    )
    for number, settings in enumerate([Shards(), Shards(shorter_side=None)]):
        with pytest.raises(DataError, match=sentence):
            shards_of(tmp_path / str(number), images, settings, max_pixels=9000)


def test_an_image_that_broke_since_the_check_stops_the_split(shapes, tmp_path):
    import shutil

    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    files = {split: str(data / f"{split}.json") for split in ("train", "val", "test")}
    convert(PublishedDataset(name="s", format="published", annotations=files), tmp_path / "a", tmp_path / "i")
    broken = sorted(read_table(tmp_path / "a", IMAGES)["image_path"].to_pylist()[32:34])
    for path in broken:
        Path(path).write_bytes(b"\xff\xd8\xff\xe0 no more")
    with pytest.raises(DataError, match="2 images of val could not be decoded"):
        write_split(tmp_path / "a", "val", tmp_path / "val", Shards())
    assert not (tmp_path / "val").exists()
    assert not list(tmp_path.glob(".*partial"))


def test_a_cut_tar_is_noticed(annotations, tmp_path):
    write_split(annotations, "val", tmp_path / "val", Shards(shorter_side=24))
    tar = tmp_path / "val/shard-000000.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(DataError, match="shorter than its index says"):
        ShardReader(tmp_path / "val").encoded(7)


def test_reading_before_writing(tmp_path):
    with pytest.raises(DataError, match="run `snakemake shards` first"):
        ShardReader(tmp_path)


def test_shards_say_how_their_images_are_stored(shapes_data, tmp_path):
    """Those of earlier releases do not: it is read off the index."""
    folder = Path(shutil.copytree(shapes_data / "shards/train", tmp_path / "train"))
    told = settings_of(folder)
    assert (told.shorter_side, told.image_format, told.samples_per_shard) == (32, "jpg", 20)
    statistics = json.loads((folder / "shards.json").read_text())
    del statistics["settings"]
    (folder / "shards.json").write_text(json.dumps(statistics))
    assert (settings_of(folder).shorter_side, settings_of(folder).image_format) == (32, "jpg")
    assert settings_of(tmp_path / "elsewhere") == Shards()
