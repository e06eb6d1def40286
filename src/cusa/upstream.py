"""Reading what the authors of the paper published: configurations, image features, checkpoints.

None of it is trusted: features are unpickled by a reader that can build nothing but arrays of floats, checkpoints are
read as tensors and plain values.
"""

from __future__ import annotations

import math
import pickle
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import yaml
from torch import Tensor

from cusa import __version__
from cusa.annotations import IMAGES, read_table, split_rows
from cusa.config import (
    Contrastive,
    Experiment,
    ImageModel,
    LossConfiguration,
    RunConfiguration,
    Train,
    UniSoftLabel,
    validate,
)
from cusa.config import Student as StudentSettings
from cusa.errors import ConfigurationError, DataError
from cusa.files import DAMAGED, read_tensors, sha256_of_file, whole_file, write_json
from cusa.images import CLIP_MEAN, CLIP_STD, ImageTransform
from cusa.layout import DatasetFolder
from cusa.runs import HISTORY, RUN, SCHEMA, STUDENT_PREFIX, WEIGHTS, save_weights, versions, write_history
from cusa.student import DualEncoder, Student, build_student
from cusa.teachers.store import FeatureStore, write_features

LARGEST_KEPT = 4096  # bytes of one object that a pickle may refer back to
CLIP = "clip_model."
HEAD_WIDTH = 64
LARGEST_TOKEN_ID = 2  # transformers reads this end-of-text id as "where the token id is largest", as OpenAI's code does


def loss_config(mapping: Mapping[str, Any]) -> LossConfiguration:
    """Translate a published YAML's `loss_config` mapping into our loss configuration.

    Where USA shares CSA's temperatures although CSA is off, which the published code cannot run, USA's own values
    in the same mapping are used. Raises ConfigurationError naming the key that is missing or wrong.
    """
    try:
        on = {name: section for name, section in mapping.items() if section["is_on"]}
        translated: dict[str, Any] = {}
        if "contrastive" in on:
            translated["contrastive"] = _contrastive(on["contrastive"])
        if "cross_softlabel" in on:
            section = on["cross_softlabel"]
            translated["cross_softlabel"] = {
                **_soft_label(section, share_with_cross=False),
                "mode": section["cross_softlabel_mode"],
            }
        if "uni_softlabel" in on:
            share = "cross_softlabel" in on
            translated["uni_softlabel"] = _soft_label(on["uni_softlabel"], share_with_cross=share)
    except (KeyError, TypeError) as error:
        raise ConfigurationError(
            f"the loss_config lacks {error} or holds something else in its place; expected the mapping "
            "`loss_config` of a published YAML file."
        ) from None
    return validate(Experiment, translated).losses


def _contrastive(section: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rate": section["rate"],
        "reduction": section["contrastive_loss_mode"],
        "temperature": {
            "start": section["tau"],
            "min": section["tau_min"],
            "max": section["tau_max"],
            "learned": not section["is_block_tau"],
        },
    }


def _soft_label(section: Mapping[str, Any], share_with_cross: bool) -> dict[str, Any]:
    def pair(prefix: str, tied: str, blocked: str) -> dict[str, Any]:
        ranges = {
            modality: {
                "start": section[f"{prefix}{modality}_tau"],
                "min": section[f"{prefix}{modality}_tau_min"],
                "max": section[f"{prefix}{modality}_tau_max"],
            }
            for modality in ("image", "text")
        }
        return {**ranges, "tied": section[tied], "learned": not section[blocked]}

    share_logits = share_with_cross and section.get("use_cross_softlabel_same_tau", False)
    share_teacher = share_with_cross and section.get("use_cross_softlabel_same_softlabel_tau", False)
    return {
        "rate": section["rate"],
        "loss": section["use_loss"],
        "reduction": section["contrastive_loss_mode"],
        "temperature": "cross" if share_logits else pair("", "use_same_tau", "is_block_tau"),
        "teacher_temperature": "cross"
        if share_teacher
        else pair("the_softlabel_", "use_same_softlabel_tau", "is_block_softlabel_tau"),
    }


# ---------------------------------------------------------------------------------------------- configurations


def read_config(path: str | Path) -> dict[str, Any]:
    """One of their YAML files as an overlay of ours, ready to be written as YAML.

    The data stays as it is in the configuration that the overlay is laid on: theirs names a folder, ours a data set.
    Raises ConfigurationError when the file is not one of theirs, or asks for what this project does not do.
    """
    try:
        published = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist; name one of the published YAML files.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid YAML ({error}).") from None
    try:
        optimiser, schedule = published["optimizer"], published["schedular"]
        losses = loss_config(published["loss_config"])
        student, name = published["clip_model"], Path(published["save_path"]).name
        train = {
            "epochs": schedule["epochs"],
            "batch_size": published["batch_size_train"],
            "eval_batch_size": published["batch_size_testall"],
            "lr": optimiser["lr"],
            "min_lr": schedule["min_lr"],
            "weight_decay": optimiser["weight_decay"],
            "schedule": "epoch",
            "warmup_steps": 0,
        }
        other = {
            "optimizer.opt": (str(optimiser["opt"]).lower(), "adamw"),
            "schedular.sched": (schedule["sched"], "cosine"),
            "schedular.warmup_epochs": (schedule.get("warmup_epochs", 0), 0),
            "schedular.cooldown_epochs": (schedule.get("cooldown_epochs", 0), 0),
            "schedular.decay_rate": (schedule.get("decay_rate", 1), 1),
            "is_all_gather": (published.get("is_all_gather", False), False),
        }
    except (KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} lacks {error} or holds something else in its place; expected one of the published YAML files."
        ) from None
    if wrong := [f"{key} is {found!r}, only {known!r} is" for key, (found, known) in other.items() if found != known]:
        raise ConfigurationError(f"{path}: {'; '.join(wrong)} supported.")
    return {
        "student": {"name": student, "towers": None},
        "train": train,
        "experiments": {re.sub(r"[^A-Za-z0-9_.\-]", "-", name): losses.model_dump(mode="json")},
    }


# ---------------------------------------------------------------------------------------------- features


def load_features(path: str | Path) -> tuple[list[str], np.ndarray]:
    """A published `*_unicom.npy` -> (image ids in the file's order, array [n, d] of the file's own type).

    The file is a pickled dict {image id: array of shape [1, d]}. It is read by an unpickler that can build nothing but
    such a dict: a file that names anything else to be called is refused with DataError before that is called.
    """
    rows: list[np.ndarray] = []
    places = _read_feature_dict(path, rows.append)
    if not places:
        raise DataError(f"{path} holds no features.")
    return list(places), np.concatenate([rows[place] for place in places.values()])


def import_features(path: str | Path, folder: DatasetFolder, split: str, model: ImageModel) -> None:
    """Turn a published `*_unicom.npy` into the feature store of one split, in row order.

    Memory holds one row at a time: rows are spooled to a temporary file in the file's order and copied into ours.
    Raises DataError listing images of the split that the file lacks; ids that the split lacks are left out.
    """
    images = read_table(folder.annotations, IMAGES, ["image_id", "split"])
    wanted = images["image_id"].take(pa.array(split_rows(images, split))).to_pylist()
    output = folder.features("image", model.folder, split)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output.parent) as spool:
        first: list[np.ndarray] = []

        def write(row: np.ndarray) -> None:
            if not first:
                first.append(row)
            if row.shape != first[0].shape or row.dtype != first[0].dtype:
                raise DataError(
                    f"{path} holds features of {first[0].dtype} {first[0].shape} and of {row.dtype} {row.shape}; "
                    "expected one shape and type."
                )
            spool.write(np.ascontiguousarray(row).data)

        place = _read_feature_dict(path, write)
        spool.flush()
        if missing := [image_id for image_id in wanted if image_id not in place]:
            raise DataError(
                f"{path} has no features for {len(missing)} of the {len(wanted)} images of {split}, for instance "
                f"{', '.join(missing[:5])}; it belongs to another split or data set."
            )
        dimension = first[0].shape[1]
        spooled = np.memmap(spool, dtype=first[0].dtype, mode="r").reshape(-1, dimension)
        places = np.array([place[image_id] for image_id in wanted])
        step = max(1, (32 << 20) // (4 * dimension))
        parts = (spooled[places[start : start + step]] for start in range(0, len(places), step))
        meta = {
            "model": model.identity,
            "weights_sha256": "unknown",
            "imported_from": {"file": Path(path).name, "sha256": sha256_of_file(path)},
            "transform": "as published",
            "versions": {"cusa": __version__, "numpy": np.__version__},
        }
        write_features(output, len(places), dimension, model.dtype, parts, meta)


def export_features(folder: DatasetFolder, split: str, model: ImageModel, path: str | Path) -> None:
    """Write a feature store as the published code reads it: a pickled dict {image id: float32 array [1, d]}."""
    images = read_table(folder.annotations, IMAGES, ["image_id", "split"])
    ids = images["image_id"].take(pa.array(split_rows(images, split))).to_pylist()
    store = FeatureStore(folder.features("image", model.folder, split), len(ids), model.identity)
    content = {image_id: store[np.array([row])] for row, image_id in enumerate(ids)}
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.array(content, dtype=object), allow_pickle=True)


class _PickledArray:
    """Stands in for numpy's array while unpickling: takes the state and hands a row of features on."""

    def __init__(self, sink: _Sink) -> None:
        self.sink = sink
        self.number = -1
        self.members: list[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, _, content = state
        if isinstance(content, list):  # the array of one object around the dict
            self.members = content
            return
        if not isinstance(dtype, np.dtype) or dtype.kind != "f" or shape not in ((1, shape[-1]), (shape[-1],)):
            raise pickle.UnpicklingError(f"an array of {dtype} and shape {shape}; expected floats of shape (1, d)")
        if isinstance(content, str):  # how old protocols write bytes
            content = content.encode("latin1")
        self.number = self.sink(np.frombuffer(content, dtype).reshape(1, -1))


class _Sink:
    """Hands rows on and numbers them."""

    def __init__(self, write: Callable[[np.ndarray], object]) -> None:
        self.write, self.count = write, 0

    def __call__(self, row: np.ndarray) -> int:
        self.write(row)
        self.count += 1
        return self.count - 1


class _Memo(dict[int, Any]):
    """What a pickle may refer back to. Rows are never referred to, so neither their bytes nor their state is kept."""

    def __setitem__(self, key: int, value: Any) -> None:
        parts = value if isinstance(value, tuple) else (value,)
        too_large = any(isinstance(part, bytes | str) and len(part) > LARGEST_KEPT for part in parts)
        super().__setitem__(key, None if too_large else value)


# The unpickler written in Python, because its memo can be replaced; C's keeps every row until the end.
class _FeatureUnpickler(pickle._Unpickler):
    """Builds arrays, their types and plain containers, and nothing else."""

    def __init__(self, file: BinaryIO, sink: _Sink) -> None:
        super().__init__(file)
        self.memo = _Memo()
        self.allowed: dict[tuple[str, str], Any] = {
            ("numpy", "dtype"): np.dtype,
            ("numpy", "ndarray"): _PickledArray,
            ("_codecs", "encode"): _latin1,
        }
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            self.allowed[module, "_reconstruct"] = lambda *_: _PickledArray(sink)

    def find_class(self, module: str, name: str) -> Any:
        """Only what an array of floats needs."""
        try:
            return self.allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no features need and which could do harm"
            ) from None


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes encoded as {encoding}; expected latin1")
    return text.encode("latin1")


def _read_feature_dict(path: str | Path, write: Callable[[np.ndarray], object]) -> dict[str, int]:
    """Each id's place among the rows, which go to `write`, [1, d] each, as soon as they are read."""
    sink = _Sink(write)
    try:
        with Path(path).open("rb") as file:
            major, _ = np.lib.format.read_magic(file)
            read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, _, dtype = read_header(file)
            if shape != () or not dtype.hasobject:
                raise DataError(f"{path} holds {dtype} of shape {shape}; expected one pickled dict {{image id: row}}.")
            array = _FeatureUnpickler(file, sink).load()
            (content,) = array.members
            return {image_id: row.number for image_id, row in content.items() if _is_pair(image_id, row)}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except DAMAGED as error:
        raise DataError(f"{path} is not a published file of features ({error}); nothing in it was executed.") from None


def _is_pair(image_id: object, row: object) -> bool:
    if not isinstance(image_id, str) or not isinstance(row, _PickledArray) or row.number < 0:
        raise pickle.UnpicklingError(f"an entry {image_id!r} that is no image id with a row of features")
    return True


# ---------------------------------------------------------------------------------------------- checkpoints


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
        model: Any = CLIPModel(_clip_configuration(clip))
        model.load_state_dict(_hugging_face_names(clip))
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


def _clip_configuration(clip: Mapping[str, Tensor]) -> Any:
    """Sizes of OpenAI's CLIP (vision transformers) from its state dict. Raises KeyError where a tensor is missing."""
    from transformers import CLIPConfig

    def layers(prefix: str) -> int:
        return len({name.split(".")[prefix.count(".")] for name in clip if name.startswith(prefix)})

    patches = clip["visual.positional_embedding"].shape[0] - 1
    patch, width = clip["visual.conv1.weight"].shape[-1], clip["visual.conv1.weight"].shape[0]
    vocabulary, text_width = clip["token_embedding.weight"].shape
    common = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    return CLIPConfig(
        vision_config={
            "hidden_size": width,
            "intermediate_size": clip["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            "num_hidden_layers": layers("visual.transformer.resblocks."),
            "num_attention_heads": width // HEAD_WIDTH,
            "image_size": math.isqrt(patches) * patch,
            "patch_size": patch,
            **common,
        },
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": text_width,
            "intermediate_size": clip["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            "num_hidden_layers": layers("transformer.resblocks."),
            "num_attention_heads": text_width // HEAD_WIDTH,
            "max_position_embeddings": clip["positional_embedding"].shape[0],
            "eos_token_id": LARGEST_TOKEN_ID,
            **common,
        },
        projection_dim=clip["text_projection"].shape[1],
    )


def _hugging_face_names(clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's state dict as transformers' CLIPModel names it."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in clip.items():
        if name == "visual.proj":
            renamed["visual_projection.weight"] = tensor.T
        elif name == "text_projection":
            renamed["text_projection.weight"] = tensor.T
        elif ".in_proj_" in name:
            block, kind = name.split("attn.in_proj_")
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                renamed[_renamed(f"{block}attn.{part}_proj.{kind}")] = piece
        else:
            renamed[_renamed(name)] = tensor
    return {name: tensor.contiguous() for name, tensor in renamed.items()}


def _renamed(name: str) -> str:
    for pattern, replacement in OPENAI_TO_HUGGING_FACE:
        name = re.sub(pattern, replacement, name)
    return name


OPENAI_TO_HUGGING_FACE = (
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"\.attn\.", ".self_attn."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


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
    write_json(
        run / RUN,
        {
            "schema": SCHEMA,
            "configuration": configuration.model_dump(mode="json"),
            "selected_epoch": epoch,
            "selected_because": f"imported from {Path(path).name}, whose code selects on the test set",
            "imported_from": {"file": Path(path).name, "sha256": sha256_of_file(path)},
            "temperatures": temperatures,
            "epochs": epoch + 1,
            "processes": 1,
            "device": "elsewhere",
            "seconds": 0.0,
            "weights_sha256": sha256_of_file(run / WEIGHTS),
            "versions": versions(),
        },
    )


def _losses_of_heads(state: Mapping[str, Tensor]) -> LossConfiguration:
    """The losses that have these heads, with published settings: all that the tensors alone tell."""
    has_uni = "uni_image_projection.weight" in state
    has_cross = "cross_image_projection.weight" in state or not has_uni
    return LossConfiguration(
        contrastive=Contrastive() if has_cross else None, uni_softlabel=UniSoftLabel() if has_uni else None
    )
