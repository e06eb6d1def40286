"""EfficientNet-Lite0 as the EfficientNet of transformers, which needs no further package if it is loaded."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cusa.errors import ConfigurationError

# The Lite variant has no squeeze-and-excitation, and transformers' network has one in each block. Weights of 0 and
# this bias make its gate sigmoid(40), which is 1 in float32: it passes on what it reads.
GATE_OPEN = 40.0
BLOCK_PARTS = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}
OTHER_PARTS = {
    "_conv_stem": "embeddings.convolution",
    "_bn0": "embeddings.batchnorm",
    "_conv_head": "encoder.top_conv",
    "_bn1": "encoder.top_bn",
}
STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the stages, each with so many blocks
BLOCKS = (1, 2, 2, 3, 3, 4, 1)


def transformers_efficientnet(network: Any, image_size: int) -> Any:
    """A transformers EfficientNetModel whose pooled output equals the pooled features of EfficientNet-Lite0.

    Raises ConfigurationError if pictures have an odd number of pixels a side, which transformers pads otherwise.
    """
    from transformers import EfficientNetConfig, EfficientNetModel

    if image_size % 2:
        raise ConfigurationError(
            f"EfficientNet-Lite0 at image_size {image_size} has no equal in transformers, which pads pictures with an "
            "odd number of pixels otherwise; export with --to onnx instead."
        )
    # The package pads for pictures of the size that the network was made for, whatever their size is.
    made_for = int(network._global_params.image_size)
    configuration = EfficientNetConfig(
        image_size=image_size,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        hidden_act="relu6",
        hidden_dim=1280,
        num_block_repeats=BLOCKS,
        strides=STRIDES,
        depthwise_padding=_padded_on_both_sides(made_for),
        pooling_type="mean",
        batch_norm_eps=float(network._bn0.eps),
    )
    model: Any = EfficientNetModel(configuration)
    state = model.state_dict()
    for name in state:
        if ".squeeze_excite." in name:
            state[name] = torch.zeros_like(state[name])
            if name.endswith("expand.bias"):
                state[name] += GATE_OPEN
    state |= _renamed(network.state_dict())
    model.load_state_dict(state)
    return model.eval()


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the package's network, without its classifier, by their names in transformers."""
    renamed = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if part == "_blocks":
            number, block_part, kind = rest.split(".")
            renamed[f"encoder.blocks.{number}.{BLOCK_PARTS[block_part]}.{kind}"] = tensor
        elif part in OTHER_PARTS:
            renamed[f"{OTHER_PARTS[part]}.{rest}"] = tensor
    return renamed


def _padded_on_both_sides(image_size: int) -> list[int]:
    """The numbers of the blocks with a stride of 2 whose input has an odd number of pixels a side."""
    side, number, found = math.ceil(image_size / 2), 0, []  # after the stem
    for stride, blocks in zip(STRIDES, BLOCKS, strict=True):
        if stride == 2:
            if side % 2:
                found.append(number)
            side = math.ceil(side / 2)
        number += blocks
    return found
