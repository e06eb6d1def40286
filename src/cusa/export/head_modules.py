"""Projections and heads as modules of sentence-transformers."""

from __future__ import annotations

import torch
from torch import nn


def dense(linear: nn.Module) -> nn.Module:
    """A linear layer [in] to [out] as a Dense module without activation."""
    from sentence_transformers.sentence_transformer.modules import Dense

    assert isinstance(linear, nn.Linear)
    return Dense(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        activation_function=nn.Identity(),
        init_weight=linear.weight.detach().clone(),
        init_bias=None if linear.bias is None else linear.bias.detach().clone(),
    )


def projection_modules(projection: nn.Module) -> list[nn.Module]:
    """The projection of a pair of towers; no module if the features are used as they are."""
    return [] if isinstance(projection, nn.Identity) else [dense(projection)]


def head_modules(heads: nn.ModuleDict, family: str, modality: str) -> list[nn.Module]:
    """A head, LayerNorm and Linear; no module if the student has no such head, and its features are used."""
    from sentence_transformers.sentence_transformer.modules import LayerNorm

    if (name := f"{family}_{modality}") not in heads:
        return []
    head = heads[name]
    assert isinstance(head, nn.Sequential)
    norm, linear = head
    assert isinstance(norm, nn.LayerNorm)
    layer = LayerNorm(norm.normalized_shape[0])
    with torch.no_grad():
        layer.norm.load_state_dict(norm.state_dict())
    return [layer, dense(linear)]
