"""Loads tokenisers of transformers that may lack a padding token, a length or files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from cusa.errors import ConfigurationError

# Tokenisers without a limit give 1e30, which their own code does not accept as a length.
NO_LENGTH = 1_000_000
MANY = 256  # number of texts from which the library is called directly
COMPARED = 16  # number of these that transformers tokenises too, for comparison
POSITIONS = ("position_embeddings", "position_embedding", "wpe")


def load_tokeniser(source: str) -> Any:
    """The tokeniser of a model's name or folder. Raises ConfigurationError if its files are missing."""
    from transformers import AutoTokenizer

    tokeniser = AutoTokenizer.from_pretrained(source)
    require_words(tokeniser, source)
    return tokeniser


def require_words(tokeniser: Any, source: str) -> None:
    """Raise ConfigurationError for a tokeniser without words: transformers makes one if its files are missing."""
    if len(tokeniser) <= len(set(tokeniser.all_special_tokens)):
        raise ConfigurationError(
            f"the tokeniser of {source} knows {len(tokeniser)} tokens, all of them special, so every caption "
            "would be the same; its files (tokenizer.json, or those of its vocabulary) are missing. Put them "
            "beside config.json."
        )


def token_ids(tokeniser: Any, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """The `input_ids` of `tokeniser(texts, truncation=True, max_length=max_tokens)`, in a third of the time.

    The library of fast tokenisers uses threads. transformers then converts the results in Python, which takes longer
    than the tokenising, but only the ids are needed. If the two differ for some of the texts, transformers tokenises: a
    class of tokenisers may do more than its library.
    """

    def slowly(some: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = tokeniser(list(some), truncation=True, max_length=max_tokens)["input_ids"]
        return ids

    if len(texts) < MANY or not getattr(tokeniser, "is_fast", False):
        return slowly(texts)
    compared = range(0, len(texts), len(texts) // COMPARED)
    expected = slowly([texts[place] for place in compared])  # it also sets the length in the library
    ids = [encoding.ids for encoding in tokeniser.backend_tokenizer.encode_batch_fast(list(texts))]
    return ids if [ids[place] for place in compared] == expected else slowly(texts)


def padding_id(tokeniser: Any, vocabulary: int | None) -> int:
    """The id that captions are padded with: of the padding token, else of the end of text, else 0.

    The model has to know it: it is below `vocabulary`, the number of ids of the model, if that is known.
    """
    for token in (tokeniser.pad_token_id, tokeniser.eos_token_id):
        if token is not None and (vocabulary is None or token < vocabulary):
            return int(token)
    return 0


def known_ids(network: nn.Module) -> int | None:
    """The number of token ids that a text model has vectors for; None if it does not say so."""
    configuration: Any = getattr(network, "config", None)
    text = getattr(configuration, "text_config", configuration)
    size = getattr(text, "vocab_size", None)
    return size if isinstance(size, int) else None


def positions_of(network: nn.Module) -> int | None:
    """The number of tokens that a text model has positions for; None if positions are not looked up.

    RoBERTa and similar models count positions from the one after that of padding.
    """
    for name, module in network.named_modules():
        if name.rpartition(".")[2] in POSITIONS and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


def shortest(*limits: float | None, default: int) -> int:
    """The smallest of the limits that are lengths; `default` if none is."""
    return min((int(limit) for limit in limits if limit and limit < NO_LENGTH), default=default)


def require_known(tokens: Sequence[Sequence[int]], vocabulary: int | None, name: str) -> None:
    """Raise ConfigurationError if a token id is one that the text model has no vector for."""
    largest = max((max(row) for row in tokens if row), default=0)
    if vocabulary is not None and largest >= vocabulary:
        raise ConfigurationError(
            f"the tokeniser of {name} gives the id {largest}, but its text model knows {vocabulary} ids; the tokeniser "
            "belongs to another model, or tokens were added to it and not to the model."
        )
