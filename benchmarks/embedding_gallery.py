"""`cusa embed` on the CPU against the bare model on tensors in memory: images a second, with two cores.

The bar is for the realistic case, ViT-B/32 (of random weights, which cost as much) on photographs of 640 x 480. The
model of the embedded default is small beside the decoding of its pictures; its ratio is printed, and is not a bar.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import torch
from loading_images import photographs
from measure import Claim
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from cusa.config.experiments import RunConfiguration
from cusa.config.section import validate
from cusa.config.shards import Shards
from cusa.gallery.embedding import Embedding, embed_gallery
from cusa.gallery.sources.opening import open_source
from cusa.model.run_model import FrozenTowers, Model
from cusa.student.backbones import FrozenDimensions
from cusa.student.student import build_student

IMAGES, TURNS, BATCH, CORES = 192, 3, 32, 2
LOSSES = {"contrastive": {}}


def vision_transformer(folder: Path) -> Path:
    """A ViT-B/32 with random weights, as transformers saves one."""
    torch.manual_seed(0)
    ViTModel(ViTConfig(patch_size=32)).save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)
    return folder


def model_of(image_tower: str, dimension: int, shards: Shards, folder: Path) -> Model:
    """A student of two frozen towers; its text tower is MiniLM."""
    towers = {"image": {"name": image_tower, "trainable": False}, "text": {"name": "all-MiniLM-L6-v2"}}
    towers["text"]["trainable"] = False
    content = {"dataset": "photos", "experiment": "contrastive", "seed": 1, "losses": LOSSES, "teachers": None}
    content |= {"student": {"towers": {**towers, "dimension": 256}}}
    content |= {"train": {"epochs": 1, "eval_batch_size": BATCH}}
    settings = validate(RunConfiguration, content)
    student = build_student(settings.student, settings.losses, FrozenDimensions(dimension, 384)).eval()
    frozen = FrozenTowers.load(settings.student)
    return Model(student, frozen, settings, shards, folder, "00", torch.device("cpu"), "fp32")


def measure(name: str, model: Model, pictures: Path, folder: Path) -> float:
    """Print both rates, and return the ratio: each side's fastest turn, the sides in turns."""
    source = open_source(str(pictures))
    total = source.total or 0
    prepared = [model.prepared(pictures / entry.item) for entry in source.entries(lambda _: True) if entry is not None]

    def bare() -> None:
        for start in range(0, total, BATCH):
            model.encode_prepared(prepared[start : start + BATCH])

    def embed() -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        embed_gallery(model, source, folder / "out", Embedding(part_rows=total))

    started = process_time()
    for picture in list(source.entries(lambda _: True))[:32]:
        assert picture is not None
        model.prepared(pictures / picture.item)
    decoding = (process_time() - started) / 32
    best = {"bare": float("inf"), "embed": float("inf")}
    cores = dict(best)
    model.encode_prepared(prepared[:BATCH])  # what is made once
    for _ in range(TURNS):
        for side, call in (("bare", bare), ("embed", embed)):
            wall, used = perf_counter(), process_time()
            call()
            best[side] = min(best[side], perf_counter() - wall)
            cores[side] = min(cores[side], process_time() - used)
    for side, seconds in best.items():
        print(f"{name}, {side}: {total / seconds:.1f} images/s, {1000 * cores[side] / total:.1f} ms of a core an image")
    print(f"{name}: preparing a picture takes {1000 * decoding:.1f} ms of a core")
    return best["bare"] / best["embed"]


def main() -> None:
    torch.set_num_threads(CORES)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, kind = photographs(folder)
        rows = json.loads(Path(files["train"]).read_text())
        base = Path(files["train"]).parent
        paths = list(dict.fromkeys((base / row["image_path"]).resolve() for row in rows))[:IMAGES]
        (folder / "pictures").mkdir()
        for path in paths:
            (folder / "pictures" / path.name).symlink_to(path)
        vit = model_of(str(vision_transformer(folder / "vit")), 768, Shards(), folder)
        ratio = measure(f"ViT-B/32, {kind}", vit, folder / "pictures", folder)
        small = model_of("efficientnet-lite0", 1280, Shards(image_format="png"), folder)
        of_small = measure(f"EfficientNet-Lite0, {kind}", small, folder / "pictures", folder)
    measured = f"{ratio:.2f} of its images/s, ViT-B/32 on {kind}; EfficientNet-Lite0, no bar: {of_small:.2f}"
    if load > 1:  # the side with more threads then gets more of the cores
        measured += f"; other programs ran, load {load:.0f}"
    Claim("cusa embed over the bare model on tensors, two cores", measured, "0.95", ratio >= 0.95).report()


if __name__ == "__main__":
    main()
