"""Published checkpoints: loaded as a student, or imported as a run folder that every benchmark can score.

A checkpoint is loaded as tensors and plain values. No code from the file is executed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cusa.common.files import DAMAGED, read_tensors, sha256_of_file
from cusa.common.versions import versions
from cusa.config.experiments import RunConfiguration
from cusa.config.losses import Contrastive, LossConfiguration, UniSoftLabel
from cusa.config.models import StudentSettings
from cusa.config.training import Train
from cusa.errors import DataError, reason_of
from cusa.runs.record import HISTORY, WEIGHTS, ImportedFile, RunRecord, write_history
from cusa.runs.weights import STUDENT_PREFIX, save_weights
from cusa.student.dual_encoder import DualEncoder
from cusa.student.student import Student, build_student
from cusa.teachers.state_dicts import WRAPPED_UNDER, require_finite, state_dict_of
from cusa.teachers.transform import CLIP_MEAN, CLIP_STD, ImageTransform
from cusa.upstream.configurations import loss_config
from cusa.upstream.openai_clip import CLIP, clip_configuration, hugging_face_names

log = logging.getLogger(__name__)

PUBLISHED_EPOCHS = 30
LOGIT_SCALE = "logit_scale"
RESNET, HUGGING_FACE = "visual.layer1.", "vision_model."  # beginnings of names in other CLIPs
HEAD_ENDINGS = ("_projection.weight", "_projection.bias")
LONGEST_REASON = 400  # characters of PyTorch's message that are shown


@dataclass(frozen=True)
class PublishedCheckpoint:
    """The content of a published checkpoint_best.pth: its tensors by name, its epoch, and its configuration if any."""

    path: Path
    state: Mapping[str, Tensor]
    configuration: Mapping[str, Any]
    epoch: int

    @classmethod
    def read(cls, path: str | Path) -> PublishedCheckpoint:
        """Read a checkpoint: its state dict under `model` or `state_dict`, or the state dict alone.

        Raises DataError when the file holds other things than tensors and plain values, or no CLIP.
        """
        content = read_tensors(path)
        state = state_dict_of(content, str(path))
        if state is None or not any(name.startswith(CLIP) for name in state):
            raise DataError(
                f"{path} has no state dict with tensors named `{CLIP}...`, alone or under one of the keys "
                f"{', '.join(WRAPPED_UNDER)}; expected the published checkpoint_best.pth. Weights of open_clip are "
                "given as student.pretrained."
            )
        require_finite(state, str(path))
        if several := [name for name, tensor in state.items() if "tau" in name and tensor.numel() != 1]:
            raise DataError(
                f"{path}: `{several[0]}` has {state[several[0]].numel()} numbers; expected the published "
                "checkpoint_best.pth, in which a temperature has one."
            )
        configuration = content.get("config")
        epoch = next((content[key] for key in ("best_epoch", "epoch") if content.get(key) is not None), None)
        return cls(
            path=Path(path),
            state=state,
            configuration=configuration if isinstance(configuration, Mapping) else {},
            epoch=_epoch(epoch, path),
        )

    @property
    def losses_of_heads(self) -> LossConfiguration:
        """The losses that train the heads in the file, with published settings; the tensors do not say more."""
        has_uni = "uni_image_projection.weight" in self.state
        has_cross = "cross_image_projection.weight" in self.state or not has_uni
        return LossConfiguration(
            contrastive=Contrastive() if has_cross else None, uni_softlabel=UniSoftLabel() if has_uni else None
        )

    @property
    def losses(self) -> LossConfiguration:
        """The losses that it was trained with: those of its configuration if it has one, else those of its heads."""
        published = self.configuration.get("loss_config")
        with self._own_configuration():
            return self.losses_of_heads if published is None else loss_config(published)

    @property
    def epochs(self) -> int:
        """The number of epochs in its configuration; the published number if it has none."""
        with self._own_configuration():
            return int((self.configuration.get("schedular") or {}).get("epochs", PUBLISHED_EPOCHS))

    @contextmanager
    def _own_configuration(self) -> Iterator[None]:
        """Raise DataError if the block finds something else in the configuration than the published code puts there."""
        try:
            yield
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.path}: its `config` is not that of the published code ({type(error).__name__}: "
                f"{reason_of(error)}); expected the published checkpoint_best.pth, or one without `config`."
            ) from None

    @property
    def temperatures(self) -> dict[str, float]:
        """The learned temperatures, by their published names."""
        return {name: float(tensor) for name, tensor in self.state.items() if "tau" in name}

    def student(self) -> Student:
        """The student with these weights, in eval mode, float32, on the CPU. Its sizes come from the tensors."""
        from transformers import CLIPModel

        clip = {name.removeprefix(CLIP): tensor for name, tensor in self.state.items() if name.startswith(CLIP)}
        try:
            model: Any = CLIPModel(clip_configuration(clip))
            # The authors' CLIP has no logit_scale. The losses have temperatures of their own, so it is never used.
            unused = {LOGIT_SCALE: model.state_dict()[LOGIT_SCALE]}
            model.load_state_dict(unused | hugging_face_names(clip))
            side = model.config.vision_config.image_size
            transform = ImageTransform(side, side, CLIP_MEAN, CLIP_STD)
            backbone = DualEncoder(model, None, transform, model.config.text_config.max_position_embeddings)
            student = Student(backbone, self.losses_of_heads)
            student.heads.load_state_dict(self._heads(student.heads))
        except DAMAGED as error:
            raise DataError(
                f"{self.path} is not a checkpoint of the published code ({_why_no_clip(clip, error)}); expected the "
                "published checkpoint_best.pth."
            ) from None
        return student.float().eval()

    def _heads(self, names: Any) -> dict[str, Tensor]:
        """The tensors of the heads under this project's names: a head is a LayerNorm (0) and then a Linear (1)."""
        return {
            f"{name}.{layer}.{kind}": self.state[f"{prefix}{name}_projection.{kind}"]
            for name in names
            for layer, prefix in enumerate(("ln_", ""))
            for kind in ("weight", "bias")
        }


def _epoch(value: object, path: str | Path) -> int:
    """An epoch as a checkpoint has it: a number, perhaps in a tensor or as text; 0 for none, and for anything else."""
    found = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if isinstance(found, str) and found.strip().isdecimal():
        found = int(found)
    if isinstance(found, int | float) and math.isfinite(found) and found >= 0:
        return int(found)
    if value is not None:
        log.warning("%s: its epoch is %.80r, which is no number from 0; 0 is recorded", path, value)
    return 0


def load_checkpoint(path: str | Path) -> Student:
    """Load a published checkpoint as a student, in eval mode, float32, on the CPU. Its sizes come from the tensors.

    `encode_image(pixels, head)` takes uint8 pixels or normalised floats [B, 3, H, W], `encode_text(input_ids, head)`
    int64 token ids [B, T] of CLIP's tokeniser; `head` is "cross" or "uni". Both return float32 [B, D], not normalised.
    If the checkpoint has no such head, they return the backbone's features. Raises DataError for a file that holds
    other things than tensors and plain values, or is not a published checkpoint.
    """
    return PublishedCheckpoint.read(path).student()


def import_checkpoint(
    path: str | Path, run: str | Path, dataset: str, student: str, seed: int = 23, gpus: int = 0
) -> None:
    """Import a published checkpoint as the run folder `run`; `embed` and every benchmark work on it.

    `student` is the CLIP that was fine-tuned, by its published name, its Hugging Face name or its folder; its tokeniser
    and image transform are used. `run` is {experiment}/seed{n}, and its parent's name is the name of the experiment.
    `gpus` is the value of train.gpus in run.json: above 0, `embed` uses a GPU by default. The workflow instead passes
    the choice, by train.gpus of its configuration. Raises DataError when the weights do not fit `student`, and when the
    run exists already.
    """
    run = Path(run)
    if (run / WEIGHTS).exists():
        raise DataError(f"{run / WEIGHTS} exists already; name another folder, nothing is overwritten.")
    checkpoint = PublishedCheckpoint.read(path)
    imported = checkpoint.student()
    configuration = RunConfiguration(
        dataset=dataset,
        experiment=run.parent.name,
        seed=seed,
        student=StudentSettings(name=student),
        losses=checkpoint.losses,
        teachers=None,
        train=Train(epochs=checkpoint.epochs, select_on="test_leak_as_published", gpus=gpus),
    )
    _require_fit(imported, configuration, checkpoint)
    _write_run(run, imported, configuration, checkpoint)


def _require_fit(imported: Student, configuration: RunConfiguration, checkpoint: PublishedCheckpoint) -> None:
    """Raise DataError unless the weights fit the student that the configuration builds, as `load_student` does."""
    built = build_student(configuration.student, configuration.losses)
    try:
        built.load_state_dict(imported.state_dict())
    except RuntimeError as error:
        name = configuration.student.name
        raise DataError(
            f"the weights of {checkpoint.path} do not fit the student {name} ({_reason(error)}); as the student, give "
            "the CLIP that the checkpoint was fine-tuned from."
        ) from None


def _write_run(run: Path, imported: Student, configuration: RunConfiguration, checkpoint: PublishedCheckpoint) -> None:
    epoch, file = checkpoint.epoch, checkpoint.path
    tensors = {f"{STUDENT_PREFIX}{name}": tensor for name, tensor in imported.state_dict().items()}
    save_weights(run / WEIGHTS, tensors, {"epoch": str(epoch)})
    write_history(run / HISTORY, [{"kind": "imported", "epoch": epoch, "step": 0}])
    RunRecord(
        configuration=configuration,
        selected_epoch=epoch,
        selected_because=f"imported from {file.name}, whose code selects on the test set",
        imported_from=ImportedFile(file=file.name, sha256=sha256_of_file(file)),
        temperatures=checkpoint.temperatures,
        epochs=epoch + 1,
        processes=1,
        device="elsewhere",
        seconds=0.0,
        weights_sha256=sha256_of_file(run / WEIGHTS),
        versions=versions(),
    ).write(run)


def _why_no_clip(clip: Mapping[str, Tensor], error: Exception) -> str:
    """Why tensors are no CLIP of the published code, by their names and by what reading them raised."""
    if any(name.startswith(RESNET) for name in clip):
        return f"its image tower is a ResNet, `{CLIP}{RESNET}...`; only vision transformers are supported"
    if any(name.startswith(HUGGING_FACE) for name in clip):
        return f"it has Hugging Face's names, `{CLIP}{HUGGING_FACE}...`; only those of OpenAI's CLIP are supported"
    if isinstance(error, KeyError):
        missing = str(error.args[0])
        return f"it lacks the tensor `{missing if missing.endswith(HEAD_ENDINGS) else CLIP + missing}`"
    return _reason(error)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:LONGEST_REASON]
