"""A training step of CLIP ViT-B/32 through the real trainer, compared with a step written as the published code has it.

The published step is in fp32, pads every caption to 77 tokens, and encodes an image for each of its captions. Ours are
steps of `Trainer`, with the loading of their batches: JPEGs, tokens, and 37,632-d teacher features from disk. Weights
are random, which cost as much. All sides take turns with batches of the same number of pairs.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Claim, best_of_turns
from PIL import Image
from torch.nn import functional

from cusa.annotations.convert import convert
from cusa.common.compute import has_instructions
from cusa.config.configuration import load
from cusa.config.experiments import RunConfiguration
from cusa.layout import DatasetFolder
from cusa.losses import CUSALoss
from cusa.shards.writing import write_split
from cusa.student.student import Student, build_student
from cusa.teachers.store import write_features
from cusa.training.batches import TrainingBatch
from cusa.training.distributed import Group
from cusa.training.interruption import Stop
from cusa.training.loop import Trainer
from cusa.training.state import Progress

IMAGES, CAPTIONS, PAIRS, TURNS = 2000, 5, 80, 3
CUSA_PAIRS, CUSA_TURNS = 128, 3
PUBLISHED_LENGTH = 77
START, END, WORDS = 49406, 49407, 1000
CPU = torch.device("cpu")
TEACHERS = {"image": ("timm/resnet18", 37_632), "text": ("sentence-transformers/all-mpnet-base-v2", 768)}
# The words of a caption of COCO: about 10, seldom under 8 or over 15.
MEAN_WORDS, DEVIATION, FEWEST, MOST = 10.5, 2.4, 8, 40


def write_student(folder: Path, sizes: dict[str, Any] | None = None) -> None:
    """A CLIP of random weights, ViT-B/32 without other `sizes` of its CLIPConfig, and a tokeniser of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    configuration = CLIPConfig(**(sizes or {}))
    side = configuration.vision_config.image_size
    CLIPModel(configuration).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(folder)
    vocabulary = {f"w{number}": number for number in range(WORDS)} | {"[START]": START, "[END]": END, "[UNK]": WORDS}
    tokeniser = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokeniser.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokeniser.post_processor = processors.TemplateProcessing(
        single="[START] $A [END]", special_tokens=[("[START]", START), ("[END]", END)]
    )
    names = {"bos_token": "[START]", "eos_token": "[END]", "pad_token": "[END]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokeniser, model_max_length=PUBLISHED_LENGTH, **names).save_pretrained(
        folder
    )


def write_data(folder: DatasetFolder, mapping: dict, train_images: int = IMAGES, side: int = 224) -> None:
    """Square pictures of noise with five captions each, as annotations, shards and teacher features."""
    rng = np.random.default_rng(0)
    pictures = folder.root / "pictures"
    pictures.mkdir(parents=True)
    for number in range(train_images + 4):
        small = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
        small.resize((side, side)).save(pictures / f"{number}.jpg")
    last = train_images + 4
    splits = {"train": range(train_images), "val": range(train_images, last - 2), "test": range(last - 2, last)}
    for split, images in splits.items():
        lengths = np.clip(rng.normal(MEAN_WORDS, DEVIATION, (len(images), CAPTIONS)).round(), FEWEST, MOST).astype(int)
        rows = [
            {
                "image_path": str(pictures / f"{image}.jpg"),
                "caption": " ".join(f"w{word}" for word in rng.integers(0, WORDS, length)),
                "image_id": str(image),
            }
            for image, of_image in zip(images, lengths, strict=True)
            for length in of_image
        ]
        Path(mapping["dataset"]["annotations"][split]).write_text(json.dumps(rows))
    configuration = load(mapping)
    convert(configuration.dataset, folder.annotations, folder.root / "images")
    for split in splits:
        write_split(folder.annotations, split, folder.shards(split), configuration.shards)
    models = {"image": configuration.teachers.image, "text": configuration.teachers.text}
    for modality, (name, dimension) in TEACHERS.items():
        rows = train_images * (CAPTIONS if modality == "text" else 1)
        starts = range(0, rows, 100)
        parts = (rng.standard_normal((min(100, rows - start), dimension), dtype=np.float32) for start in starts)
        path = folder.features(modality, models[modality].folder, "train")
        write_features(path, rows, dimension, "float16", parts, {"model": name, "weights_sha256": "unknown"})


def mapping_of(root: Path) -> dict:
    return {
        "dataset": {
            "name": "noise",
            "format": "published",
            "annotations": {split: str(root / f"{split}.json") for split in ("train", "val", "test")},
        },
        "teachers": {modality: {"name": name} for modality, (name, _) in TEACHERS.items()},
        "student": {"name": str(root / "student"), "towers": None},
        "train": {"epochs": 1, "lr": 1e-6, "min_lr": 1e-7, "batch_size": PAIRS},
        "experiments": {
            "contrastive": {"contrastive": {}},
            "cusa": {"contrastive": {}, "cross_softlabel": {}, "uni_softlabel": {}},
        },
    }


def steps_of(trainer: Trainer) -> Iterator[None]:
    """Steps of a trainer, epoch after epoch: each is loaded and taken when it is asked for."""
    trainer.task.train()
    while True:
        for step, batches in trainer.data.steps(trainer.progress):
            trainer.train_step(step, batches)
            yield
        trainer.progress.epoch, trainer.progress.step = trainer.progress.epoch + 1, 0


def trainer_of(
    mapping: dict, experiment: str, folder: DatasetFolder, run: Path, group: Group | None = None, **settings: object
) -> Trainer:
    configuration = load({**mapping, "train": {**mapping["train"], **settings}}).run(experiment, 23)
    return Trainer(configuration, folder, run, group or Group(), Stop())


def published_step(student: Student, loss: CUSALoss, optimiser: torch.optim.Optimizer, batch: TrainingBatch) -> None:
    """A step as the published code takes it, on a batch in memory that has a row of everything for each pair."""
    heads = {}
    image, text = student.image_features(batch.images), student.text_features(batch.texts)
    for family in ("cross", "uni"):
        heads[f"{family}_image"] = student.head(image, family, "image")
        heads[f"{family}_text"] = student.head(text, family, "text")
    teachers = {"teacher_image": batch.teacher_image, "teacher_text": batch.teacher_text}
    losses = loss(**heads, **teachers, image_ids=batch.image_ids)
    losses.total.item()
    optimiser.zero_grad()
    losses.total.backward()
    optimiser.step()


def published(
    run: RunConfiguration, batch: TrainingBatch, device: torch.device = CPU, length: int | None = PUBLISHED_LENGTH
) -> Callable[[], None]:
    """Published steps on the pairs of a batch. `length` None pads captions to the longest of the batch only."""
    torch.manual_seed(0)
    student = build_student(run.student, run.losses).train().to(device)
    loss = CUSALoss(run.losses).to(device)
    optimiser = torch.optim.AdamW([*student.parameters(), *loss.parameters()], lr=1e-6)
    pairs = batch.to(device).by_pair()
    longest = pairs.texts["input_ids"].shape[1]
    missing = (length or longest) - longest
    padding = {"input_ids": END, "attention_mask": 0}
    pairs.texts = {key: functional.pad(pairs.texts[key], (0, missing), value=padding[key]) for key in padding}
    if batch.teacher_image_rows is not None:
        pairs.teacher_image, pairs.teacher_image_rows = pairs.teacher_image[pairs.teacher_image_rows], None
    return lambda: published_step(student, loss, optimiser, pairs)


def precisions() -> list[str]:
    """The precisions that are worth measuring on this processor, the fastest last."""
    return ["fp32", "bf16"] if has_instructions("cpu", "bf16") else ["fp32"]


def print_seconds(seconds: dict[str, float], reference: str) -> None:
    print(f"{'a step':50} s a pair, times as fast as {reference}")
    for name, of_step in seconds.items():
        print(f"{name:50} {of_step / PAIRS:8.3f}  {seconds[reference] / of_step:.2f}")


def measured(sides: dict[str, Callable[[], None]], turns: int) -> dict[str, float]:
    for side in sides.values():
        side()  # the optimiser makes its moments, and a compiled tower is compiled
    return best_of_turns(turns, **sides)


def report_against_published(mapping: dict, folder: DatasetFolder, root: Path) -> None:
    bars = {("all", "fp32"): 5.5, ("all", "bf16"): 8.0, (1, "fp32"): 1.8, (1, "bf16"): 2.6}
    bars = {key: bar for key, bar in bars.items() if key[1] in precisions()}
    trainers = {
        f"{captions}, {precision}": trainer_of(
            mapping, "cusa", folder, root / f"{captions}-{precision}", captions_per_image=captions, precision=precision
        )
        for captions, precision in bars
    }
    first = trainers["1, fp32"]
    _, batches = next(first.data.steps(Progress()))
    batch = next(batches)
    sides = {"published": published(first.configuration, batch)}
    sides["not padded"] = published(first.configuration, batch, length=None)
    sides |= {name: steps_of(trainer).__next__ for name, trainer in trainers.items()}
    seconds = measured(sides, TURNS)
    print_seconds(seconds, "published")
    for (captions, precision), bar in bars.items():
        name = f"{captions}, {precision}"
        ratio = seconds["published"] / seconds[name]
        found = (
            f"{ratio:.2f} times as fast ({seconds[name] / PAIRS:.3f} s against {seconds['published'] / PAIRS:.3f} s a "
            f"pair, {PAIRS} pairs a batch)"
        )
        claim = f"a step with captions_per_image {name}, over the published one, CLIP ViT-B/32"
        Claim(claim, found, f"{bar} times", ratio >= bar).report()


def print_options(mapping: dict, folder: DatasetFolder, root: Path) -> None:
    """What compiling the towers and computing them twice cost or bring, without a bar."""
    precision = precisions()[-1]
    options = {"plain": {}, "compile": {"compile": True}, "checkpoint_towers": {"checkpoint_towers": True}}
    settings = {"captions_per_image": "all", "precision": precision}
    sides = {
        f"all, {precision}, {name}": steps_of(
            trainer_of(mapping, "cusa", folder, root / name, **settings, **option)
        ).__next__
        for name, option in options.items()
    }
    print_seconds(measured(sides, TURNS), f"all, {precision}, plain")


def report_cusa_against_contrastive(mapping: dict, folder: DatasetFolder, root: Path) -> None:
    sides = {}
    for experiment in ("contrastive", "cusa"):
        trainer = trainer_of(mapping, experiment, folder, root / experiment, batch_size=CUSA_PAIRS)
        sides[experiment] = steps_of(trainer).__next__
    seconds = measured(sides, CUSA_TURNS)
    ratio = seconds["cusa"] / seconds["contrastive"]
    found = (
        f"{ratio:.3f} ({seconds['cusa']:.2f} s against {seconds['contrastive']:.2f} s, CPU, batch {CUSA_PAIRS}, "
        "37,632-d features from disk)"
    )
    Claim("a CUSA step over a contrastive step, CLIP ViT-B/32", found, "1.01", ratio <= 1.01).report()


def main() -> None:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder, mapping = DatasetFolder(root / "data"), mapping_of(root)
        write_student(root / "student")
        write_data(folder, mapping)
        print(f"data and student: {time.perf_counter() - started:.0f} s", flush=True)
        if "bf16" not in precisions():
            print("bf16 is not measured: this processor has no instructions for it", flush=True)
        # A process each: every trainer has weights, gradients and moments of 2.4 GB, which Python may keep for a while.
        for report in (report_against_published, print_options, report_cusa_against_contrastive):
            process = get_context("spawn").Process(target=report, args=(mapping, folder, root))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"{report.__name__} ended with exit code {process.exitcode}")


if __name__ == "__main__":
    main()
