"""The weights of a run: best.safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cusa.common.files import atomic_file
from cusa.common.workflow_files import workflow_command
from cusa.config.experiments import RunConfiguration
from cusa.errors import DataError
from cusa.runs.record import BASE_SHA256, RUN, WEIGHTS, RunRecord, trained_again
from cusa.student.backbones import FrozenDimensions
from cusa.student.student import Student, build_student

STUDENT_PREFIX = "student."


def save_weights(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a state dict atomically as a safetensors file, the same bytes for the same tensors and metadata."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_file(path) as temporary:
        save_file(plain, temporary, metadata)
        if len(metadata) > 1:
            _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order: the library writes them in another order each time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(content.ljust(size))


def load_student(folder: str | Path) -> tuple[Student, RunConfiguration]:
    """The student of a run folder, in eval mode on the CPU, and the configuration of the run.

    If the run has trained only a part of the student, the rest is loaded from the student's pre-trained weights, and
    adapters are merged; the configuration then has no `student.adapt`. Raises DataError when the weights are missing,
    damaged, or do not fit the student in run.json, and when the rest differs from that of the training.
    """
    configuration = RunRecord.read(folder).configuration
    path = Path(folder) / WEIGHTS
    missing = f"run `{workflow_command('models')}` first"
    weights = student_tensors(path, missing=missing, damaged=trained_again(path).rstrip("."))
    frozen = frozen_dimensions_of(weights) if configuration.student.towers is not None else FrozenDimensions()
    student = build_student(configuration.student, configuration.losses, frozen)
    frozen_names = student.frozen_names()
    _require_base(student, path)
    try:
        student.load_state_dict(
            {name: value for name, value in student.state_dict().items() if name in frozen_names} | weights
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} does not fit the student that {folder}/{RUN} describes ({reason[:400]}); {trained_again(path)}"
        ) from None
    student.merge()
    return student.eval(), configuration.model_copy(update={"student": configuration.student.whole})


def _require_base(student: Student, path: Path) -> None:
    """Raise DataError unless the frozen weights are those that the trained ones belong to."""
    if student.base is None:
        return
    with safe_open(path, framework="pt") as file:
        expected = (file.metadata() or {}).get(BASE_SHA256)
    if student.base.sha256 != expected:
        raise DataError(
            f"{path} has what was trained beside frozen weights whose sha256 is {expected}, but those of the student "
            f"that is loaded here have {student.base.sha256}: it is another version of the model, or another model of "
            "its name. Put the model back that the run was trained from, or train the run again."
        )


def student_tensors(path: Path, missing: str, damaged: str) -> dict[str, Tensor]:
    """The student's tensors in a safetensors file, by their names in the student.

    Raises DataError if the file does not exist or is damaged; `missing` and `damaged` say what to do then.
    """
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; {missing}.") from None
    except SafetensorError as error:
        raise DataError(f"{path} is not a complete safetensors file ({error}); {damaged}.") from None
    return {
        name.removeprefix(STUDENT_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(STUDENT_PREFIX)
    }


def frozen_dimensions_of(weights: dict[str, Tensor]) -> FrozenDimensions:
    """The lengths of the features that a pair of towers projects; 0 if it has no projection."""
    projections = (weights.get(f"backbone.{modality}_projection.weight") for modality in ("image", "text"))
    image, text = (0 if projection is None else projection.shape[1] for projection in projections)
    return FrozenDimensions(image, text)
