"""Dual encoders of Hugging Face (CLIP, SigLIP, ...) as one module of sentence-transformers for both modalities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cusa.config.captions import CaptionCleaning
from cusa.export.image_modules import image_processor
from cusa.export.text_modules import MASKED, cleaning_tokeniser
from cusa.student.dual_encoder import TWO_TOKENS, DualEncoder
from cusa.teachers.tokenisers import padding_id


def dual_encoder_module(backbone: DualEncoder, cleaning: CaptionCleaning, scratch: Path) -> Any:
    """A module that gives the features of pictures and of captions that are not cleaned. Files are put in `scratch`."""
    from sentence_transformers.sentence_transformer.modules import Transformer
    from transformers import CLIPProcessor

    build: Any = CLIPProcessor

    pad = padding_id(backbone.tokeniser, backbone.known_ids)
    # A model that captions are padded for to a fixed length takes no mask.
    inputs = MASKED[:1] if backbone.fixed_length else MASKED
    tokeniser = cleaning_tokeniser(backbone.tokeniser, cleaning, backbone.max_tokens, pad, inputs=inputs)
    backbone.model.save_pretrained(scratch)
    # CLIP's processor calls the two that it holds, and does nothing else, so it serves every dual encoder.
    processor = build(image_processor=image_processor(backbone.image_transform), tokenizer=tokeniser)
    processor.save_pretrained(scratch)
    text: dict[str, Any] = {"max_length": backbone.max_tokens}
    if backbone.fixed_length:
        text |= {"padding": "max_length", "return_attention_mask": False}
    crop = backbone.image_transform.crop
    with torch.inference_mode():
        features = {
            "text": backbone.model.get_text_features(input_ids=TWO_TOKENS),
            "image": backbone.model.get_image_features(pixel_values=torch.zeros(1, 3, crop, crop)),
        }
    return Transformer(
        str(scratch),
        modality_config={
            modality: {
                "method": f"get_{modality}_features",
                "method_output_name": None if isinstance(found, Tensor) else "pooler_output",
            }
            for modality, found in features.items()
        },
        module_output_name="sentence_embedding",
        processing_kwargs={"text": text},
    )
