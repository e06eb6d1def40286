"""Files in the shape of those that the authors published."""

from __future__ import annotations

import os
from pathlib import Path

import yaml


def soft(prefix: str, tau: float, low: float, high: float) -> dict:
    found = {}
    for side in ("image", "text"):
        found |= {f"{prefix}{side}_tau": tau, f"{prefix}{side}_tau_min": low, f"{prefix}{side}_tau_max": high}
    return found


def published(cross: bool = True, uni: bool = True) -> dict:
    """The values of all eight published configurations."""
    common = {"use_loss": "kl", "contrastive_loss_mode": "mean", **soft("the_softlabel_", 1.0, 0.1, 1.0)}
    return {
        "contrastive": {
            "is_on": True,
            "is_block_tau": False,
            "tau": 0.05,
            "tau_min": 0.01,
            "tau_max": 0.10,
            "rate": 1.0,
            "contrastive_loss_mode": "mean",
        },
        "cross_softlabel": {
            "is_on": cross,
            "use_same_tau": True,
            "is_block_tau": False,
            **soft("", 0.45, 0.10, 0.99),
            "rate": 0.10,
            **common,
            "cross_softlabel_mode": "each",
            "use_same_softlabel_tau": True,
            "is_block_softlabel_tau": True,
        },
        "uni_softlabel": {
            "is_on": uni,
            "use_cross_softlabel_same_tau": False,
            "use_same_tau": False,
            "is_block_tau": False,
            **soft("", 0.45, 0.10, 1.00),
            "rate": 0.50,
            **common,
            "use_cross_softlabel_same_softlabel_tau": True,
            "use_same_softlabel_tau": False,
            "is_block_softlabel_tau": True,
        },
    }


def published_yaml(folder: Path, student="ViT-B/32", batch_size=128, epochs=30, **changes) -> Path:
    content = {
        "save_path": "output/vitb32/coco/cusa",
        "dataset_name": "cross_coco",
        "data_path": "",
        "batch_size_train": batch_size,
        "batch_size_test": batch_size,
        "batch_size_testall": batch_size,
        "clip_model": student,
        "is_all_gather": False,
        "loss_config": published(),
        "optimizer": {"opt": "adamW", "lr": 0.00001, "weight_decay": 0.0001},
        "schedular": {
            "sched": "cosine",
            "epochs": epochs,
            "min_lr": 0.000001,
            "decay_rate": 1,
            "warmup_lr": 0.00001,
            "warmup_epochs": 0,
            "cooldown_epochs": 0,
        },
    }
    path = folder / "published.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


class Hostile:
    """What a pickle of it would do when it is read by pickle."""

    def __reduce__(self):
        return os.system, ("touch was-here",)


def save_checkpoint(path: Path, state: dict, **more) -> Path:
    import torch

    torch.save({"model": state, "epoch": 4, "best": 70.1, "best_epoch": 3, **more}, path)
    return path


def checkpoint_of(student_folder: Path, path: Path) -> Path:
    """A checkpoint with the sizes of a Hugging Face folder; its key names are translated to OpenAI's by hand.

    It has no `logit_scale`, as those of the authors have none.
    """
    import torch
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(student_folder)
    state, dimension, clip = model.state_dict(), model.config.projection_dim, {}
    special = {
        "visual_projection.weight": "visual.proj",
        "text_projection.weight": "text_projection",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
        "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
        "vision_model.post_layernorm.weight": "visual.ln_post.weight",
        "vision_model.post_layernorm.bias": "visual.ln_post.bias",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
    }
    for name, tensor in state.items():
        if name == "logit_scale":
            continue
        if name in special:
            clip[special[name]] = tensor.T if "projection" in name else tensor
        elif "q_proj" in name:
            parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            target = name.replace("self_attn.q_proj.", "attn.in_proj_")
            clip[openai_block(target)] = torch.cat(parts)
        elif "k_proj" not in name and "v_proj" not in name:
            clip[openai_block(name)] = tensor
    heads = {}
    for side in ("image", "text"):
        heads[f"cross_{side}_projection.weight"] = torch.randn(dimension, dimension)
        heads[f"cross_{side}_projection.bias"] = torch.zeros(dimension)
        heads[f"ln_cross_{side}_projection.weight"] = torch.ones(dimension)
        heads[f"ln_cross_{side}_projection.bias"] = torch.zeros(dimension)
    whole = {f"clip_model.{name}": tensor for name, tensor in clip.items()} | heads | {"tau": torch.tensor(0.03)}
    config = {"loss_config": published(cross=False, uni=False), "schedular": {"epochs": 30}}
    return save_checkpoint(path, whole, config=config)


def openai_block(name: str) -> str:
    for ours, theirs in (
        ("vision_model.encoder.layers", "visual.transformer.resblocks"),
        ("text_model.encoder.layers", "transformer.resblocks"),
        ("self_attn", "attn"),
        ("layer_norm", "ln_"),
        ("fc1", "c_fc"),
        ("fc2", "c_proj"),
    ):
        name = name.replace(ours, theirs)
    return name


def clip_with_heads_of_64(tiny_clip: Path, folder: Path) -> Path:
    """Like tiny_clip, but with attention heads of 64 dimensions, as OpenAI's models have."""
    import shutil

    import torch
    from transformers import CLIPConfig, CLIPModel

    shutil.copytree(tiny_clip, folder)
    torch.manual_seed(5)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = sizes | {"vocab_size": 32, "max_position_embeddings": 32, "eos_token_id": 2}
    vision = sizes | {"image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    return folder
