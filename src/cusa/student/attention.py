"""PyTorch's multi-head attention with linear layers of its own, so that adapters can be put beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class LinearAttention(nn.Module):
    """The self-attention of an nn.MultiheadAttention, whose projections are called as linear layers.

    nn.MultiheadAttention reads the weights of its projections without calling them, so an adapter beside them would
    never be computed. The weights are those of the original, not copies.
    """

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        self.original_settings = {
            "embed_dim": original.embed_dim,
            "num_heads": original.num_heads,
            "dropout": original.dropout,
            "bias": original.in_proj_bias is not None,
            "batch_first": original.batch_first,
        }
        self.heads, self.dropout, self.batch_first = original.num_heads, original.dropout, original.batch_first
        self.in_proj = _linear(original.in_proj_weight, original.in_proj_bias)
        self.out_proj = _linear(original.out_proj.weight, original.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """As nn.MultiheadAttention for a query that is key and value too, without the weights; no padding mask."""
        assert query is key and key is value and key_padding_mask is None and not need_weights
        if not self.batch_first:
            query = query.transpose(0, 1)
        batch, length, width = query.shape
        split = self.in_proj(query).view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        mask = None if attn_mask is None else self._mask(attn_mask, batch, queries.dtype)
        share = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(queries, keys, values, mask, share)
        output: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return output if self.batch_first else output.transpose(0, 1), None

    def _mask(self, mask: Tensor, batch: int, dtype: torch.dtype) -> Tensor:
        """A mask as scaled_dot_product_attention takes it; in nn.MultiheadAttention, true means masked."""
        if mask.ndim == 3:
            mask = mask.view(batch, self.heads, *mask.shape[1:])
        return ~mask if mask.dtype == torch.bool else mask.to(dtype)

    def restored(self) -> nn.MultiheadAttention:
        """The nn.MultiheadAttention with the weights of now."""
        original = nn.MultiheadAttention(**self.original_settings, device="meta")
        original.register_parameter("in_proj_weight", self.in_proj.weight)  # type: ignore[arg-type]
        original.register_parameter("in_proj_bias", self.in_proj.bias)
        original.out_proj.register_parameter("weight", self.out_proj.weight)  # type: ignore[arg-type]
        original.out_proj.register_parameter("bias", self.out_proj.bias)
        return original.train(self.training)


def can_be_linear(module: nn.Module, inputs: tuple[Any, ...]) -> bool:
    """Whether `LinearAttention` computes what a module did with `inputs`: plain self-attention."""
    return (
        type(module) is nn.MultiheadAttention
        and module._qkv_same_embed_dim
        and module.bias_k is None
        and not module.add_zero_attn
        and len(inputs) == 3
        and inputs[0] is inputs[1]
        and inputs[1] is inputs[2]
    )


def _linear(weight: Tensor | None, bias: Tensor | None) -> nn.Linear:
    assert isinstance(weight, nn.Parameter)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = weight
    linear.bias = bias  # type: ignore[assignment]
    return linear
