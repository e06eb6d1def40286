"""Finds the part of a training that takes most of the time, and gives advice about it."""

from __future__ import annotations

from collections.abc import Iterator

from cusa.common.compute import has_instructions
from cusa.config.experiments import RunConfiguration
from cusa.training.profiling import StepProfile
from cusa.training.timeline import Part

# Shares of a step above which a part other than the towers is the bottleneck. The towers' time is always needed.
LIMITS: dict[Part, float] = {
    "data": 0.1,
    "gather": 0.15,
    "heads and loss": 0.25,
    "optimiser": 0.25,
    "host": 0.25,
}
GOOD_UTILISATION = 0.4
LARGE_BATCH = 1024  # pairs, from which on comparing all of them takes noticeable time
TOWERS = ("image", "text")
NAMES: dict[Part, str] = {
    "data": "loading data",
    "image tower": "the image tower",
    "text tower": "the text tower",
    "heads and loss": "the heads and the losses",
    "gather": "what the processes tell each other",
    "optimiser": "the optimiser",
    "host": "the program itself (host)",
}


def bottleneck(profile: StepProfile) -> Part:
    """The part to improve first: the largest of those that take more than their share in LIMITS, else a tower.

    On a GPU, the time in which nothing is computed counts as `host`, without that of waiting for data.
    """
    shares = shares_of(profile)
    over = {part: shares[part] for part, limit in LIMITS.items() if shares[part] > limit}
    if over:
        return max(over, key=lambda part: over[part])
    if not (shares["image tower"] or shares["text tower"]):  # both are frozen, and their features are read
        return max(LIMITS, key=lambda part: shares[part])
    return "image tower" if shares["image tower"] >= shares["text tower"] else "text tower"


def shares_of(profile: StepProfile) -> dict[Part, float]:
    """The share of each part in the time of a step; see `bottleneck` for `host`."""
    total = max(sum(profile.parts.values()), 1e-12)
    shares = {part: seconds / total for part, seconds in profile.parts.items()}
    if profile.device_busy is not None:
        shares["host"] = max(shares["host"], 1 - profile.device_busy - shares["data"])
    return shares


def advice(profile: StepProfile, configuration: RunConfiguration) -> Iterator[str]:
    """Advice what to change, a sentence each, the most useful first."""
    part, settings = bottleneck(profile), configuration.train
    on_gpu = profile.device != "cpu"
    frozen = frozen_towers(configuration)
    if part == "data" and "image" in frozen:
        yield f"Keep the results on a local disk, or raise train.workers (it is {settings.workers}): features are read."
        return
    if part == "data":
        yield (
            f"Raise train.workers (it is {settings.workers}): {'each' if settings.workers else 'none'} of them decodes "
            "images beside the training; give the job as many cores."
        )
        yield (
            "shards: {pixels: memory-map} decodes each image once for all epochs, and shards.shorter_side makes them "
            "as small as the student reads them, if these are not set yet."
        )
        return
    if part == "gather":
        yield "Raise train.batch_size or train.accumulate, so that processes meet less often for the same pairs."
        if settings.gather == "global":
            yield "train.gather: local exchanges gradients only; the loss then sees the pairs of one process."
        return
    if part == "heads and loss":
        unicom = None if configuration.teachers is None else configuration.teachers.image.unicom
        long = "image" in configuration.losses.teachers and unicom is not None and unicom.features == "tokens"
        large = isinstance(settings.batch_size, int) and settings.batch_size >= LARGE_BATCH
        if long:
            yield (
                "Use teacher features with fewer numbers: Unicom's `embedding` has some hundred, its `tokens` tens of "
                "thousands (teachers.image.unicom.features)."
            )
        if large:
            yield "Lower train.batch_size: the comparisons grow with its square."
        if not (long or large):
            yield "The towers are small or frozen, so a step computes little else, and there is little to gain."
        return
    if part == "optimiser":
        yield "Raise train.batch_size or train.accumulate, so that weights change less often for the same pairs."
        if configuration.student.trained_sides - adapted_sides(configuration):
            yield "student.adapt trains part of the weights; the optimiser then has less to change."
        return
    if part == "host":
        yield "Raise train.batch_size: the steps are so small that starting their work takes longer than the work."
        return
    if part.split()[0] in frozen:
        yield "Both towers are frozen and their features are read, so there is nothing to change about them."
        return
    yield from _of_towers(part, profile, configuration, on_gpu)


def frozen_towers(configuration: RunConfiguration) -> set[str]:
    """The sides of a pair of towers that compute nothing in a step, because their features are cached."""
    towers = configuration.student.towers
    return set() if towers is None else {side for side in TOWERS if not getattr(towers, side).trainable}


def adapted_sides(configuration: RunConfiguration) -> set[str]:
    """The sides of which student.adapt already trains only a part of the weights."""
    adapt = configuration.student.adapt
    return set() if adapt is None else set(adapt.sides)


def _of_towers(part: Part, profile: StepProfile, configuration: RunConfiguration, on_gpu: bool) -> Iterator[str]:
    settings, side = configuration.train, part.split()[0]
    utilisation = profile.speeds["mfu"]
    if not on_gpu and not has_instructions("cpu", settings.precision):
        yield f"train.precision: fp32 is faster: this processor has no instructions for {settings.precision}."
    elif settings.precision == "fp32":
        if on_gpu or has_instructions("cpu", "bf16"):
            hardware = "the GPU's matrix units" if on_gpu else "instructions of this processor"
            yield f"train.precision: bf16 uses {hardware}; losses and weights stay in fp32."
    elif utilisation is not None and utilisation >= GOOD_UTILISATION:
        yield f"The GPU does {100 * utilisation:.0f} % of what it can do at most, which is good; change nothing."
        return
    if side == "image" and settings.captions_per_image == 1:
        yield (
            "train.captions_per_image: all encodes an image once for all of its captions, where the data have several; "
            "docs/method.md in cusa's repository says what that does to what is learned."
        )
    if on_gpu and not settings.compile:
        yield "train.compile: true fuses the towers' small operations; it takes a minute or so before the first step."
    if settings.checkpoint_towers:
        yield "train.checkpoint_towers computes the towers twice; leave it false if the memory allows it."
    if on_gpu and settings.chunk_size is not None:
        yield "train.chunk_size computes the towers twice; leave it null if a smaller train.batch_size will do."
    elif on_gpu:
        yield "Raise train.batch_size while the memory allows it."
    if side in adapted_sides(configuration):
        yield f"student.adapt already trains less of the {side} tower; a smaller student costs less."
    elif side in configuration.student.trained_sides:
        frozen = "student.adapt" if configuration.student.towers is None else f"student.towers.{side}.trainable: false"
        yield f"{frozen} trains less of the {side} tower, and costs less."
