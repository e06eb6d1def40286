"""Small architectures of open_clip with random weights, as files and folders: nothing is fetched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

TEXT = {"vocab_size": 32, "width": 32, "heads": 2, "layers": 2}
# SigLIP2: a network of timm, texts of one length that are read at their last position, punctuation taken away.
SIGLIP2: dict[str, Any] = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
    "text_cfg": {
        **TEXT,
        "context_length": 12,
        "hf_tokenizer_name": "no-one/has-this-tokeniser",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}
# CLIP with a context of more than 77 tokens.
LONG_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {**TEXT, "vocab_size": 49408, "context_length": 120},
}
# MobileCLIP: batch normalisation, and texts that are read in both directions, padding included.
MOBILE_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "custom_text": True,
    "vision_cfg": {"image_size": 64, "timm_model_name": "test_efficientnet", "timm_pool": "avg"},
    "text_cfg": {**TEXT, "vocab_size": 49408, "context_length": 20, "no_causal_mask": True},
}
ARCHITECTURES = {"tiny-SigLIP2": SIGLIP2, "tiny-LongCLIP": LONG_CLIP, "tiny-MobileCLIP": MOBILE_CLIP}
SQUEEZED = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash"}


def add_architectures(folder: Path) -> None:
    """Make open_clip know ARCHITECTURES by their names; `folder` holds their files as long as it is used."""
    import open_clip

    for name, settings in ARCHITECTURES.items():
        (folder / f"{name}.json").write_text(json.dumps(settings))
    open_clip.add_model_config(folder)


def write_weights(architecture: str, file: Path) -> Path:
    """A file with random weights of an architecture."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(5)
    model = open_clip.create_model(architecture)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms and biases start at 1 and 0, so that many mistakes would not be seen
            torch.nn.init.normal_(parameter, 1.0, 0.2)
    save_file(model.state_dict(), file)
    return file


def put_tokeniser_beside(file: Path, tokeniser: Path) -> None:
    """Copy the files of a tokeniser of transformers to the folder of a file of weights."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokeniser / name, file.parent)
