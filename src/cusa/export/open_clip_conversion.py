"""The ResNet CLIPs of open_clip as a timm network and a text model of transformers, which plain libraries load."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cusa.errors import ConfigurationError

# timm's networks, by the channels of the last stage and the number of blocks.
TIMM_NAMES = {
    (2048, 16): "resnet50_clip",
    (2048, 33): "resnet101_clip",
    (2560, 26): "resnet50x4_clip",
    (3072, 40): "resnet50x16_clip",
    (4096, 64): "resnet50x64_clip",
}
START, END = "<|startoftext|>", "<|endoftext|>"


def timm_resnet(visual: Any) -> tuple[Any, str, nn.Linear]:
    """The image side of open_clip in timm without its last projection, its name there, and that projection.

    Raises ConfigurationError if timm has no network of this form.
    """
    import timm
    from timm.models.byobnet import checkpoint_filter_fn

    pool = visual.attnpool
    blocks = sum(len(getattr(visual, f"layer{stage}")) for stage in (1, 2, 3, 4))
    name = TIMM_NAMES.get((pool.k_proj.in_features, blocks))
    if name is None:
        raise ConfigurationError(
            f"timm has no ResNet CLIP of {blocks} blocks and {pool.k_proj.in_features} channels, so plain "
            "sentence-transformers cannot hold this student; export with --to onnx instead."
        )
    network: Any = timm.create_model(name, pretrained=False, num_classes=0)
    state = checkpoint_filter_fn({f"visual.{key}": tensor for key, tensor in visual.state_dict().items()}, network)
    network.load_state_dict({key: tensor for key, tensor in state.items() if not key.startswith("head.proj.")})
    return network.eval(), name, pool.c_proj


def transformers_text(model: Any) -> tuple[Any, Tensor]:
    """The text side of open_clip as a CLIPTextModel, and the projection after it, [features, embedding]."""
    from transformers import CLIPTextConfig, CLIPTextModel

    positions, width = model.positional_embedding.shape
    blocks = model.transformer.resblocks
    end = model.token_embedding.num_embeddings - 1
    text: Any = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=end + 1,
            hidden_size=width,
            intermediate_size=blocks[0].mlp.c_fc.out_features,
            num_hidden_layers=len(blocks),
            num_attention_heads=blocks[0].attn.num_heads,
            max_position_embeddings=positions,
            hidden_act="gelu" if isinstance(blocks[0].mlp.gelu, nn.GELU) else "quick_gelu",
            layer_norm_eps=model.ln_final.eps,
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=0,
        )
    )
    state = {
        "embeddings.token_embedding.weight": model.token_embedding.weight,
        "embeddings.position_embedding.weight": model.positional_embedding,
        "final_layer_norm.weight": model.ln_final.weight,
        "final_layer_norm.bias": model.ln_final.bias,
    }
    for number, block in enumerate(blocks):
        state |= {f"encoder.layers.{number}.{name}": tensor for name, tensor in _layer(block).items()}
    wanted = text.state_dict()
    prefix = "text_model." if "text_model.final_layer_norm.weight" in wanted else ""
    missing = text.load_state_dict({prefix + name: tensor for name, tensor in state.items()}, strict=False)
    assert all(name.endswith("position_ids") for name in missing.missing_keys), missing.missing_keys
    return text.eval(), model.text_projection


def _layer(block: Any) -> dict[str, Tensor]:
    """The weights of a block of open_clip's transformer by their names in a layer of transformers' CLIP."""
    state: dict[str, Tensor] = {}
    for name, (weight, bias) in {
        "layer_norm1": (block.ln_1.weight, block.ln_1.bias),
        "layer_norm2": (block.ln_2.weight, block.ln_2.bias),
        "mlp.fc1": (block.mlp.c_fc.weight, block.mlp.c_fc.bias),
        "mlp.fc2": (block.mlp.c_proj.weight, block.mlp.c_proj.bias),
        "self_attn.out_proj": (block.attn.out_proj.weight, block.attn.out_proj.bias),
    }.items():
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    weights, biases = (each.chunk(3) for each in (block.attn.in_proj_weight, block.attn.in_proj_bias))
    for name, weight, bias in zip("qkv", weights, biases, strict=True):
        state |= {f"self_attn.{name}_proj.weight": weight, f"self_attn.{name}_proj.bias": bias}
    return state


def transformers_tokeniser(tokeniser: Any) -> Any:
    """open_clip's tokeniser as one of transformers: the same vocabulary and merges, and CLIP's own rules.

    open_clip also repairs wrongly decoded text (ftfy) and HTML entities before it splits a text; this one does not.
    """
    from transformers import CLIPTokenizer

    names = {"<start_of_text>": START, "<end_of_text>": END}
    vocabulary = {names.get(token, token): number for token, number in tokeniser.encoder.items()}
    merges = [pair for pair, _ in sorted(tokeniser.bpe_ranks.items(), key=lambda item: item[1])]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, bos_token=START, eos_token=END, pad_token=END)


def linear_of(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer with a weight [out, in] and a bias [out]."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
