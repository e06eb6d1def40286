"""Text encoders as modules of sentence-transformers, whose tokeniser cleans captions as the training data were."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from cusa.annotations.captions import clean_caption
from cusa.config.captions import CaptionCleaning
from cusa.errors import ConfigurationError
from cusa.export.caption_normaliser import add_normaliser, caption_normaliser
from cusa.export.head_modules import dense
from cusa.export.open_clip_conversion import END, linear_of, transformers_text, transformers_tokeniser
from cusa.teachers.encoders import TextEncoder
from cusa.teachers.sentence_encoder import SentenceEncoder, as_sentence_encoder

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MASKED = ("input_ids", "attention_mask")


def text_modules(encoder: TextEncoder, cleaning: CaptionCleaning, max_tokens: int | None) -> list[nn.Module]:
    """Modules of sentence-transformers that give the features of a text encoder for captions that are not cleaned.

    `max_tokens` None takes the encoder's own limit. Raises ConfigurationError for encoders that no library but cusa can
    hold.
    """
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    encoder = as_sentence_encoder(encoder)
    modules = list(encoder.model.children()) if isinstance(encoder, SentenceEncoder) else []
    if not isinstance(encoder, SentenceEncoder) or not isinstance(modules[0], Transformer):
        raise ConfigurationError(
            f"the text tower {encoder.name} ({type(encoder).__name__}) is not a model that plain sentence-transformers "
            "can hold; export with --to onnx instead."
        )
    if encoder.prompt and any(isinstance(each, Pooling) and not each.include_prompt for each in modules):
        raise ConfigurationError(
            f"the text tower {encoder.name} leaves the prompt {encoder.prompt!r} out of its pooling. Plain "
            "sentence-transformers cannot do that together with the clean-up of captions; export with --to onnx "
            "instead."
        )
    first = copy.copy(modules[0])  # its weights are shared, its tokeniser is another
    limit, pad = encoder.token_limit(max_tokens), encoder.pad_token
    tokeniser = cleaning_tokeniser(encoder.model.tokenizer, cleaning, limit, pad, encoder.prompt)
    first.processor = tokeniser
    first.modality_config = {"text": first.modality_config["text"]}  # no chat template is put around captions
    first.processing_kwargs = {}
    return [first, *modules[1:], *_cut(encoder)]


def _cut(encoder: SentenceEncoder) -> list[nn.Module]:
    """Modules that keep the first numbers of an embedding, where `matryoshka_dimension` says so."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    if not encoder.is_cut:
        return []
    whole = encoder.model.get_embedding_dimension()
    assert whole is not None
    kept = dense(linear_of(torch.eye(encoder.dimension, whole)))
    return [kept, Normalize()] if encoder.normalises else [kept]


def open_clip_text_modules(
    model: Any, tokeniser: Any, cleaning: CaptionCleaning, max_tokens: int, scratch: Path
) -> list[nn.Module]:
    """Modules that give the text features of a CLIP of open_clip."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    network, projection = transformers_text(model)
    network.save_pretrained(scratch)
    known = transformers_tokeniser(tokeniser)
    end = known.convert_tokens_to_ids(END)
    cleaning_tokeniser(known, cleaning, max_tokens, end).save_pretrained(scratch)
    module = Transformer(
        str(scratch),
        modality_config={"text": {"method": "forward", "method_output_name": "pooler_output"}},
        module_output_name="sentence_embedding",
    )
    return [module, dense(linear_of(projection.T))]


def cleaning_tokeniser(
    tokeniser: Any,
    cleaning: CaptionCleaning,
    limit: int,
    pad: int,
    prompt: str = "",
    inputs: tuple[str, ...] = MASKED,
) -> Any:
    """A copy of a tokeniser that gives for a raw caption the ids of the cleaned one, after `prompt`, at most `limit`.

    It pads on the right with the id `pad`. Raises ConfigurationError for tokenisers without a normaliser.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if not isinstance(getattr(tokeniser, "backend_tokenizer", None), Tokenizer):
        raise ConfigurationError(
            f"the tokeniser {type(tokeniser).__name__} is written in Python and has no normaliser, so an export to "
            "sentence-transformers could not clean captions; export with --to safetensors instead."
        )
    names = {name: getattr(tokeniser, name, None) for name in SPECIAL}
    names["pad_token"] = tokeniser.convert_ids_to_tokens(pad)
    settings: dict[str, Any] = {"model_max_length": limit, "padding_side": "right", "truncation_side": "right"}
    candidates, wrap = [], cast("Any", PreTrainedTokenizerFast)
    for split in (False, True):
        backend = Tokenizer.from_str(tokeniser.backend_tokenizer.to_str())
        backend.no_truncation()
        backend.no_padding()
        add_normaliser(backend, caption_normaliser(cleaning, prompt))
        given: dict[str, Any] = {name: token for name, token in names.items() if token is not None}
        given |= settings | {"split_special_tokens": split, "model_input_names": list(inputs)}
        candidates.append(wrap(tokenizer_object=backend, **given))
    # Special tokens are looked for in a text before it is cleaned. If the clean-up changes their names, as it does
    # [SEP], the student has never met them in a caption, and they are split as other words are.
    mistakes = [_mistaken(tokeniser, candidate, cleaning, prompt) for candidate in candidates]
    return candidates[mistakes.index(min(mistakes))]


def _mistaken(tokeniser: Any, copied: Any, cleaning: CaptionCleaning, prompt: str) -> int:
    """The number of special tokens that the copy, as parts of a caption, reads otherwise than the student does."""
    texts = [f"a {token} b" for token in tokeniser.all_special_tokens]
    cleaned = [prompt + clean_caption(text, cleaning) for text in texts]
    if not texts:
        return 0
    expected, found = tokeniser(cleaned)["input_ids"], copied(texts)["input_ids"]
    return sum(one != other for one, other in zip(expected, found, strict=True))
