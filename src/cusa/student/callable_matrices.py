"""Modules in an equivalent form with the same weights, so that adapters can be added to their matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

ORIGINAL = "original"


class LinearAttention(nn.Module):
    """The self-attention of an nn.MultiheadAttention, whose projections are called as linear layers.

    nn.MultiheadAttention reads the weights of its projections without calling them, so an adapter beside them would
    never be computed. The weights are those of the original, not copies.
    """

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
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


def with_callable_matrices(module: nn.Module, inputs: tuple[Any, ...]) -> nn.Module | None:
    """A module that computes what `module` computed of `inputs`, by matrices that can have adapters.

    It shares the weights of `module`, and `original_of` gives that back. None if `module` needs no replacement, or
    if none is known.
    """
    replacement: nn.Module
    if can_be_linear(module, inputs):
        assert isinstance(module, nn.MultiheadAttention)
        replacement = LinearAttention(module)
    elif isinstance(module, nn.Conv2d) and type(module) is not nn.Conv2d and module.kernel_size == (1, 1):
        # peft builds an adapter by calling the class of the module, but does not know the arguments of this subclass.
        replacement = _plain_convolution(module)
        if not torch.equal(replacement(*inputs), module(*inputs)):
            return None
    else:
        return None
    object.__setattr__(replacement, ORIGINAL, module)  # not as a submodule: its weights would have two names
    return replacement.train(module.training)


def original_of(module: nn.Module) -> nn.Module | None:
    """The module that `with_callable_matrices` replaced by `module`; None for any other module."""
    original: nn.Module | None = module.__dict__.get(ORIGINAL)
    return None if original is None else original.train(module.training)


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


def _plain_convolution(module: nn.Conv2d) -> nn.Conv2d:
    """A 1 x 1 convolution with the weights of `module`."""
    across, down = module.stride
    sizes, bias = (module.in_channels, module.out_channels), module.bias is not None
    plain = nn.Conv2d(*sizes, 1, (across, down), groups=module.groups, bias=bias, device="meta")
    plain.weight, plain.bias = module.weight, module.bias
    return plain
