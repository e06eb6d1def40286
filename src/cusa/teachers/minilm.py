"""all-MiniLM-L6-v2 without transformers, for features and queries.

sentence-transformers imports transformers, which takes twice as long as all else that a job with few texts does. The
operations are those of BERT in transformers, so the features are the same.

Wang et al., MiniLM, NeurIPS 2020; Reimers and Gurevych, Sentence-BERT, EMNLP 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from cusa.teachers.encoders import TextEncoder
from cusa.teachers.token_use import Vocabulary, own_tokens, unknown_token

WIDTH, HIDDEN, HEADS, LAYERS = 384, 1536, 12, 6
MAX_TOKENS = 256  # the model's max_seq_length, special tokens included
EPSILON = 1e-12
# The names of BERT's weights in a layer, and ours.
IN_LAYER = {
    "attention.output.dense": "attended",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "hidden",
    "output.dense": "output",
    "output.LayerNorm": "output_norm",
}


class Layer(nn.Module):
    """A layer of BERT: attention and a perceptron, each added to its input and then normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.queries_keys_values = nn.Linear(WIDTH, 3 * WIDTH)
        self.attended = nn.Linear(WIDTH, WIDTH)
        self.attention_norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.hidden = nn.Linear(WIDTH, HIDDEN)
        self.output = nn.Linear(HIDDEN, WIDTH)
        self.output_norm = nn.LayerNorm(WIDTH, eps=EPSILON)

    def forward(self, tokens: Tensor, is_read: Tensor) -> Tensor:
        """The next tokens [B, T, 384] of tokens; `is_read`, bool [B, 1, 1, T], is false for padding."""
        heads = self.queries_keys_values(tokens).unflatten(2, (3, HEADS, WIDTH // HEADS))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(queries, keys, values, is_read)
        tokens = self.attention_norm(tokens + self.attended(attended.transpose(1, 2).flatten(2)))
        normed: Tensor = self.output_norm(tokens + self.output(nn.functional.gelu(self.hidden(tokens))))
        return normed


class MiniLM(TextEncoder):
    """384-d normalised means of the last layer's tokens, as the model's own modules for sentence-transformers give.

    `folder` holds the model's files. It takes no prompt, and cuts no embeddings.
    """

    dimension = WIDTH
    prompt = ""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.weights_file = folder, folder / "model.safetensors"
        self.tokeniser = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokeniser.no_padding()
        self.tokeniser.no_truncation()
        weights = load_file(self.weights_file)
        with torch.device("meta"):  # the weights come from the file, so none are drawn
            self.words = nn.Embedding(*weights["embeddings.word_embeddings.weight"].shape)
            self.positions = nn.Embedding(*weights["embeddings.position_embeddings.weight"].shape)
            self.kinds = nn.Embedding(*weights["embeddings.token_type_embeddings.weight"].shape)
            self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)
            self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.load_state_dict(_renamed(weights), assign=True)

    def tokenise(self, captions: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        """Token ids of each caption, special tokens included, truncated."""
        limit = self.token_limit(max_tokens)
        rows = [encoding.ids for encoding in self.tokeniser.encode_batch_fast(list(captions))]
        return [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in rows]

    def token_limit(self, max_tokens: int | None = None) -> int:
        """The largest number of tokens of a text, special tokens included, at most `max_tokens`."""
        return min(max_tokens or MAX_TOKENS, MAX_TOKENS)

    def vocabulary(self, max_tokens: int | None = None) -> Vocabulary:
        """The vocabulary of the model's own tokeniser."""
        room = self.token_limit(max_tokens) - len(self.tokenise([""])[0])
        return Vocabulary(partial(own_tokens, self.tokeniser), unknown_token(self.tokeniser), room)

    @property
    def pad_token(self) -> int:
        """The padding id."""
        return int(self.tokeniser.token_to_id("[PAD]") or 0)

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Sentence embeddings [B, 384] of `input_ids` and `attention_mask`, int64 [B, T]."""
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        places = torch.arange(ids.shape[1], device=ids.device)
        kinds = self.kinds(torch.zeros_like(ids))
        hidden: Tensor = self.norm(self.words(ids) + kinds + self.positions(places))
        is_read = mask.bool()[:, None, None]
        for layer in self.layers:
            hidden = layer(hidden, is_read)
        counted = mask.unsqueeze(2).to(hidden.dtype)
        means = (hidden * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        return nn.functional.normalize(means, dim=1)


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the package by the names of MiniLM; those of BERT's pooler are not used."""
    found = {
        "words.weight": weights["embeddings.word_embeddings.weight"],
        "positions.weight": weights["embeddings.position_embeddings.weight"],
        "kinds.weight": weights["embeddings.token_type_embeddings.weight"],
    }
    for kind in ("weight", "bias"):
        found[f"norm.{kind}"] = weights[f"embeddings.LayerNorm.{kind}"]
        for number in range(LAYERS):
            theirs, ours = f"encoder.layer.{number}", f"layers.{number}"
            parts = [weights[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            found[f"{ours}.queries_keys_values.{kind}"] = torch.cat(parts)
            found |= {f"{ours}.{our}.{kind}": weights[f"{theirs}.{their}.{kind}"] for their, our in IN_LAYER.items()}
    return found
