"""Time and peak memory of converting pairs in ALBEF's JSON, Karpathy JSON of COCO's size, and the published format."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Claim
from PIL import Image

from cusa.common.memory import peak_memory_gib

WORDS = (
    "a", "man", "riding", "wave", "on", "top", "of", "surfboard", "in", "the", "ocean", "while", "two", "dogs", "watch",
    "from", "beach", "near", "red", "umbrella",
)  # fmt: skip
COCO = {"train": 82_783, "restval": 30_504, "val": 5_000, "test": 5_000}
CAPTIONS = 616_767
ALBEF_PAIRS = 1_000_000
PAIRS = 10_000_000


def caption(number: int) -> str:
    """About ten words, all different."""
    return " ".join(WORDS[(number * step) % len(WORDS)] for step in range(3, 12)) + f" {number}."


def write_karpathy(folder: Path) -> Path:
    """Write a dataset_coco.json with tokens and ids: 123,287 images, 616,767 captions."""
    path, image, written = folder / "dataset_coco.json", 0, 0
    total = sum(COCO.values())
    with path.open("w") as file:
        file.write('{"images": [')
        for split, count in COCO.items():
            for _ in range(count):
                count_of_image = CAPTIONS // total + (image < CAPTIONS % total)
                sentences = [
                    {"tokens": caption(n).rstrip(".").split(), "raw": caption(n), "imgid": image, "sentid": n}
                    for n in range(written, written + count_of_image)
                ]
                name = f"COCO_val2014_{image:012d}.jpg"
                entry = {"filepath": "val2014", "sentids": [s["sentid"] for s in sentences], "filename": name}
                entry |= {"imgid": image, "split": split, "sentences": sentences, "cocoid": image}
                file.write(("," if image else "") + json.dumps(entry))
                image, written = image + 1, written + count_of_image
        file.write('], "dataset": "coco"}')
    return path


def write_albef(folder: Path) -> dict[str, str]:
    """Write a million pairs in ALBEF's JSON, as its coco_train.json has them: one list on one line."""
    files = {}
    sizes = {"train": ALBEF_PAIRS - 50_000, "val": 25_000, "test": 25_000}
    first = 0
    for split, count in sizes.items():
        rows = [
            {"caption": caption(n), "image": f"train2014/COCO_{n // 5:012d}.jpg", "image_id": f"coco_{n // 5}"}
            for n in range(first, first + count)
        ]
        files[split] = str(folder / f"{split}.json")
        Path(files[split]).write_text(json.dumps(rows))
        first += count
    return files


def write_pairs(folder: Path) -> dict[str, str]:
    """Write ten million pairs in the published format, with five captions per image."""
    files = {}
    sizes = {"train": PAIRS - 50_000, "val": 25_000, "test": 25_000}
    first = 0
    for split, count in sizes.items():
        files[split] = str(folder / f"{split}.json")
        with Path(files[split]).open("w") as file:
            for number in range(first, first + count):
                name = f"COCO_train2014_{number // 5:012d}.jpg"
                row = {"image_path": f"train2014/{name}", "caption": caption(number), "image_id": name}
                file.write(("[" if number == first else ",\n") + json.dumps(row))
            file.write("]")
        first += count
    return files


def child(section: str, output: str, threads: str) -> None:
    """Convert a data set, and print the seconds and the peak memory in GiB. The image files do not exist."""
    from cusa.annotations import distinct_images
    from cusa.annotations.convert import convert
    from cusa.common.images import ImageCheck
    from cusa.config.dataset import load_dataset

    # Image files are not checked: the time for that depends on the disk, not on the conversion.
    distinct_images.check_image = lambda path, how, max_pixels: ImageCheck()
    dataset = load_dataset(json.loads(section))
    started = time.perf_counter()
    convert(dataset, Path(output) / "annotations", Path(output) / "images", threads=int(threads))
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "gib": peak_memory_gib()}))


def measure(section: dict[str, object], folder: Path, threads: int = 2) -> dict[str, float]:
    """Run `child` in its own process, so that only its memory is measured. Returns `seconds` and `gib`."""
    command = [sys.executable, __file__, json.dumps(section), str(folder), str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    if len(sys.argv) == 4:
        child(*sys.argv[1:])
        return
    with tempfile.TemporaryDirectory() as name:
        albef: dict[str, object] = {"name": "a", "format": "albef", "annotations": write_albef(Path(name))}
        albef["check_images"] = "header"
        # In turns, so that a change in the machine's load affects both.
        found = [{threads: measure(albef, Path(name), threads) for threads in (1, 2)} for _ in range(2)]
        one, two = (min((turn[threads] for turn in found), key=lambda made: made["seconds"]) for threads in (1, 2))
        measured = f"{two['seconds']:.1f} s, {two['gib']:.2f} GiB; with one thread {one['seconds']:.1f} s"
        what = "converting a million pairs in ALBEF's JSON with two threads"
        Claim(what, measured, "8 s", two["seconds"] < 8).report()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.new("RGB", (8, 8)).save(folder / "one.jpg")
        coco = {"name": "coco", "format": "karpathy", "file": str(write_karpathy(folder)), "check_images": "header"}
        found = measure(coco, folder)
        measured = f"{found['seconds']:.1f} s"
        what = "converting COCO-sized Karpathy JSON (123,287 images, 616,767 captions)"
        Claim(what, measured, "20 s", found["seconds"] < 20).report()
        Claim("its peak memory", f"{found['gib']:.2f} GiB", "1 GiB", found["gib"] < 1).report()
    with tempfile.TemporaryDirectory() as name:
        pairs = {"name": "p", "format": "published", "annotations": write_pairs(Path(name)), "check_images": "header"}
        found = measure(pairs, Path(name))
        measured = f"{found['gib']:.2f} GiB, {found['seconds']:.0f} s"
        Claim("peak memory of converting ten million pairs", measured, "2 GiB", found["gib"] < 2).report()


if __name__ == "__main__":
    main()
