"""Which module loads which teacher."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from cusa.config.models import ImageModel, TextModel
from cusa.errors import ConfigurationError
from cusa.teachers.encoders import ImageEncoder, TextEncoder

IMAGE_ENCODERS = {
    "efficientnet-lite0": "cusa.teachers.efficientnet_lite0",
    "unicom": "cusa.teachers.unicom",
    "timm/": "cusa.teachers.timm_vision",
    "": "cusa.teachers.huggingface_vision",
}


def load_image_encoder(model: ImageModel) -> ImageEncoder:
    """A configured image encoder in eval mode (see config/README.md)."""
    name = model.name
    from_timm = name.startswith("timm/") or _is_timm_folder(name)
    kind = name if name in IMAGE_ENCODERS else "timm/" if from_timm else ""
    encoder: ImageEncoder = _load(IMAGE_ENCODERS[kind], model)
    return encoder


def load_text_encoder(model: TextModel) -> TextEncoder:
    """A configured sentence encoder in eval mode (see config/README.md)."""
    encoder: TextEncoder = _load("cusa.teachers.sentence_encoder", model)
    return encoder


def _load(module_name: str, model: ImageModel | TextModel) -> Any:
    module: Any = import_module(module_name)
    try:
        return module.encoder(model).eval()
    except (OSError, ImportError, ValueError) as error:  # transformers raises any of them for what is no model
        reason = str(error).strip().splitlines()[0]
        raise ConfigurationError(
            f"the model {model.name} could not be loaded ({reason}). Give the path of a folder that holds it, or make "
            "sure that the package or the hub it comes from can be reached."
        ) from error


def _is_timm_folder(name: str) -> bool:
    config = Path(name).expanduser() / "config.json"
    return config.is_file() and '"architecture"' in config.read_text(encoding="utf-8")
