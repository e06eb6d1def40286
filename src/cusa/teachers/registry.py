"""Loads image and text encoders by the name that the configuration gives them."""

from __future__ import annotations

from typing import Any

from cusa.common.files import expanded
from cusa.common.registry import Registry, call_part, require_folder_of_model
from cusa.config.models import UNICOM, ImageModel, TextModel
from cusa.errors import ConfigurationError, CusaError, cause_of
from cusa.teachers.encoders import ImageEncoder, TextEncoder

GROUP = "cusa.teachers"
TIMM = "timm/"
IMAGE_ENCODERS = Registry(
    kind="image encoder",
    group=GROUP,
    modules={
        "efficientnet-lite0": "cusa.teachers.efficientnet_lite0",
        UNICOM: "cusa.teachers.unicom",
        TIMM: "cusa.teachers.timm_vision",
    },
    needs=("image_encoder",),
    default="cusa.teachers.huggingface_vision",
)
TEXT_ENCODERS = Registry(
    kind="text encoder",
    group=GROUP,
    modules={"all-MiniLM-L6-v2": "cusa.teachers.sentence_encoder"},
    needs=("text_encoder",),
    default="cusa.teachers.sentence_encoder",
)


def load_image_encoder(model: ImageModel) -> ImageEncoder:
    """The image encoder of a teacher or a tower, in eval mode, float32, on the CPU, with its identity as its `name`.

    Raises ConfigurationError if it cannot be loaded.
    """
    module = IMAGE_ENCODERS.load(TIMM if _is_timm_folder(model.name) else model.name)
    encoder: ImageEncoder = _load(module.image_encoder, model, ImageEncoder, IMAGE_ENCODERS)
    return encoder


def load_text_encoder(model: TextModel) -> TextEncoder:
    """The text encoder of a teacher or a tower, in eval mode, float32, on the CPU, with its identity as its `name`.

    Raises ConfigurationError if it cannot be loaded.
    """
    encoder: TextEncoder = _load(TEXT_ENCODERS.load(model.name).text_encoder, model, TextEncoder, TEXT_ENCODERS)
    if model.prompt is not None and encoder.prompt is None:
        raise ConfigurationError(
            f"The text model {model.name} has the prompt {model.prompt!r}, but its encoder {type(encoder).__name__} "
            "takes none; leave out `prompt`."
        )
    if model.matryoshka_dimension not in (None, encoder.dimension):
        raise ConfigurationError(
            f"The text model {model.name} has matryoshka_dimension {model.matryoshka_dimension}, but its encoder "
            f"{type(encoder).__name__} gives {encoder.dimension} numbers and cuts none; leave it out."
        )
    return encoder


def _load(build: Any, model: ImageModel | TextModel, kind: Any, registry: Registry) -> Any:
    try:
        encoder = call_part(build, model)
    except CusaError:
        raise
    except Exception as error:  # libraries raise errors of any type for unexpected files
        require_folder_of_model("the model", model.name)
        raise ConfigurationError(
            f"the model {model.name} could not be loaded ({cause_of(error)}). {registry.meant(model.name)}Give the "
            "path of a folder that holds it, or make sure that the package or the hub it comes from can be reached."
        ) from error
    if not isinstance(encoder, kind):
        raise ConfigurationError(
            f"{build.__name__} of the model {model.name} returns {type(encoder).__name__}; expected a "
            f"{kind.__module__}.{kind.__name__}."
        )
    encoder.name = model.identity
    # 8 bits of mantissa are too few for an optimiser step, so weights are float32, whatever the type of their file.
    return encoder.float().eval()


def _is_timm_folder(name: str) -> bool:
    config = expanded(name) / "config.json"
    return config.is_file() and '"architecture"' in config.read_text(encoding="utf-8", errors="replace")
