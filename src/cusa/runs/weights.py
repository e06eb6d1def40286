"""The weights of a run: best.safetensors."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cusa.common.files import whole_file
from cusa.config.experiments import RunConfiguration
from cusa.errors import DataError
from cusa.runs.record import RUN, WEIGHTS, RunRecord
from cusa.student.backbones import FrozenDimensions
from cusa.student.student import Student, build_student

STUDENT_PREFIX = "student."


def save_weights(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a state dict atomically as a safetensors file."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with whole_file(path) as temporary:
        save_file(plain, temporary, metadata)


def load_student(folder: str | Path) -> tuple[Student, RunConfiguration]:
    """The student of a run folder, in eval mode on the CPU, and the configuration of the run.

    Raises DataError when the weights are missing, damaged, or do not fit the student in run.json.
    """
    configuration = RunRecord.read(folder).configuration
    path = Path(folder) / WEIGHTS
    weights = student_tensors(path, missing="run `snakemake models` first", damaged="train the run again")
    frozen = frozen_dimensions_of(weights) if configuration.student.towers is not None else FrozenDimensions()
    student = build_student(configuration.student, configuration.losses, frozen)
    try:
        student.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} does not fit the student that {folder}/{RUN} describes ({reason[:400]}); train the run again."
        ) from None
    return student.eval(), configuration


def student_tensors(path: Path, missing: str, damaged: str) -> dict[str, Tensor]:
    """The student's tensors in a safetensors file, by their names in the student.

    Raises DataError where the file does not exist or is damaged; `missing` and `damaged` say what to do then.
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
    """The lengths of the features that a pair of towers projects; 0 where it has no projection."""
    projections = (weights.get(f"backbone.{modality}_projection.weight") for modality in ("image", "text"))
    image, text = (0 if projection is None else projection.shape[1] for projection in projections)
    return FrozenDimensions(image, text)
