"""Loading training images on one core: from shards and from stored pixels.

They are compared with opening the original JPEG files with Pillow, and the pixels with bare copies of a mapped array.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import ROOT, Claim, best_of_turns
from PIL import Image

from cusa.annotations.convert import convert
from cusa.config.dataset import PublishedDataset
from cusa.config.shards import Shards
from cusa.shards.reading import ShardReader
from cusa.shards.writing import write_split
from cusa.student.inputs import PixelInputs
from cusa.student.pixels import Crops, write_crops
from cusa.teachers.transform import ImageTransform

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BATCH = 32
ROUNDS = 60  # passes over the stored pixels in a measurement; few would measure what was in the cache before
SAMPLE = ROOT.parent / "shared/coco-sample"


def photographs(folder: Path) -> tuple[dict[str, str], str]:
    """Annotations and a description of the COCO sample, or, without it, of generated 640x480 JPEGs (160 KB each)."""
    if SAMPLE.is_dir():
        return {split: str(SAMPLE / f"{split}.json") for split in ("train", "val", "test")}, "COCO photographs"
    rng = np.random.default_rng(0)
    files = {}
    for split, count in (("train", 200), ("val", 1), ("test", 1)):
        rows = []
        for number in range(count):
            layers = [rng.integers(0, 255, (side * 3, side * 4, 3), dtype=np.uint8) for side in (4, 20, 160)]
            grown = [np.asarray(Image.fromarray(layer).resize((640, 480)), dtype=float) for layer in layers]
            picture = Image.fromarray((0.6 * grown[0] + 0.25 * grown[1] + 0.15 * grown[2]).astype(np.uint8))
            picture.save(folder / f"{split}{number}.jpg", quality=90)
            name = f"{split}{number}.jpg"
            rows.append({"image_path": name, "caption": "a picture", "image_id": name})
        files[split] = str(folder / f"{split}.json")
        Path(files[split]).write_text(json.dumps(rows))
    return files, "made 640x480 JPEGs"


def shards_of_photographs(folder: Path) -> str:
    """Write `annotations` and the shards `train` into `folder`; returns what the photographs are."""
    files, kind = photographs(folder)
    dataset = PublishedDataset(name="photos", format="published", annotations=files)
    convert(dataset, folder / "annotations", folder / "images", threads=2)
    write_split(folder / "annotations", "train", folder / "train", Shards(), threads=2)
    return kind


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kind = shards_of_photographs(folder)
        reader = ShardReader(folder / "train")
        paths = list(dict.fromkeys(row["image_path"] for row in json.loads(
            (folder / "annotations/train.json").read_text())))  # fmt: skip
        transform = ImageTransform(224, 224, MEAN, STD)
        mean, std = (np.array(values, dtype=np.float32) for values in (MEAN, STD))

        images = PixelInputs(reader, transform)
        write_crops(folder / "train", transform, folder / "pixels", threads=2)
        stored = PixelInputs(reader, transform, Crops.open(folder / "pixels", reader, transform))
        array = np.load(folder / "pixels/pixels.npy", mmap_mode="r")
        # Random batches, as in training; as many rounds as give a time that can be measured.
        rng = np.random.default_rng(0)
        orders = [rng.permutation(len(reader)) for _ in range(ROUNDS)]
        batches = [order[start : start + BATCH] for order in orders for start in range(0, len(order), BATCH)]

        def from_pixels() -> None:
            for positions in batches:
                stored[positions]

        def bare_copies() -> None:
            for positions in batches:
                torch.from_numpy(array[positions])

        def from_shards() -> None:
            for start in range(0, len(reader), BATCH):
                transform.normalise(images[np.arange(start, min(start + BATCH, len(reader)))])

        def from_files() -> None:
            """CLIP's own preprocessing: shorter side to 224 (bicubic), centre crop, RGB, mean and std."""
            for start in range(0, len(paths), BATCH):
                batch = []
                for path in paths[start : start + BATCH]:
                    image = Image.open(path).convert("RGB")
                    scale = 224 / min(image.size)
                    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
                    left, top = (image.width - 224) // 2, (image.height - 224) // 2
                    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
                    batch.append(torch.from_numpy(((pixels - mean) / std).transpose(2, 0, 1)))
                torch.stack(batch)

        sides = {"ours": from_shards, "theirs": from_files, "pixels": from_pixels, "copies": bare_copies}
        counts = {
            "ours": len(paths),
            "theirs": len(paths),
            "pixels": ROUNDS * len(paths),
            "copies": ROUNDS * len(paths),
        }
        rates = {side: counts[side] / seconds for side, seconds in best_of_turns(3, **sides).items()}
    ratio = rates["ours"] / rates["theirs"]
    measured = (
        f"{ratio:.1f}x ({rates['ours']:.0f} against {rates['theirs']:.0f} images/s a core, batches of {BATCH}, {kind})"
    )
    Claim("loading training images over Pillow + CLIP transform", measured, "8x", ratio >= 8).report()
    ratio = rates["pixels"] / rates["theirs"]
    measured = f"{ratio:.0f}x ({rates['pixels']:.0f} against {rates['theirs']:.0f} images/s a core)"
    Claim("loading stored pixels over Pillow + CLIP transform", measured, "50x", ratio >= 50).report()
    share = rates["pixels"] / rates["copies"]
    measured = f"{share:.0%} ({rates['pixels']:.0f} against {rates['copies']:.0f} images/s a core)"
    Claim("loading stored pixels over bare copies of a memory-mapped array", measured, "90 %", share >= 0.9).report()


if __name__ == "__main__":
    main()
