"""Writes a folder that sentence-transformers loads without this library.

The folder is built of that library's own modules: a Router leads pictures and texts to the two towers, each with its
projection and head, and Normalize follows.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from cusa.common.files import write_json
from cusa.config.losses import HeadName
from cusa.errors import ConfigurationError
from cusa.export.dual_encoder_modules import dual_encoder_module
from cusa.export.head_modules import head_modules, projection_modules
from cusa.export.image_modules import image_modules, open_clip_image_modules
from cusa.export.sentence_transformers_check import measure
from cusa.export.text_modules import open_clip_text_modules, text_modules
from cusa.model.exported import Exported
from cusa.model.run_model import Model
from cusa.model.sentence_transformers_folder import SentenceTransformersExported
from cusa.student.dual_encoder import DualEncoder
from cusa.student.open_clip_models import OpenClip
from cusa.student.towers import TowerPair

MODALITIES = ("text", "image")  # texts come first: it is the route that inputs of an unknown kind take


def write_sentence_transformers(model: Model, about: Exported, folder: Path) -> list[str]:
    """Write a model with the head `about.heads` to a folder that is empty; `about` is written there too.

    Returns what is worth telling, a line each: how near the embeddings are to ours, and what the library cannot do as
    we do. Raises ConfigurationError if a tower is of a kind that plain sentence-transformers cannot hold, or if
    its embeddings are not ours.
    """
    from sentence_transformers import SentenceTransformer

    (head,) = about.heads
    with tempfile.TemporaryDirectory() as scratch:
        modules = _modules(model, head, Path(scratch))
        exported = SentenceTransformer(modules=modules, similarity_fn_name="cosine", device="cpu").eval()
        exported.save_pretrained(str(folder), create_model_card=False)
    _tell_modalities(folder)
    for path in folder.rglob("*.safetensors"):  # they are written for their owner alone
        path.chmod((folder / "modules.json").stat().st_mode)
    SentenceTransformersExported(**about.model_dump(), image=model.transform).write(folder)
    return measure(model, folder, head)


def _tell_modalities(folder: Path) -> None:
    """Write what mteb looks for in a model at the hub: which modalities it takes. The Router does not say it."""
    path = folder / "sentence_bert_config.json"
    if not path.exists():
        how = {"method": "forward", "method_output_name": None}
        write_json(
            path, {"modality_config": dict.fromkeys(MODALITIES, how), "module_output_name": "sentence_embedding"}
        )


def _modules(model: Model, head: HeadName, scratch: Path) -> list[nn.Module]:
    """The modules of a model with one of its heads."""
    from sentence_transformers.sentence_transformer.modules import Normalize, Router

    routes = _routes(model, scratch)
    heads = model.encoder.student.heads
    for modality, modules in routes.items():
        modules += head_modules(heads, head, modality)
    text, image = routes["text"], routes["image"]
    if len(text) == len(image) == 1 and text[0] is image[0]:
        return [text[0], Normalize()]  # a dual encoder without heads
    # Without these mappings the tasks `query` and `document` would be taken for names of routes.
    mappings: dict[Any, str] = {(None, modality): modality for modality in MODALITIES}
    return [Router({"text": text, "image": image}, default_route="text", route_mappings=mappings), Normalize()]


def _routes(model: Model, scratch: Path) -> dict[str, list[Any]]:
    """The modules of the backbone for each modality."""
    cleaning, backbone = model.configuration.captions, model.encoder.student.backbone
    text_scratch, image_scratch = scratch / "text", scratch / "image"
    if isinstance(backbone, DualEncoder):
        module = dual_encoder_module(backbone, cleaning, scratch)
        return {"text": [module], "image": [module]}
    if isinstance(backbone, OpenClip) and backbone.has_resnet:
        assert backbone.image_transform is not None
        visual = backbone.model.visual
        return {
            "text": open_clip_text_modules(
                backbone.model, backbone.tokeniser, cleaning, backbone.max_tokens, text_scratch
            ),
            "image": open_clip_image_modules(visual, backbone.image_transform, image_scratch),
        }
    if isinstance(backbone, TowerPair):
        image = backbone.image_tower if model.image_encoder is None else model.image_encoder
        text = backbone.text_tower if model.text_encoder is None else model.text_encoder
        assert image is not None
        assert text is not None
        # A frozen tower's captions are as long as the tower reads; max_tokens is for towers that are trained.
        limit = backbone.max_tokens if model.text_encoder is None else None
        return {
            "text": [*text_modules(text, cleaning, limit), *projection_modules(backbone.text_projection)],
            "image": [*image_modules(image, image_scratch), *projection_modules(backbone.image_projection)],
        }
    raise ConfigurationError(
        f"the student {model.configuration.student.name} ({type(backbone).__name__}) is not a model that plain "
        "sentence-transformers can hold; export with --to onnx instead."
    )
