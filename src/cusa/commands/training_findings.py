"""Findings of `cusa check` about trainings and their benchmarks: enough data, labels, and learning rates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cusa.annotations.convert import Inspection
from cusa.annotations.enough_data import data_needs
from cusa.commands.finding import Finding
from cusa.config.adaptation import adapter_sides
from cusa.config.models import StudentSettings
from cusa.config.student_inputs import pixels_folder
from cusa.config.training import Train
from cusa.errors import CusaError
from cusa.plan import Plan

if TYPE_CHECKING:
    from cusa.student.student import Student

FEW_TEST_IMAGES = 100
HIGHEST_TOWER_RATE = 2e-4  # CLIP and its like are fine-tuned with rates from 1e-6 to 1e-4


def enough_data(plan: Plan, inspection: Inspection) -> Iterator[Finding]:
    """Whether the data are enough for each training, and for the retrieval that is measured on the test split."""
    wanted = data_needs(plan.configuration)
    for needs in wanted.trainings:
        subject = f"enough data for {', '.join(needs.experiments)}"
        problems = list(needs.shortfalls(inspection.images, inspection.captions))
        yield from (Finding(subject, sentence, sound=False) for sentence in problems)
        if not problems:
            step = needs.batch_size * needs.processes * needs.accumulate
            steps = inspection.captions["train"] // step
            yield Finding(subject, f"{steps:,} steps of {step:,} pairs an epoch")
            yield from _warm_ups(plan, needs.experiments, steps)
    if (images := inspection.images.get("test", 0)) < 2 and "itr" in plan.benchmarks:
        text = f"the split test has {images} images, and a search among fewer than two finds nothing out; add data"
        yield Finding("enough data to test", text, sound=False)
        return
    if images < FEW_TEST_IMAGES and "itr" in plan.benchmarks:
        text = (
            f"the split test has {images} images, so that one more right answer is {100 / images:.1f} points of R@1, "
            "and figures that are close do not rank the experiments; take more images for test (`dataset.held_out`, if "
            "the splits are drawn), or compare the means of several `seeds`"
        )
        yield Finding("few images to test", text, doubtful=True)
    if wanted.folds is not None:
        problems = list(wanted.unequal_folds(images))
        text = problems[0] if problems else f"{wanted.folds} of {images // wanted.folds:,} test images"
        yield Finding("folds", text, sound=not problems)


def _warm_ups(plan: Plan, experiments: list[str], steps: int) -> Iterator[Finding]:
    """Trainings that end before their warm-up does; each epoch has so many steps."""
    for name in experiments:
        recipe = plan.configuration.recipe(name)
        if recipe.warmup_steps and recipe.warmup_steps >= steps * recipe.epochs:
            text = (
                f"train.warmup_steps is {recipe.warmup_steps}, but the training has {steps * recipe.epochs:,} steps, "
                "so the learning rate never reaches train.lr; lower train.warmup_steps"
            )
            yield Finding(f"warm-up of {name}", text, doubtful=True)


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
    """Trainings whose learning rate is usual for new heads, and spoils pre-trained weights.

    Students of the user's own Python file are left out: whether they are pre-trained is not known.
    """
    experiments: dict[float, list[str]] = {}
    for name in plan.experiments:
        student, recipe = plan.configuration.student_of(name), plan.configuration.recipe(name)
        rate = recipe.lr if recipe.tower_lr is None else recipe.tower_lr
        is_pretrained = student.trained_sides - adapter_sides(student.adapt) and not student.python_files
        if is_pretrained and rate > HIGHEST_TOWER_RATE:
            experiments.setdefault(rate, []).append(name)
    for rate, names in experiments.items():
        text = (
            f"the pre-trained weights of {', '.join(names)} are trained with the learning rate {rate:g}, which "
            "usually makes them forget what they know; set train.tower_lr, for instance to 1e-5"
        )
        yield Finding("learning rate", text, doubtful=True)


def keys_without_effect(plan: Plan) -> Iterator[Finding]:
    """Keys that are set to a value of their own, but change nothing in some trainings, or in all of them."""
    experiments: dict[str, list[str]] = {}  # most of them share the student and the recipe
    for name in plan.experiments:
        student, recipe = plan.configuration.student_of(name), plan.configuration.recipe(name)
        for sentence in _without_effect(student, recipe, student.trained_sides):
            experiments.setdefault(sentence, []).append(name)
    for sentence, names in experiments.items():
        text = f"{sentence}, so it changes nothing; leave it out"
        yield Finding(f"no effect in {', '.join(names)}", text, doubtful=True)
    if plan.configuration.shards.pixels is not None and not any(
        pixels_folder(plan.configuration.student_of(name)) for name in plan.experiments
    ):
        text = (
            "shards.pixels stores decoded images for students that read them, but every image tower is frozen and "
            "reads cached features, so nothing is stored; leave it out"
        )
        yield Finding("no effect", text, doubtful=True)


def compiling(plan: Plan) -> Iterator[Finding]:
    """Trainings on the CPU whose towers are compiled, which takes longer than many of these trainings."""
    recipes = {name: plan.configuration.recipe(name) for name in plan.experiments}
    names = [
        name
        for name, recipe in recipes.items()
        if recipe.compile and not recipe.gpus and plan.configuration.student_of(name).trained_sides
    ]
    if names:
        text = (
            "train.compile takes minutes on a CPU, before the first step of each training (four minutes were measured "
            "on two cores, for a CLIP of three layers a side); leave it false unless the steps take hours"
        )
        yield Finding(f"compiling the towers of {', '.join(names)}", text, doubtful=True)


def _without_effect(student: StudentSettings, recipe: Train, sides: set[str]) -> Iterator[str]:
    """The start of a sentence about each key of `train` that changes nothing."""
    frozen = "both towers are frozen and their features are cached"
    if recipe.compile and not sides and student.towers is not None:
        yield f"train.compile compiles the towers, but {frozen}"
    if recipe.tower_lr is not None and not sides:
        yield f"train.tower_lr is the learning rate of pre-trained towers, but {frozen}"
    if recipe.chunk_size is not None and not sides and student.towers is not None:
        yield f"train.chunk_size divides what goes through the towers, but {frozen}"
    elif recipe.chunk_size is not None and recipe.batch_size != "auto" and recipe.chunk_size >= recipe.batch_size:
        yield f"train.chunk_size {recipe.chunk_size} is no less than train.batch_size {recipe.batch_size}"
    if recipe.early_stop is not None and recipe.early_stop >= recipe.epochs:
        yield f"train.early_stop {recipe.early_stop} is no less than train.epochs {recipe.epochs}"
    if recipe.gather == "global" and recipe.processes == 1:
        yield "train.gather is global, but one process trains (gpus, cpu_processes, nodes)"
    if recipe.cpu_processes > 1 and recipe.gpus:
        yield f"train.cpu_processes is {recipe.cpu_processes}, but train.gpus is {recipe.gpus}"


def not_trainable(run: str, student: Student, recipe: Train) -> Iterator[Finding]:
    """Whether a training would stop at the student, because its layers do not suit the recipe."""
    from cusa.training.checkpointing import checkpoint_towers
    from cusa.training.sharding import require_shardable
    from cusa.training.step import require_chunkable

    try:
        require_chunkable(student, recipe)
        if recipe.shard_student:
            require_shardable(student.backbone)
        if recipe.checkpoint_towers:
            checkpoint_towers(student)
    except CusaError as error:
        yield Finding(f"training of {run}", str(error), sound=False)


def shared_images(run: str, student: Student, recipe: Train) -> Iterator[Finding]:
    """Whether `train.captions_per_image` saves anything: each image is encoded once for the captions of a batch."""
    from cusa.training.step import batch_normalisation

    if recipe.captions_per_image == 1:
        return
    why = None
    if student.backbone.image_transform is None:
        why = "the image tower is frozen and its features are cached"
    elif batch_normalisation(student):
        why = "the student normalises over the batch (BatchNorm), whose statistics are those of all pairs"
    elif recipe.augmentation is not None and recipe.augmentation.image is not None:
        why = "train.augmentation.image changes the picture of each pair"
    if why is not None:
        text = (
            f"train.captions_per_image is {recipe.captions_per_image}, but {why}, so nothing is saved, "
            "and batches only have fewer images; set it to 1 to have more negatives"
        )
        yield Finding(f"captions of an image in {run}", text, doubtful=True)
