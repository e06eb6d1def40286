"""Run folders of every kind of student, made without training: random heads and projections are as good to export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from published_files import checkpoint_of, clip_with_heads_of_64

from cusa.common.files import sha256_of_file
from cusa.config.configuration import load
from cusa.layout import DatasetFolder
from cusa.runs.baseline import write_baseline
from cusa.runs.record import WEIGHTS, RunRecord
from cusa.runs.weights import STUDENT_PREFIX, save_weights
from cusa.student.backbones import FrozenDimensions
from cusa.student.student import build_student
from cusa.upstream.checkpoints import import_checkpoint

NOTHING_FROZEN = FrozenDimensions()


def untrained_run(
    data: Path,
    configuration: Mapping[str, Any],
    student: Mapping[str, Any],
    name: str,
    frozen: FrozenDimensions = NOTHING_FROZEN,
    **captions: Any,
) -> Path:
    """The folder of a run on the data set's folder `data`, whose student has all four heads."""
    changed = {**configuration, "student": {"name": None, "towers": None} | dict(student)}
    if captions:
        changed["captions"] = captions
    settings = load(changed).run("cusa", 23)
    torch.manual_seed(0)
    built = build_student(settings.student, settings.losses, frozen)
    for parameter in built.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = DatasetFolder(data).run(name, 23)
    tensors = {f"{STUDENT_PREFIX}{key}": tensor for key, tensor in built.state_dict().items()}
    save_weights(folder / WEIGHTS, tensors, {})
    RunRecord(
        configuration=settings,
        selected_epoch=0,
        selected_because="a test says so",
        epochs=1,
        processes=1,
        device="cpu",
        seconds=1.0,
        weights_sha256=sha256_of_file(folder / WEIGHTS),
        versions={},
    ).write(folder)
    return folder


def tower(name: Path | str, trainable: bool = True, **keys: Any) -> dict[str, Any]:
    """The settings of a tower."""
    return {"name": str(name), "trainable": trainable, **keys}


def clip_run(get: Callable[[str], Any]) -> Path:
    """A CLIP of Hugging Face."""
    return untrained_run(get("shapes_data"), get("tiny_configuration"), {"name": str(get("tiny_clip"))}, "a_clip")


def siglip_run(get: Callable[[str], Any]) -> Path:
    """A SigLIP, whose texts have a fixed length."""
    return untrained_run(get("shapes_data"), get("tiny_configuration"), {"name": str(get("tiny_siglip"))}, "a_siglip")


def towers_run(get: Callable[[str], Any]) -> Path:
    """A pair of trainable towers, and captions that are not cleaned."""
    towers = {"image": tower(get("tiny_vision")), "text": tower(get("tiny_sentences")), "dimension": 12}
    student = {"towers": towers, "max_tokens": 9}
    return untrained_run(get("shapes_data"), get("tiny_configuration"), student, "some_towers", clean="none")


def demo_run(get: Callable[[str], Any]) -> Path:
    """The demo's towers: frozen EfficientNet-Lite0 and MiniLM of packages."""
    image = tower("efficientnet-lite0", trainable=False, image_size=64)
    towers = {"image": image, "text": tower("all-MiniLM-L6-v2", trainable=False), "dimension": 16}
    frozen = FrozenDimensions(1280, 384)
    return untrained_run(get("shapes_data"), get("tiny_configuration"), {"towers": towers}, "as_the_demo", frozen)


def imported_run(get: Callable[[str], Any]) -> Path:
    """A published checkpoint that was imported."""
    folder = get("tmp_path_factory").mktemp("imported")
    clip = clip_with_heads_of_64(get("tiny_clip"), folder / "clip")
    run = DatasetFolder(get("shapes_data")).run(f"theirs_{folder.name}", 23)  # an import overwrites none
    import_checkpoint(checkpoint_of(clip, folder / "checkpoint_best.pth"), run, "shapes", str(clip))
    return run


def zero_shot_run(get: Callable[[str], Any]) -> Path:
    """The baseline zero_shot, which has no heads."""
    experiments = {"zero": {"baseline": "zero_shot"}}
    configuration = load({**get("tiny_configuration"), "experiments": experiments}).run("zero", 23)
    run = DatasetFolder(get("shapes_data")).run("zero_to_export", 23)
    write_baseline(run, configuration)
    return run


RUNS: dict[str, Callable[[Callable[[str], Any]], Path]] = {
    "clip": clip_run,
    "siglip": siglip_run,
    "towers": towers_run,
    "demo": demo_run,
    "imported": imported_run,
    "zero_shot": zero_shot_run,
}
