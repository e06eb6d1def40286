"""Image encoders as modules of sentence-transformers, of architectures that plain libraries load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cusa.common.files import expanded
from cusa.errors import ConfigurationError, cause_of
from cusa.export.efficientnet_conversion import transformers_efficientnet
from cusa.export.open_clip_conversion import timm_resnet
from cusa.teachers.efficientnet_lite0 import EfficientNetLite0
from cusa.teachers.encoders import ImageEncoder
from cusa.teachers.huggingface_vision import HuggingFaceVision
from cusa.teachers.image_processor import INTERPOLATIONS
from cusa.teachers.timm_vision import TimmVision
from cusa.teachers.transform import ImageTransform

POOLED, HIDDEN = "pooler_output", "last_hidden_state"
TOKENS, EMBEDDING = "token_embeddings", "sentence_embedding"


def image_processor(transform: ImageTransform) -> Any:
    """The image processor of transformers that prepares pictures as `transform` does.

    If the sides of a resized picture differ from the crop by 3, 7, 11, ... pixels, the crops are one pixel apart.
    """
    from transformers import CLIPImageProcessor

    resamples = {name: number for number, name in INTERPOLATIONS.items()} | {"nearest": 0}
    resize = transform.resize
    return CLIPImageProcessor(
        size={"height": resize, "width": resize} if transform.square else {"shortest_edge": resize},
        crop_size={"height": transform.crop, "width": transform.crop},
        do_center_crop=not (transform.square and resize == transform.crop),
        resample=resamples[transform.interpolation],
        image_mean=list(transform.mean),
        image_std=list(transform.std),
    )


def image_modules(encoder: ImageEncoder, scratch: Path) -> list[nn.Module]:
    """Modules of sentence-transformers that give the features of an image encoder. Files are put in `scratch`.

    Raises ConfigurationError for encoders that no library but cusa can hold.
    """
    if isinstance(encoder, EfficientNetLite0):
        network = transformers_efficientnet(encoder.network, encoder.transform.crop)
        return transformer_modules(network, POOLED, encoder.transform, scratch)
    if isinstance(encoder, TimmVision):
        network = wrapped_timm(encoder.network, _architecture(encoder), _model_arguments(encoder))
        return transformer_modules(network, POOLED, encoder.transform, scratch)
    if isinstance(encoder, HuggingFaceVision):
        network = _loadable(encoder.network, encoder.name)
        return transformer_modules(network, POOLED if encoder.pools else HIDDEN, encoder.transform, scratch)
    raise ConfigurationError(
        f"the image tower {encoder.name} ({type(encoder).__name__}) is not a model that plain sentence-transformers "
        "can hold; export with --to onnx instead."
    )


def open_clip_image_modules(visual: Any, transform: ImageTransform, scratch: Path) -> list[nn.Module]:
    """Modules that give the image features of a ResNet CLIP of open_clip."""
    from cusa.export.head_modules import dense

    network, name, projection = timm_resnet(visual)
    wrapped = wrapped_timm(network, name, {})
    return [*transformer_modules(wrapped, POOLED, transform, scratch), dense(projection)]


def transformer_modules(network: Any, output: str, transform: ImageTransform, scratch: Path) -> list[nn.Module]:
    """A vision model of transformers as a module, and its pooling if `output` has several vectors a picture."""
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    network.save_pretrained(scratch)
    image_processor(transform).save_pretrained(scratch)
    blank = torch.zeros(1, 3, transform.crop, transform.crop)
    with torch.inference_mode():
        found: Tensor = network(pixel_values=blank)[output]
    one = found.ndim == 2
    module = Transformer(
        str(scratch),
        modality_config={"image": {"method": "forward", "method_output_name": output}},
        module_output_name=EMBEDDING if one else TOKENS,
    )
    # Of maps [B, C, H, W] the library makes H * W vectors of C numbers; their mean is that of the map.
    return [module] if one else [module, Pooling(found.shape[1] if found.ndim == 4 else found.shape[2], "mean")]


def wrapped_timm(network: Any, architecture: str, arguments: dict[str, Any]) -> Any:
    """A timm network without classifier as transformers holds it; it needs timm if it is loaded."""
    from transformers import TimmWrapperConfig, TimmWrapperModel

    configuration = TimmWrapperConfig(architecture=architecture, model_args=arguments or None)
    configuration.num_features = int(network.num_features)  # the length of the embeddings, for sentence-transformers
    try:
        wrapped = TimmWrapperModel(configuration)
        wrapped.timm_model.load_state_dict(network.state_dict())
    except (RuntimeError, TypeError, ImportError) as error:
        raise ConfigurationError(
            f"the timm network {architecture} cannot be built again by its name ({cause_of(error)}), so plain "
            "sentence-transformers cannot hold it; export with --to onnx instead."
        ) from error
    wrapped.train(False)
    return wrapped


def _architecture(encoder: TimmVision) -> str:
    settings: dict[str, Any] = encoder.network.pretrained_cfg  # type: ignore[assignment]
    return str(settings["architecture"])


def _model_arguments(encoder: TimmVision) -> dict[str, Any]:
    """The model arguments of a timm network's folder, besides its architecture."""
    configuration = expanded(encoder.name) / "config.json"
    if not configuration.is_file():
        return {}
    arguments = dict(json.loads(configuration.read_text(encoding="utf-8")).get("model_args") or {})
    arguments.pop("num_classes", None)  # the classifier is left out
    return arguments


def _loadable(network: Any, name: str) -> Any:
    """A vision model that AutoModel loads again: itself, or for a part of a model the class for that part."""
    from transformers import AutoModel, PreTrainedModel

    from_config: Any = AutoModel.from_config
    try:
        model = from_config(network.config).eval()
        if isinstance(network, PreTrainedModel) and type(network) is type(model):
            return network
        part = getattr(model, "vision_model", model)
        part.load_state_dict(network.state_dict())
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"the vision side of {name} is not a model of its own in transformers ({cause_of(error)}), so plain "
            "sentence-transformers cannot hold it; export with --to onnx instead."
        ) from error
    return model
