"""Reading what the authors of the paper published: configurations, image features, checkpoints.

None of it is trusted: features are unpickled by a reader that can build nothing but arrays of floats, checkpoints are
read as tensors and plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cusa.common.files import read_tensors, sha256_of_file
from cusa.common.versions import versions
from cusa.config.experiments import RunConfiguration
from cusa.config.losses import Contrastive, LossConfiguration, UniSoftLabel
from cusa.config.models import StudentSettings
from cusa.config.training import Train
from cusa.errors import DataError
from cusa.runs.record import HISTORY, WEIGHTS, ImportedFile, RunRecord, write_history
from cusa.runs.weights import STUDENT_PREFIX, save_weights
from cusa.student.backbones import DualEncoder
from cusa.student.student import Student, build_student
from cusa.teachers.transform import CLIP_MEAN, CLIP_STD, ImageTransform
from cusa.upstream.configurations import loss_config
from cusa.upstream.openai_clip import CLIP, clip_configuration, hugging_face_names


def load_checkpoint(path: str | Path) -> Student:
    """A student from a published checkpoint, in eval mode, float32, on the CPU; sizes are read off the tensors.

    `encode_image(pixels, head)` takes uint8 pixels or normalised floats [B, 3, H, W], `encode_text(input_ids, head)`
    int64 tokens [B, T] of CLIP's tokeniser; `head` is "cross" or "uni". Both give [B, D], not normalised. A head that
    the checkpoint has not stands for the features before the heads. The file's other content is not executed: a file
    that holds more than tensors and plain values is refused with DataError.
    """
    return _student_of(path, _model_state(path, read_tensors(path)))


def _student_of(path: str | Path, state: Mapping[str, Tensor]) -> Student:
    from transformers import CLIPModel

    clip = {name.removeprefix(CLIP): tensor for name, tensor in state.items() if name.startswith(CLIP)}
    losses = _losses_of_heads(state)
    try:
        model: Any = CLIPModel(clip_configuration(clip))
        model.load_state_dict(hugging_face_names(clip))
        side = model.config.vision_config.image_size
        transform = ImageTransform(side, side, CLIP_MEAN, CLIP_STD)
        student = Student(DualEncoder(model, None, transform, model.config.text_config.max_position_embeddings), losses)
        heads = {
            f"{name}.{layer}.{kind}": state[f"{prefix}{name}_projection.{kind}"]
            for name in student.heads
            for layer, prefix in enumerate(("ln_", ""))
            for kind in ("weight", "bias")
        }
        student.heads.load_state_dict(heads)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:400]
        raise DataError(f"{path} is not a checkpoint of the published code: {reason}") from None
    return student.float().eval()


def _model_state(path: str | Path, checkpoint: Any) -> dict[str, Tensor]:
    state = checkpoint.get("model") if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path} has no state dict under the key `model`; expected the published checkpoint_best.pth.")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def import_checkpoint(
    path: str | Path, run: str | Path, dataset: str, student: str, seed: int = 23, gpus: int = 0
) -> None:
    """Make a run folder of a published checkpoint, on which `embed` and every benchmark work.

    `student` names the tokeniser and transform that go with the weights: the published name, a Hugging Face name or a
    folder. The run's name is that of its folder's parent; with `gpus` above 0 it is embedded on a GPU. Raises DataError
    when the weights do not fit that student, and where a run exists already.
    """
    run = Path(run)
    if (run / WEIGHTS).exists():
        raise DataError(f"{run / WEIGHTS} exists already; name another folder, nothing is overwritten.")
    about = read_tensors(path)
    state = _model_state(path, about)
    imported = _student_of(path, state)
    published = about.get("config") or {}
    losses = loss_config(published["loss_config"]) if "loss_config" in published else _losses_of_heads(state)
    configuration = RunConfiguration(
        dataset=dataset,
        experiment=run.parent.name,
        seed=seed,
        student=StudentSettings(name=student),
        losses=losses,
        teachers=None,
        train=Train(
            epochs=int((published.get("schedular") or {}).get("epochs", 30)),
            select_on="test_leak_as_published",
            gpus=gpus,
        ),
    )
    fits = build_student(configuration.student, losses)
    try:
        fits.load_state_dict(imported.state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise DataError(f"the weights of {path} do not fit the student {student}: {reason}") from None
    tensors = {f"{STUDENT_PREFIX}{name}": tensor for name, tensor in imported.state_dict().items()}
    temperatures = {name: float(tensor) for name, tensor in state.items() if "tau" in name}
    epoch = int(about.get("best_epoch", about.get("epoch", 0)))
    save_weights(run / WEIGHTS, tensors, {"epoch": str(epoch)})
    write_history(run / HISTORY, [{"kind": "imported", "epoch": epoch, "step": 0}])
    RunRecord(
        configuration=configuration,
        selected_epoch=epoch,
        selected_because=f"imported from {Path(path).name}, whose code selects on the test set",
        imported_from=ImportedFile(file=Path(path).name, sha256=sha256_of_file(path)),
        temperatures=temperatures,
        epochs=epoch + 1,
        processes=1,
        device="elsewhere",
        seconds=0.0,
        weights_sha256=sha256_of_file(run / WEIGHTS),
        versions=versions(),
    ).write(run)


def _losses_of_heads(state: Mapping[str, Tensor]) -> LossConfiguration:
    """The losses that have these heads, with published settings: all that the tensors alone tell."""
    has_uni = "uni_image_projection.weight" in state
    has_cross = "cross_image_projection.weight" in state or not has_uni
    return LossConfiguration(
        contrastive=Contrastive() if has_cross else None, uni_softlabel=UniSoftLabel() if has_uni else None
    )
