"""The files and folders that a configuration names, and whether they exist."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from cusa.common.files import expanded
from cusa.common.registry import is_file
from cusa.config.configuration import Configuration
from cusa.config.data_files import matching_files
from cusa.config.models import is_path, is_weights_file
from cusa.config.paths import exists
from cusa.errors import ConfigurationError

GALLERY_ENDINGS = ("",)  # the reader of a gallery decides which kinds of files it may have


def check_files(configuration: Configuration) -> None:
    """Raise ConfigurationError with a line for each file or folder that is named but does not exist.

    The name of a model or of an input format is checked if it is a path; names on a hub are not checked.
    """
    named = [*_named_data(configuration), *_named_models(configuration)]
    if problems := [
        f"Configuration key `{key}` names {path or 'an empty path'}, which {why}." for key, path, why in named if why
    ]:
        raise ConfigurationError("\n".join(problems))


def _why_not(path: str, expected: Literal["file", "folder", "either"] = "either") -> str:
    """Why a path is not the expected file or folder, as the end of a sentence; empty if it is."""
    if not path:
        return f"names no {'file or folder' if expected == 'either' else expected}"
    try:
        is_folder = stat.S_ISDIR(expanded(path).stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        if "://" in path:
            return "is an address; download it, and name the file or folder"
        return f"does not exist (relative paths start at {Path.cwd()})"
    except (OSError, ValueError) as error:
        return f"cannot be looked at ({getattr(error, 'strerror', None) or error})"
    if expected == ("file" if is_folder else "folder"):
        return f"is {'a folder' if is_folder else 'a file'}; expected a {expected}"
    return ""


def _why_no_gallery(place: str) -> str:
    """Why nothing can be read from the place of a gallery, as the end of a sentence; empty if it can."""
    if not any(sign in place for sign in "{*?[") or exists(place):
        return _why_not(place)
    try:
        found = any(exists(path) for path in matching_files(place, GALLERY_ENDINGS))
    except ValueError as error:
        return f"cannot be a pattern of files: {error}"
    return "" if found else f"matches no file (relative paths start at {Path.cwd()})"


def _named_data(configuration: Configuration) -> Iterator[tuple[str, str, str]]:
    """Files and folders of data, checkpoints and benchmarks: each with its key, and why it is not there."""
    dataset = configuration.dataset
    for key, path in dataset.files.items():
        yield f"dataset.{key}", path, _why_not(path, "file")
    for key, path in dataset.folders.items():
        yield f"dataset.{key}", path, _why_not(path, "folder")
    for name, checkpoint in configuration.active_checkpoints.items():
        yield f"checkpoints.{name}.file", checkpoint.file, _why_not(checkpoint.file, "file")
    if configuration.search is not None and configuration.search.is_own_gallery:
        yield "search.gallery", configuration.search.gallery, _why_no_gallery(configuration.search.gallery)
    for key, path in configuration.benchmarks.files.items():
        yield f"benchmarks.{key}", path, _why_not(path, "file")
    for name, benchmark in configuration.benchmarks.added.items():
        if is_file(benchmark.module):
            yield f"benchmarks.more.{name}.file", benchmark.module, _why_not(benchmark.module, "file")


def _named_models(configuration: Configuration) -> Iterator[tuple[str, str, str]]:
    """Models whose name is a path: each with its key, and why it is not there."""
    teachers = configuration.teachers
    if (unicom := teachers.image.unicom) is not None and unicom.weights is not None:
        yield "teachers.image.unicom.weights", unicom.weights, _why_not(unicom.weights, "file")
    named = [("teachers.image.name", teachers.image.name), ("teachers.text.name", teachers.text.name)]
    named += [(f"teachers.more.image.{place}.name", each.name) for place, each in enumerate(teachers.more.image)]
    named += [(f"teachers.more.text.{place}.name", each.name) for place, each in enumerate(teachers.more.text)]
    named += [(f"checkpoints.{name}.student", each.student) for name, each in configuration.active_checkpoints.items()]
    own = {f"experiments.{name}.student": each.student for name, each in configuration.experiments.items() if each}
    for key, student in {"student": configuration.student, **own}.items():
        if student is not None and student.name is not None:
            named.append((f"{key}.name", student.name))
        if student is not None and student.pretrained is not None and is_weights_file(student.pretrained):
            yield f"{key}.pretrained", student.pretrained, _why_not(student.pretrained, "file")
        if student is not None and student.towers is not None:
            named.append((f"{key}.towers.image.name", student.towers.image.name))
            named.append((f"{key}.towers.text.name", student.towers.text.name))
    yield from ((key, name, _why_not(name)) for key, name in named if is_path(name))
