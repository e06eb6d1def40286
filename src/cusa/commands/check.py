"""Everything that can go wrong before hours are spent: data, models, disk and GPUs of a configuration."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cusa.annotations.convert import Inspection, inspect
from cusa.annotations.problems import SKIPPABLE, WHAT_TO_DO
from cusa.config.configuration import Configuration, check_files, load
from cusa.config.experiments import RunConfiguration
from cusa.config.models import ImageModel, TextModel
from cusa.errors import ConfigurationError, CusaError
from cusa.shards.writing import bytes_per_image

SAMPLED_IMAGES = 500
SAMPLED_FOR_SIZE = 50
TAR_OVERHEAD = 2048  # headers and padding of a sample's two members


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `sound` says whether a run can go on with it."""

    what: str
    found: str
    sound: bool = True


def check(mapping: Mapping[str, Any], every_image: bool = False) -> Iterator[Finding]:
    """Look at everything a configuration names, and yield what was found, one thing at a time.

    Raises ConfigurationError where the configuration itself is wrong or names files that are not there.
    """
    configuration = load(mapping)
    check_files(configuration)
    yield Finding("configuration", f"{len(configuration.active_experiments)} experiments, {configuration.seeds} seeds")
    with tempfile.TemporaryDirectory() as scratch:
        sample = None if every_image else SAMPLED_IMAGES
        inspection = inspect(configuration.dataset, scratch, os.cpu_count() or 1, sample)
        yield from _data(configuration, inspection)
        size = bytes_per_image(inspection.paths[:SAMPLED_FOR_SIZE], configuration.shards)
    yield from _models_and_disk(configuration, inspection, size)
    yield from _gpus(configuration)


def _data(configuration: Configuration, inspection: Inspection) -> Iterator[Finding]:
    for split, images in inspection.images.items():
        yield Finding(f"split {split}", f"{images:,} images, {inspection.captions[split]:,} captions")
    looked_at, total = len(inspection.paths), sum(inspection.images.values())
    yield Finding("images looked at", f"{looked_at:,} of {total:,}")
    problems = inspection.problems
    for kind, count in problems.counts.items():
        skipped = kind in configuration.dataset.skip
        option = f" (or add {kind} to dataset.skip)" if kind in SKIPPABLE and not skipped else ""
        examples = "; ".join(problems.examples[kind])
        advice = "skipped, as dataset.skip says" if skipped else f"{WHAT_TO_DO[kind]}{option}"
        yield Finding(kind.replace("_", " "), f"{count:,} {advice}. For instance: {examples}", skipped)


def _models_and_disk(configuration: Configuration, inspection: Inspection, image_bytes: float) -> Iterator[Finding]:
    from cusa.teachers.registry import load_image_encoder, load_text_encoder

    total = sum(inspection.images.values())
    needed = total * (image_bytes + TAR_OVERHEAD)
    yield Finding("shards", f"{needed / 1e9:.2f} GB for {total:,} images (estimated from {SAMPLED_FOR_SIZE} of them)")
    runs = [configuration.run(name, configuration.seeds[0]) for name in configuration.active_experiments]
    teachers = next((run.teachers for run in runs if run.teachers is not None), None)
    chosen: list[tuple[str, ImageModel | TextModel, dict[str, int]]] = []
    if teachers is not None:
        chosen = [
            ("image teacher", teachers.image, inspection.images),
            ("text teacher", teachers.text, inspection.captions),
        ]
    for what, model, rows in chosen:
        try:
            loaded = load_image_encoder(model) if isinstance(model, ImageModel) else load_text_encoder(model)
        except CusaError as error:
            yield Finding(what, str(error), sound=False)
            continue
        size = sum(rows.values()) * loaded.dimension * np.dtype(model.dtype).itemsize
        needed += size
        about = f"{loaded.dimension:,} numbers a row, {size / 1e9:.2f} GB in {model.dtype}"
        yield Finding(what, f"{model.identity}: {about}")
    seen = set()
    for run in runs:
        if (name := run.student.name) is not None and name not in seen:
            seen.add(name)
            yield _student(run)
    results = Path.cwd() / "results"
    free = shutil.disk_usage(results if results.exists() else Path.cwd()).free
    yield Finding("disk", f"{needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free in {results}", sound=needed < free)


def _student(run: RunConfiguration) -> Finding:
    from cusa.student.student import build_student

    try:
        student = build_student(run.student, run.losses)
    except CusaError as error:
        return Finding("student", str(error), sound=False)
    count = sum(parameter.numel() for parameter in student.parameters())
    return Finding("student", f"{run.student.name}: {count / 1e6:.0f} million parameters")


def _gpus(configuration: Configuration) -> Iterator[Finding]:
    import torch

    wanted = max(configuration.recipe(name).gpus for name in configuration.active_experiments)
    if wanted == 0:
        yield Finding("device", f"CPU, {os.cpu_count()} cores; train.gpus is 0")
        return
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < wanted:
        advice = f"train.gpus asks for {wanted}, PyTorch sees {found}; set train.gpus to what there is"
        yield Finding("GPUs", advice, sound=False)
        return
    yield Finding("GPUs", f"{found} x {torch.cuda.get_device_name(0)}")
    for name in configuration.active_experiments:
        run = configuration.run(name, configuration.seeds[0])
        if run.student.name is not None:
            yield _batch_memory(name, run)


def _batch_memory(experiment: str, run: RunConfiguration) -> Finding:
    """Whether one step with a full batch of made-up pairs fits the first GPU."""
    import torch

    from cusa.training.trial import trial_step

    what = f"memory of a batch, {experiment}"
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    try:
        trial_step(run, torch.device("cuda", 0))
    except torch.cuda.OutOfMemoryError:
        return Finding(
            what, f"train.batch_size {run.train.batch_size} does not fit {total:.1f} GiB; lower it", sound=False
        )
    finally:
        torch.cuda.empty_cache()
    return Finding(what, f"{torch.cuda.max_memory_allocated(0) / 2**30:.1f} of {total:.1f} GiB")


def require_sound(findings: list[Finding]) -> None:
    """Raise ConfigurationError when some finding is not sound."""
    if unsound := [finding.what for finding in findings if not finding.sound]:
        raise ConfigurationError(f"{len(unsound)} things have to be mended before a run: {', '.join(unsound)}.")
