"""A folder that `cusa export --to safetensors` wrote, as a model: by torch, and without the results folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from cusa.config.experiments import RunConfiguration
from cusa.config.losses import HeadName
from cusa.config.models import StudentSettings
from cusa.errors import ConfigurationError, DataError
from cusa.model.exported import EXPORT, Exported, exported_again
from cusa.model.interface import HEADS
from cusa.model.run_model import FrozenTowers, Model, chosen_device
from cusa.runs.weights import frozen_dimensions_of, student_tensors
from cusa.student.open_clip_models import OpenClip
from cusa.student.registry import OPEN_CLIP_MODELS, STUDENTS
from cusa.student.student import Student, build_student
from cusa.teachers.encoders import ImageEncoder, TextEncoder, weights_sha256

if TYPE_CHECKING:
    import torch

    from cusa.common.compute import Precision

WEIGHTS = "model.safetensors"
STUDENT, IMAGE_TOWER, TEXT_TOWER = "student", "image_tower", "text_tower"

# The prefixes of tensor names of the models that have their own folders.
PREFIX_OF = {
    STUDENT: "backbone.model.",
    IMAGE_TOWER: "backbone.image_tower.",
    TEXT_TOWER: "backbone.text_tower.",
}


class SafetensorsExported(Exported):
    """The content of cusa.json in a safetensors folder."""

    configuration: RunConfiguration = Field(description="That of the run, with the names that its models had there.")
    folders: dict[str, str] = Field(
        description=f"The folders of the models that are here in the form of their own library, of {STUDENT}, "
        f"{IMAGE_TOWER} and {TEXT_TOWER}."
    )
    named: dict[str, str] = Field(
        description="The SHA-256 of the weights of the models that come from a package, by the same names."
    )


def load_safetensors(
    folder: Path, device: str | torch.device | None = None, precision: Precision | None = None
) -> Model:
    """The model of an exported folder of safetensors. For its arguments and errors see cusa.model.load."""
    chosen, about = chosen_device(device), SafetensorsExported.read(folder)
    configuration = about.configuration.model_copy(update={"student": located(about, folder)})
    frozen = FrozenTowers.load(configuration.student)
    _require_same_weights(about, frozen, folder)
    student = _student(about, configuration, folder)
    precision = precision or configuration.train.precision
    model = Model(student, frozen, configuration, about.shards, folder, about.weights_sha256, chosen, precision)
    model.heads = about.heads
    return model


def located(about: SafetensorsExported, folder: Path) -> StudentSettings:
    """The settings of the student with the paths of the models that lie in the folder."""
    settings = about.configuration.student
    places = {name: str((folder / place).absolute()) for name, place in about.folders.items()}
    if settings.towers is None:
        # The weights of open_clip's architectures lie in the folder too.
        return settings.model_copy(update={"name": places[STUDENT], "pretrained": None} if STUDENT in places else {})
    image, text = settings.towers.image, settings.towers.text
    if (place := places.get(IMAGE_TOWER)) is not None and image.unicom is not None:
        image = image.model_copy(update={"unicom": image.unicom.model_copy(update={"weights": place})})
    elif place is not None:
        image = image.model_copy(update={"name": place})
    text = text.model_copy(update={"name": places.get(TEXT_TOWER, text.name)})
    return settings.model_copy(update={"towers": settings.towers.model_copy(update={"image": image, "text": text})})


def left_out(folders: Iterable[str], heads: Sequence[HeadName]) -> tuple[str, ...]:
    """The prefixes of the student's tensors that are not in WEIGHTS: those of folders, and of other heads."""
    others = (f"heads.{head}_" for head in HEADS if head not in heads)
    return (*(PREFIX_OF[name] for name in folders), *others)


def _student(about: SafetensorsExported, configuration: RunConfiguration, folder: Path) -> Student:
    """The student, with what is not in the folder of a model read from WEIGHTS."""
    path = folder / WEIGHTS
    advice = exported_again(folder).rstrip(".")
    weights = student_tensors(path, missing=advice, damaged=advice)
    settings, losses = configuration.student, configuration.losses
    if settings.name is not None and STUDENTS.modules.get(settings.name) == OPEN_CLIP_MODELS:
        student = Student(OpenClip.load(settings, weights=False).float(), losses)
    else:
        student = build_student(settings, losses, frozen_dimensions_of(weights))
    read = student.load_state_dict(weights, strict=False)
    missing = [name for name in read.missing_keys if not name.startswith(left_out(about.folders, about.heads))]
    if missing or read.unexpected_keys:
        found = f"lacks {len(missing)} tensors and has {len(read.unexpected_keys)} others"
        example = (*missing, *read.unexpected_keys)[0]
        raise DataError(
            f"{path} does not fit the student that {folder}/{EXPORT} describes (it {found}, for instance {example}); "
            f"{exported_again(folder)}"
        )
    return student.eval()


def _require_same_weights(about: SafetensorsExported, frozen: FrozenTowers, folder: Path) -> None:
    """Raise ConfigurationError if a frozen model of a package has other weights than the run had."""
    encoders: dict[str, ImageEncoder | TextEncoder | None] = {IMAGE_TOWER: frozen.image, TEXT_TOWER: frozen.text}
    for name, expected in about.named.items():
        encoder = encoders.get(name)
        if encoder is not None and (found := weights_sha256(encoder)) != expected:
            raise ConfigurationError(
                f"{folder} was exported with the model {encoder.name}, whose weights had the sha256 {expected}; those "
                f"that are installed here have {found}. Install the version that {folder}/{EXPORT} names."
            )
