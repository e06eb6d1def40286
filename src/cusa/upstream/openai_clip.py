"""Translation of OpenAI's CLIP state dicts to Hugging Face's: the configuration and the names of tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

CLIP = "clip_model."
HEAD_WIDTH = 64
# With this end-of-text id, transformers takes the text features at the largest token id, as OpenAI's code does.
LARGEST_TOKEN_ID = 2


def clip_configuration(clip: Mapping[str, Tensor]) -> Any:
    """The CLIPConfig of an OpenAI CLIP with a vision transformer, from the shapes of its tensors.

    Raises KeyError when a tensor is missing.
    """
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


def hugging_face_names(clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate OpenAI's state dict to the one of transformers' CLIPModel."""
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
