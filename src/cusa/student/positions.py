"""More positions for a text model than it was trained with, so that it reads longer captions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cusa.errors import ConfigurationError

# Captions are mostly short, so the first positions are trained well and stay as they are.
KEPT = 20


def stretched(table: Tensor, length: int) -> Tensor:
    """A table of positions [P, W] as one of `length` rows: the first KEPT stay, those after are interpolated.

    Zhang et al., Long-CLIP, ECCV 2024 (arXiv 2403.15378), who took the table of CLIP from 77 to 248 rows.
    """
    kept = min(KEPT, len(table) - 1)
    rest = F.interpolate(table[kept:].T[None].double(), size=length - kept, mode="linear", align_corners=True)[0].T
    return torch.cat([table[:kept], rest.to(table.dtype)])


def stretch_transformers(model: Any, length: int, name: str) -> None:
    """Give the text side of a CLIP of transformers `length` positions; does nothing if it already has so many.

    Raises ConfigurationError for models whose text side is not CLIP's.
    """
    embeddings = getattr(getattr(model, "text_model", None), "embeddings", None)
    table = getattr(embeddings, "position_embedding", None)
    if model.config.model_type != "clip" or not isinstance(table, nn.Embedding) or embeddings is None:
        raise _not_possible(name, type(model).__name__)
    if table.num_embeddings >= length:
        return
    longer = nn.Embedding(length, table.embedding_dim)
    with torch.no_grad():
        longer.weight.copy_(stretched(table.weight, length))
    embeddings.position_embedding = longer
    embeddings.register_buffer("position_ids", torch.arange(length)[None], persistent=False)
    model.config.text_config.max_position_embeddings = length


def stretch_open_clip(model: Any, tokeniser: Any, settings: dict[str, Any], length: int, name: str) -> None:
    """The same for a model of open_clip, its tokeniser, and the settings of its architecture (`model_cfg`).

    Raises ConfigurationError for text models that have no table of positions, or read a text at its last one.
    """
    text = getattr(model, "text", model)
    table = getattr(text, "positional_embedding", None)
    at_last = settings.get("text_cfg", {}).get("pool_type", "argmax") not in ("argmax", "eos")
    if not isinstance(table, nn.Parameter) or at_last or getattr(text, "cls_emb", None) is not None:
        raise _not_possible(name, type(text).__name__)
    if len(table) >= length:
        return
    with torch.no_grad():
        text.positional_embedding = nn.Parameter(stretched(table, length))
    if text.attn_mask is not None:  # each token reads those before it
        text.register_buffer("attn_mask", torch.full((length, length), -torch.inf).triu_(1), persistent=False)
    if hasattr(text, "num_pos"):
        text.num_pos = length
    text.context_length = model.context_length = tokeniser.context_length = length
    settings["text_cfg"] = settings["text_cfg"] | {"context_length": length}


def _not_possible(name: str, kind: str) -> ConfigurationError:
    return ConfigurationError(
        f"student.stretch_positions is true, but the text side of {name} ({kind}) is none that can be stretched: it "
        "has no table of positions, or reads a text at its last position. Set it to false, and take a model that reads "
        "more tokens, or a pair of `towers`."
    )
