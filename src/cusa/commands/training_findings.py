"""Findings of `cusa check` about trainings and their benchmarks: enough data, labels, and learning rates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cusa.annotations.convert import Inspection
from cusa.annotations.enough_data import needs_of
from cusa.commands.finding import Finding
from cusa.config.adaptation import adapter_sides
from cusa.config.training import Train
from cusa.plan import Plan

if TYPE_CHECKING:
    from cusa.student.student import Student

HIGHEST_TOWER_RATE = 2e-4  # CLIP and its like are fine-tuned with rates from 1e-6 to 1e-4


def enough_data(plan: Plan, inspection: Inspection) -> Iterator[Finding]:
    """Whether the data are enough for each training, and for the retrieval that is measured on the test split."""
    for needs in needs_of(plan.configuration):
        subject = f"enough data for {', '.join(needs.experiments)}"
        problems = list(needs.shortfalls(inspection.images, inspection.captions))
        yield from (Finding(subject, sentence, sound=False) for sentence in problems)
        if not problems:
            step = needs.batch_size * needs.processes * needs.accumulate
            steps = inspection.captions["train"] // step
            yield Finding(subject, f"{steps:,} steps of {step:,} pairs an epoch")
    if (images := inspection.images.get("test", 0)) < 2 and "itr" in plan.benchmarks:
        text = f"the split test has {images} images, and a search among fewer than two finds nothing out; add data"
        yield Finding("enough data to test", text, sound=False)


def labels(plan: Plan, inspection: Inspection) -> Iterator[Finding]:
    """Whether the data set's own images have the labels that benchmarks on labels read."""
    sections = plan.configuration.benchmarks
    splits = {"zero_shot_classification": ("test",), "linear_probe": ("train", "test")}
    for name in splits:
        section = getattr(sections, name)
        for split in splits[name] if section is not None and section.dataset_images else ():
            subject, labelled = f"labels for {name} in {split}", inspection.labelled.get(split, 0)
            text = f"{labelled:,} images have a label"
            if not labelled:
                text = (
                    "no image has a label; name the column of labels in dataset.columns.label, or leave "
                    f"benchmarks.{name}.dataset_images out"
                )
            yield Finding(subject, text, sound=labelled > 0)


def learning_rates(plan: Plan) -> Iterator[Finding]:
    """Trainings whose learning rate is usual for new heads, and spoils pre-trained weights."""
    for name in plan.experiments:
        student, recipe = plan.configuration.student_of(name), plan.configuration.recipe(name)
        rate = recipe.lr if recipe.tower_lr is None else recipe.tower_lr
        if student.trained_sides - adapter_sides(student.adapt) and rate > HIGHEST_TOWER_RATE:
            text = (
                f"the pre-trained weights of experiment {name} are trained with the learning rate {rate:g}, which "
                "usually makes them forget what they know; set train.tower_lr, for instance to 1e-5"
            )
            yield Finding("learning rate", text, doubtful=True)


def shared_images(run: str, student: Student, recipe: Train) -> Iterator[Finding]:
    """Whether `train.captions_per_image` saves anything: each image is encoded once for the captions of a batch."""
    from cusa.training.step import batch_normalisation

    if recipe.captions_per_image == 1 or student.backbone.image_transform is None:
        return
    why = None
    if batch_normalisation(student):
        why = "the student normalises over the batch (BatchNorm), whose statistics are those of all pairs"
    elif recipe.augmentation is not None and recipe.augmentation.image is not None:
        why = "train.augmentation.image changes the picture of each pair"
    if why is not None:
        text = (
            f"train.captions_per_image is {recipe.captions_per_image}, but {why}, so an image is encoded for each of "
            "its captions, and batches only have fewer images; set it to 1 to have more negatives"
        )
        yield Finding(f"captions of an image in {run}", text, doubtful=True)
