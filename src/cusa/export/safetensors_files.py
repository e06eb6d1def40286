"""Writes a folder that this library loads on another machine, without the results folder and without a hub.

Models of transformers, sentence-transformers and timm get a folder of their own, in the form of their library; all
other weights of the student are in one safetensors file. Models that come as a package stay in their package.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from cusa.common.files import expand_home
from cusa.errors import ConfigurationError, CusaError, cause_of
from cusa.model.exported import Exported
from cusa.model.run_model import Model
from cusa.model.safetensors_folder import (
    IMAGE_TOWER,
    STUDENT,
    TEXT_TOWER,
    WEIGHTS,
    SafetensorsExported,
    left_out,
    load_safetensors,
)
from cusa.runs.weights import STUDENT_PREFIX
from cusa.student.dual_encoder import PUBLISHED_NAMES, DualEncoder
from cusa.student.open_clip_models import OpenClip
from cusa.student.towers import TowerPair
from cusa.teachers.encoders import ImageEncoder, TextEncoder, weights_sha256
from cusa.teachers.huggingface_vision import HuggingFaceVision
from cusa.teachers.sentence_encoder import SentenceEncoder, as_sentence_encoder
from cusa.teachers.timm_vision import TimmVision
from cusa.teachers.unicom import UnicomTeacher

TOLERANCE = 1e-5
TEXT = "a red circle"


def write_safetensors(model: Model, about: Exported, folder: Path) -> list[str]:
    """Write the weights, configuration, tokeniser and preprocessing of a model to an empty folder, and cusa.json.

    Returns lines that tell what is not in the folder. Raises ConfigurationError if one of its models cannot be
    saved, or embeds otherwise when the folder is loaded.
    """
    parts, named = _parts(model), {}
    folders = {}
    for name, part in parts.items():
        if (place := _saved(part, model, folder / name)) is not None:
            folders[name] = place.relative_to(folder).as_posix()
        elif isinstance(part, ImageEncoder | TextEncoder):
            named[name] = weights_sha256(part)
    elsewhere = left_out(folders, about.heads)
    tensors = {
        f"{STUDENT_PREFIX}{name}": tensor.detach().contiguous().clone()
        for name, tensor in model.encoder.student.state_dict().items()
        if not name.startswith(elsewhere)
    }
    # A file without tensors cannot be read.
    save_file(tensors | {"trained": torch.tensor(bool(model.encoder.student.heads))}, folder / WEIGHTS)
    SafetensorsExported(
        **about.model_dump(exclude={"schema_version"}), configuration=model.configuration, folders=folders, named=named
    ).write(folder)
    _require_equal(model, about, folder)
    outside = [name for name, part in parts.items() if name not in folders and not isinstance(part, OpenClip)]
    return [f"the {name.replace('_', ' ')} is not in the folder: {_name(model, name)}" for name in outside]


def _parts(model: Model) -> dict[str, Any]:
    """The models that a student is made of, by STUDENT, IMAGE_TOWER and TEXT_TOWER."""
    backbone = model.encoder.student.backbone
    if not isinstance(backbone, TowerPair):
        return {STUDENT: backbone}
    text = backbone.text_tower or model.text_encoder
    assert text is not None
    return {IMAGE_TOWER: backbone.image_tower or model.image_encoder, TEXT_TOWER: as_sentence_encoder(text)}


def _saved(part: Any, model: Model, folder: Path) -> Path | None:
    """The folder of a model that was saved in its own library's format; None if the library has none."""
    try:
        if isinstance(part, DualEncoder):
            name = model.configuration.student.name
            assert name is not None
            _save_transformers(part.model, expand_home(PUBLISHED_NAMES.get(name, name)), folder)
            part.tokeniser.save_pretrained(folder)
        elif isinstance(part, OpenClip) and part.model_settings is not None and not part.has_resnet:
            part.save(folder)
        elif isinstance(part, HuggingFaceVision):
            _save_transformers(part.network, expand_home(part.name), folder, without_pooler=not part.pools)
        elif isinstance(part, SentenceEncoder):
            part.model.save(str(folder), create_model_card=False)
        elif isinstance(part, TimmVision):
            from timm.models import save_for_hf

            save_for_hf(part.network, str(folder), model_config={"num_classes": 0}, safe_serialization=True)
        elif isinstance(part, UnicomTeacher):
            assert part.weights_file is not None
            folder.mkdir()
            return Path(shutil.copy(part.weights_file, folder))
        else:
            return None
    except CusaError:
        raise
    except Exception as error:  # libraries raise anything at models that they cannot save
        raise ConfigurationError(
            f"the {folder.name.replace('_', ' ')} of the run could not be saved as its library saves it "
            f"({cause_of(error)}); export the run with --to onnx."
        ) from error
    return folder


def _save_transformers(network: Any, source: str, folder: Path, without_pooler: bool = False) -> None:
    """Save a model of transformers and the preprocessing of its pictures, which `source` describes.

    Without the weights of a pooler, HuggingFaceVision does not use it.
    """
    from transformers import AutoImageProcessor

    state = network.state_dict()
    kept = {name: tensor for name, tensor in state.items() if not (without_pooler and "pooler." in name)}
    network.save_pretrained(folder, state_dict=kept)
    AutoImageProcessor.from_pretrained(source).save_pretrained(folder)  # type: ignore[no-untyped-call]


def _name(model: Model, place: str) -> str:
    """The name of a model that is to be installed where the folder is loaded."""
    student = model.configuration.student
    if student.towers is None:
        return str(student.name)
    return (student.towers.image if place == IMAGE_TOWER else student.towers.text).name


def _require_equal(model: Model, about: Exported, folder: Path) -> None:
    """Load the folder, and raise ConfigurationError if it embeds otherwise than the run."""
    loaded = load_safetensors(folder, "cpu", "fp32")
    side = max(64, model.transform.crop)
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    for head in about.heads:
        for found, expected in (
            (loaded.encode_image(picture, head), model.encode_image(picture, head)),
            (loaded.encode_text(TEXT, head), model.encode_text(TEXT, head)),
        ):
            if (difference := float(np.abs(found - expected).max())) > TOLERANCE:
                raise ConfigurationError(
                    f"the export embeds otherwise than the run (a difference of {difference:.2g}, allowed is "
                    f"{TOLERANCE:g}): one of its models is not saved whole by its library. Export it with --to onnx."
                )
