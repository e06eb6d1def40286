"""`cusa check`: finds problems of the data, models, disk and GPUs before the workflow runs for hours."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cusa.annotations.convert import Inspection, inspect
from cusa.annotations.problems import WHAT_TO_DO, can_be_skipped
from cusa.commands.benchmark_data import class_names_of, images_of, judgements_of, pairs_of
from cusa.commands.finding import Finding
from cusa.commands.gpu_findings import gpu_findings
from cusa.commands.search_findings import ModelSize, search_findings
from cusa.commands.token_findings import (
    clean_up,
    parts_to_change,
    repeated_captions,
    student_tokens,
    text_model_tokens,
)
from cusa.commands.training_findings import (
    compiling,
    enough_data,
    keys_without_effect,
    labels,
    learning_rates,
    not_trainable,
    shared_images,
)
from cusa.common.files import gigabytes, require_writable
from cusa.config import check_files, load
from cusa.config.classification import ZeroShotClassification
from cusa.config.data_files import missing_parts
from cusa.config.experiments import RunConfiguration
from cusa.config.models import ImageModel, ImageTower, TextModel, TextTower
from cusa.config.views import ImageViews, TextViews
from cusa.errors import CusaError
from cusa.layout import RESULTS, CachedFeatures
from cusa.metrics.neighbours import import_faiss
from cusa.plan import Plan, SearchPlan, SweepPlan, require_plain_names
from cusa.shards.writing import bytes_per_image
from cusa.tracking.tracker import require_trackers

if TYPE_CHECKING:
    from cusa.student.student import Student

SAMPLED_IMAGES = 500
SAMPLED_FOR_SIZE = 50
# Notes on data that a user should think about: they spoil what is learned, or make results too good.
DOUBTFUL = ("copies_across_splits", "near_copies", "one_picture_often", "two_labels")
TAR_OVERHEAD = 2048  # bytes of headers and padding of the two files of a sample
FLOAT32 = 4  # bytes
SAVED_PER_PARAMETER = 4 * FLOAT32  # the state holds the weights, the optimiser's two moments, and the best weights
GIGABYTE = 1e9


def check(mapping: Mapping[str, Any], every_image: bool = False) -> Iterator[Finding]:
    """Check everything that a configuration names, and yield each finding as soon as it is known.

    With `every_image` all images are decoded, else 500 of them. Raises ConfigurationError when the configuration is
    wrong, or names files that do not exist.
    """
    configuration = load(mapping)
    check_files(configuration)
    plan = Plan(configuration)
    plan.check()
    search, sweep = SearchPlan(plan), SweepPlan(plan)
    sweep.check()
    require_plain_names(plan, search)
    runs = {"interpolation": plan.interpolations, "baseline": plan.baselines, "checkpoint": plan.checkpoints}
    counts = [_counted("experiment", len(plan.experiments))]
    counts += [_counted(kind, len(names)) for kind, names in runs.items() if names]
    yield Finding("configuration", f"{', '.join(counts)}, seeds {', '.join(map(str, configuration.seeds))}")
    if sweep.sweep is not None:
        yield Finding("sweep", sweep.sentence())
    with tempfile.TemporaryDirectory() as scratch:
        sample = None if every_image else SAMPLED_IMAGES
        inspection = inspect(configuration.dataset, scratch, os.cpu_count() or 1, sample, configuration.cleaning)
        yield from _data(plan, inspection, Path(scratch))
        for sentence in missing_parts(configuration.dataset.files.values()):
            yield Finding("files", sentence, doubtful=True)
        for table in plan.text_sources("eccv_caption"):
            yield judgements_of(table, Path(scratch), configuration.cleaning)
        image_bytes = bytes_per_image(
            inspection.paths[:SAMPLED_FOR_SIZE], configuration.shards, configuration.dataset.max_pixels
        )
    yield from enough_data(plan, inspection)
    yield from labels(plan, inspection)
    yield from learning_rates(plan)
    yield from keys_without_effect(plan)
    yield from compiling(plan)
    yield from parts_to_change(plan, inspection)
    labels_of: dict[str, Counter[str]] = {}
    yield from images_of(plan.labelled_images, labels_of)
    if isinstance(classified := plan.settings.get("zero_shot_classification"), ZeroShotClassification):
        yield from class_names_of(classified, labels_of)
    labelled = {name: labels.total() for name, labels in labels_of.items()}
    sizes = _Sizes(plan, inspection, image_bytes, labelled)
    yield from pairs_of(plan.sentence_pairs)
    if configuration.dataset.makes_images:
        yield sizes.pictures()
    yield sizes.shards()
    yield from sizes.models()
    yield from sizes.students()
    yield from sizes.searches(search)
    yield sizes.disk()
    if "image_retrieval" in plan.benchmarks or plan.gallery_runs or search.searched_runs:
        yield _faiss()
    yield from _trackers(plan)
    yield from gpu_findings(plan)


def _trackers(plan: Plan) -> Iterator[Finding]:
    """Whether the packages and files of `train.trackers` can be used here; a log-in is only tried by the training."""
    names = [name for each in plan.experiments for name in plan.run_configuration(each).train.trackers]
    for name in dict.fromkeys(names):
        try:
            require_trackers([name])
            yield Finding(f"tracker {name}", "installed")
        except CusaError as error:
            yield Finding(f"tracker {name}", str(error), sound=False)


def _faiss() -> Finding:
    """Whether nearest neighbours can be searched: for image retrieval, the report's gallery and indexes, at the end."""
    try:
        return Finding("faiss", import_faiss().__version__)
    except CusaError as error:
        return Finding("faiss", str(error), sound=False)


def _data(plan: Plan, inspection: Inspection, scratch: Path) -> Iterator[Finding]:
    for split, images in inspection.images.items():
        yield Finding(f"split {split}", f"{images:,} images, {inspection.captions[split]:,} captions")
    if inspection.languages:
        counts = sorted(inspection.languages.items(), key=lambda each: -each[1])
        yield Finding("languages", ", ".join(f"{name} ({count:,} captions)" for name, count in counts))
    for name, reason in plan.left_out.items():
        yield Finding(f"left out: {name}", reason)
    yield clean_up(plan)
    yield from repeated_captions(inspection)
    looked_at, total = len(inspection.paths), sum(inspection.images.values())
    yield Finding("images looked at", f"{looked_at:,} of {total:,}")
    problems = inspection.problems
    for kind, count in problems.counts.items():
        skipped = kind in plan.configuration.dataset.skip
        option = f" (or add {kind} to dataset.skip)" if can_be_skipped(kind) and not skipped else ""
        examples = "; ".join(problems.examples[kind])
        advice = "skipped, as dataset.skip says" if skipped else f"{WHAT_TO_DO[kind]}{option}"
        yield Finding(kind.replace("_", " "), f"{count:,} {advice}. For instance: {examples}", skipped)
    for kind, sentence in problems.note_sentences():
        # The images that a source makes are named by the place that they will have.
        text = sentence.replace(str(scratch.absolute() / "images"), str(plan.folder.images))
        yield Finding(kind.replace("_", " "), text, doubtful=kind in DOUBTFUL)


def _counted(noun: str, count: int) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class _Sizes:
    """The sizes of shards, features and run folders, in bytes; tables, logs and texts without images are small.

    Each model is loaded once to get its size, which also shows that it can be loaded."""

    def __init__(self, plan: Plan, inspection: Inspection, image_bytes: float, labelled: dict[str, int]) -> None:
        self.plan, self.inspection = plan, inspection
        self.image_bytes = image_bytes + TAR_OVERHEAD
        self.labelled = labelled
        self.dimensions: dict[str, int] = {}
        self.encoders: dict[str, int] = {}
        self.of_runs: dict[str, ModelSize] = {}
        self.needed = 0.0

    def pictures(self) -> Finding:
        """The size of the images that the data set's format writes."""
        images = sum(self.inspection.images.values())
        size = images * self.inspection.made_bytes
        self.needed += size
        return Finding("pictures", f"{size / GIGABYTE:.2f} GB for {images:,} images, in {self.plan.folder.images}")

    def shards(self) -> Finding:
        """The size of the shards: images of the data set, and the labelled images of benchmarks."""
        images = sum(self.inspection.images.values()) + sum(self.labelled.values())
        size = images * self.image_bytes
        self.needed += size
        estimate = f"estimated from {min(images, SAMPLED_FOR_SIZE)} of them"
        return Finding("shards", f"{size / GIGABYTE:.2f} GB for {images:,} images ({estimate})")

    def models(self) -> Iterator[Finding]:
        """Each teacher and frozen tower, and the size of its cached features."""
        from cusa.teachers.encoders import TextEncoder
        from cusa.teachers.registry import load_image_encoder, load_text_encoder

        models: list[tuple[str, ImageModel | TextModel]] = [
            *(("image model", model) for model in self.plan.frozen_image_models.values()),
            *(("text model", model) for model in self.plan.frozen_text_models.values()),
        ]
        for kind, model in models:
            if isinstance(model, ImageViews | TextViews):
                if (dimension := self.dimensions.get(model.original.folder)) is not None:  # else `models` reports it
                    yield Finding(f"{kind} {model.identity}", self._stored(model, dimension, model.views))
                continue
            try:
                encoder = load_image_encoder(model) if isinstance(model, ImageModel) else load_text_encoder(model)
            except CusaError as error:
                yield Finding(f"{kind} {model.identity}", str(error), sound=False)
                continue
            self.dimensions[model.folder] = encoder.dimension
            self.encoders[model.folder] = sum(parameter.numel() for parameter in encoder.parameters())
            yield Finding(f"{kind} {model.identity}", self._stored(model, encoder.dimension))
            if isinstance(encoder, TextEncoder):
                yield from text_model_tokens(encoder, self.inspection)

    def _stored(self, model: ImageModel | TextModel, dimension: int, views: int = 1) -> str:
        """The size of a model's cached features."""
        size = self._rows_of(model.folder) * views * dimension * np.dtype(model.dtype).itemsize
        self.needed += size
        return f"{dimension:,} numbers a row, {size / GIGABYTE:.2f} GB in {model.dtype}"

    def _rows_of(self, model_folder: str) -> int:
        stored = self.plan.stored_features
        return sum(
            self.labelled.get(folder.root.name, 0) if folder != self.plan.folder else self._rows(features)
            for folder, features in stored
            if features.model_folder == model_folder
        )

    def _rows(self, features: CachedFeatures) -> int:
        counts = self.inspection.images if features.modality == "image" else self.inspection.captions
        return counts.get(features.split, 0)

    def students(self) -> Iterator[Finding]:
        """Each student once, and the size of the run folders.

        Run folders hold weights, embeddings, and, while a training runs, its state. The largest state counts.
        """
        from cusa.student.student import trained_parameters

        plan, parameters, states, size = self.plan, dict[str, tuple[int, int | None]](), [0], 0
        failures, tokens_of = dict[str, str](), set[str]()
        for run in plan.runs:
            configuration = plan.run_configuration(run)
            settings = configuration.student.model_dump_json()
            if settings in failures:  # a hub that cannot be reached is not waited for again
                yield Finding(f"student of {run}", f"it is that of {failures[settings]}, see there", sound=False)
                continue
            try:
                student = self._build(configuration)
            except CusaError as error:
                failures[settings] = run
                yield Finding(f"student of {run}", str(error), sound=False)
                continue
            if student is None:
                continue  # one of its frozen towers could not be loaded, and `models` has reported that
            if run in plan.experiments:
                yield from not_trainable(run, student, configuration.train)
                yield from shared_images(run, student, configuration.train)
            count = sum(parameter.numel() for parameter in student.parameters())
            frozen = sum(self.encoders[tower.folder] for tower in _frozen_towers(configuration))
            self.of_runs[run] = ModelSize(count + frozen, student.backbone.dimension)
            name = configuration.student.name or "pair of towers"
            trained = trained_parameters(student)
            if parameters.get(name) != (count, trained):
                parameters[name] = (count, trained)
                text = f"{name}: {count / 1e6:.1f} million parameters"
                part = "" if trained is None else f", of which {trained / 1e6:.2f} million are trained (student.adapt)"
                yield Finding(f"student of {run}", text + part)
            if (whole := configuration.student.whole.model_dump_json()) not in tokens_of:
                tokens_of.add(whole)
                yield from student_tokens(run, student.backbone, self.inspection)
            folders = len(plan.seeds_of(run))
            saved = count if trained is None else trained
            size += folders * FLOAT32 * (saved + self._embedded_rows(run) * 2 * student.backbone.dimension)
            states.append(saved * SAVED_PER_PARAMETER if run in plan.experiments else 0)
        size += max(states)
        self.needed += size
        text = f"{size / GIGABYTE:.2f} GB of weights, embeddings and the state of the largest training"
        yield Finding("run folders", text)

    def _build(self, configuration: RunConfiguration) -> Student | None:
        from cusa.student.backbones import FrozenDimensions
        from cusa.student.student import build_student

        # The weights of an interpolation have the adapters merged, so its run folder holds all of them.
        settings = configuration.student if configuration.interpolate is None else configuration.student.whole
        if (towers := settings.towers) is None:
            return build_student(settings, configuration.losses)
        if any(tower.folder not in self.dimensions for tower in _frozen_towers(configuration)):
            return None
        image, text = (self.dimensions.get(tower.folder, 0) for tower in (towers.image, towers.text))
        return build_student(settings, configuration.losses, FrozenDimensions(image, text))

    def _embedded_rows(self, run: str) -> int:
        plan, inspection = self.plan, self.inspection
        data = {name for benchmark in plan.benchmarks_of(run) for name in plan.data_of[benchmark]}
        counts = (inspection.images, inspection.captions, self.labelled)
        return sum(count.get(name, 0) for count in counts for name in data)

    def searches(self, search: SearchPlan) -> Iterator[Finding]:
        """The galleries, indexes and exports."""
        added: list[float] = []
        yield from search_findings(search, self.inspection.images, self.of_runs, added)
        self.needed += sum(added)

    def disk(self) -> Finding:
        """Whether all files together fit on the disk of results/."""
        results = Path.cwd() / RESULTS
        try:
            require_writable(results)
        except CusaError as error:
            return Finding("disk", str(error), sound=False)
        free = shutil.disk_usage(results if results.exists() else Path.cwd()).free
        text = f"{gigabytes(self.needed)} needed, {gigabytes(free)} free in {results}"
        return Finding("disk", text, sound=self.needed < free)


def _frozen_towers(configuration: RunConfiguration) -> list[ImageTower | TextTower]:
    towers = configuration.student.towers
    return [] if towers is None else [tower for tower in (towers.image, towers.text) if not tower.trainable]
