"""Writing shards from photographs on one core, compared with only decoding, resizing and encoding the same images."""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

from loading_images import photographs
from measure import Claim
from PIL import Image

from cusa.annotations.convert import convert
from cusa.annotations.tables import IMAGES, read_table, split_rows
from cusa.config.dataset import PublishedDataset
from cusa.config.shards import Shards
from cusa.shards.writing import write_split


def bare(paths: list[str], settings: Shards) -> None:
    """The minimum of work: decode each image, shrink it, and encode it."""
    for path in paths:
        image = Image.open(path).convert("RGB")
        scale = settings.shorter_side / min(image.size)
        if scale < 1:
            image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
        image.save(io.BytesIO(), "JPEG", quality=settings.quality)


def main() -> None:
    settings = Shards()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, kind = photographs(folder)
        dataset = PublishedDataset(name="photos", format="published", annotations=files)
        convert(dataset, folder / "annotations", folder / "images", threads=2)
        images = read_table(folder / "annotations", IMAGES)
        paths = images["image_path"].take(split_rows(images, "train")).to_pylist()
        seconds = {"ours": float("inf"), "bare": float("inf")}
        for number in range(3):
            calls = {
                "ours": lambda n=number: write_split(folder / "annotations", "train", folder / f"{n}", settings, 1),
                "bare": lambda: bare(paths, settings),
            }
            for side, call in calls.items():
                started = time.perf_counter()
                call()
                seconds[side] = min(seconds[side], time.perf_counter() - started)
    ratio = seconds["ours"] / seconds["bare"]
    rates = {side: len(paths) / value for side, value in seconds.items()}
    measured = f"{ratio:.2f}x the time ({rates['ours']:.0f} against {rates['bare']:.0f} images/s a core, {kind})"
    Claim("writing shards over bare decode + resize + encode", measured, "1.3x", ratio <= 1.3).report()


if __name__ == "__main__":
    main()
