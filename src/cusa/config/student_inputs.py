"""The cached pixels and tokens of students: the names of their folders, which their content determines."""

from __future__ import annotations

import hashlib
import json

from cusa.config.experiments import RunConfiguration
from cusa.config.models import StudentSettings, folder_name

# Whole pictures as the shards store them, for trainings that cut out random parts. They are the same for all students.
WHOLE_PICTURES = "whole-pictures"


def pixels_folder(student: StudentSettings) -> str | None:
    """The folder of a student's cached pixels; None for a frozen image tower, which reads features."""
    if student.towers is None:
        return _named(student, ("pretrained",))
    return student.towers.image.folder if student.towers.image.trainable else None


def tokens_folder(student: StudentSettings) -> str | None:
    """The folder of a student's cached tokens; None for a frozen text tower, which reads features."""
    if student.towers is None:
        return _named(student, ("pretrained", "max_tokens", "stretch_positions"))
    tower = student.towers.text
    return f"{tower.folder}-{student.max_tokens}-tokens" if tower.trainable else None


def reads_whole_pictures(run: RunConfiguration) -> bool:
    """Whether a training cuts random parts out of the pictures of train."""
    augmentation = run.train.augmentation
    return augmentation is not None and augmentation.image is not None and pixels_folder(run.student) is not None


def _named(student: StudentSettings, keys: tuple[str, ...]) -> str:
    """A folder for a student with a name, which another value of one of `keys` changes."""
    assert student.name is not None
    values = json.dumps([student.name, *(getattr(student, key) for key in keys)])
    return f"{folder_name(student.name)}-{hashlib.sha256(values.encode()).hexdigest()[:8]}"
