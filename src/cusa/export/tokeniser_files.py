"""A model's tokeniser as the file tokenizer.json, which the package tokenizers reads without torch and transformers."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from cusa.errors import ConfigurationError
from cusa.model.onnx_folder import TextPreparation
from cusa.model.run_model import Model
from cusa.student.dual_encoder import DualEncoder
from cusa.student.open_clip_models import OpenClip
from cusa.student.towers import TowerPair
from cusa.teachers.encoders import TextEncoder
from cusa.teachers.minilm import MiniLM
from cusa.teachers.sentence_encoder import SentenceEncoder
from cusa.teachers.tokenisers import shortest

# Texts that tokenisers treat in different ways: case, accents, digits, joined words, other scripts, long ones.
SAMPLES = (
    "a red circle and a large blue square",
    "A Café, naïve; the dog's 3 toys (1,234.5) & more!",
    "birthday cake with candles",
    "réunion Ελληνικά 日本語 emoji 🎂 supercalifragilistic",
    "a dog runs " * 60,
    "x",
)


def write_tokeniser(model: Model, path: Path, captions: Sequence[str] = ()) -> TextPreparation:
    """Write the tokeniser of a model, with its truncation, and return how texts are to be prepared for it.

    Raises ConfigurationError if the tokeniser cannot be expressed in this file, or gives other tokens than the
    model's own for SAMPLES or for `captions`, which are cleaned.
    """
    tokeniser, preparation = _converted(model)
    tokeniser.no_padding()
    tokeniser.enable_truncation(preparation.max_tokens)
    texts = [*SAMPLES, *captions]
    expected = tokens_of(model, texts)
    found = [each.ids for each in tokeniser.encode_batch([preparation.prompt + text for text in texts])]
    if preparation.fixed_length:
        length, pad = preparation.max_tokens, preparation.pad_token
        found = [[*ids, *[pad] * (length - len(ids))] for ids in found]
    if other := [text for text, ours, theirs in zip(texts, found, expected, strict=True) if ours != theirs]:
        raise ConfigurationError(
            f"the tokeniser of the run cannot be expressed as {path.name}: it gives other tokens for {len(other)} of "
            f"{len(texts)} texts, for instance {other[0][:80]!r}. Export the run with --to safetensors."
        )
    tokeniser.save(str(path))
    return preparation


def tokens_of(model: Model, cleaned: Sequence[str]) -> list[list[int]]:
    """The token ids that the model's own text tower reads for cleaned texts."""
    if model.text_encoder is not None:
        return model.text_encoder.tokenise(cleaned)
    return model.encoder.student.backbone.tokenise(cleaned)[0]


def _converted(model: Model) -> tuple[Tokenizer, TextPreparation]:
    backbone = model.encoder.student.backbone
    if isinstance(backbone, DualEncoder):
        pad = backbone.tokenise(["x"])[1]
        preparation = TextPreparation(
            max_tokens=backbone.max_tokens, pad_token=pad, fixed_length=backbone.fixed_length, prompt=""
        )
        return _backend(backbone.tokeniser, "the student"), preparation
    if isinstance(backbone, OpenClip):
        preparation = TextPreparation(
            max_tokens=backbone.max_tokens, pad_token=backbone.pad, fixed_length=False, prompt=""
        )
        return _open_clip_tokeniser(backbone), preparation
    encoder: TextEncoder | None = model.text_encoder
    limit: int | None = None
    if encoder is None and isinstance(backbone, TowerPair):
        encoder, limit = backbone.text_tower, backbone.max_tokens
    if isinstance(encoder, MiniLM):
        preparation = TextPreparation(
            max_tokens=encoder.token_limit(limit), pad_token=encoder.pad_token, fixed_length=False, prompt=""
        )
        return Tokenizer.from_str(encoder.tokeniser.to_str()), preparation
    if isinstance(encoder, SentenceEncoder):
        longest = shortest(limit, encoder.model.max_seq_length, encoder.positions, default=512)
        preparation = TextPreparation(
            max_tokens=longest, pad_token=encoder.pad_token, fixed_length=False, prompt=encoder.prompt
        )
        return _backend(encoder.model.tokenizer, encoder.name), preparation
    kind = type(backbone if encoder is None else encoder).__name__
    raise ConfigurationError(
        f"texts are tokenised by the code of {kind}, which an onnx folder cannot hold; export the run with --to "
        "safetensors."
    )


def _backend(tokeniser: Any, name: str) -> Tokenizer:
    """A copy of what a tokeniser of transformers runs, or of what transformers makes of one in Python."""
    backend = getattr(tokeniser, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        from transformers.convert_slow_tokenizer import convert_slow_tokenizer

        try:
            backend = convert_slow_tokenizer(tokeniser)
        except Exception as error:  # the conversion raises anything at tokenisers that it does not know
            raise ConfigurationError(
                f"the tokeniser of {name}, a {type(tokeniser).__name__}, has no fast version that could be exported to "
                "onnx; export the run with --to safetensors."
            ) from error
    return Tokenizer.from_str(backend.to_str())


def _open_clip_tokeniser(backbone: OpenClip) -> Tokenizer:
    """The tokeniser of a model of open_clip with its own clean-up of texts; that of HTML and of wrong decoding is not.

    For SigLIP it takes away punctuation and capital letters.
    """
    if backbone.words is None:
        return _open_clip(backbone.tokeniser)
    converted = _backend(backbone.words, "the student")
    clean: list[Any] = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    if backbone.tokeniser.clean_fn("A.b") == "ab":
        signs = "".join(f"\\{sign}" for sign in string.punctuation if sign != "_")
        punctuation = normalizers.Replace(Regex(f"[{signs}]"), "")
        clean = [normalizers.Replace("_", " "), punctuation, normalizers.Lowercase(), *clean]
    own = [] if converted.normalizer is None else [converted.normalizer]
    converted.normalizer = normalizers.Sequence([*clean, *own])
    return converted


def _open_clip(tokeniser: Any) -> Tokenizer:
    """CLIP's byte pair encoding with open_clip's vocabulary."""
    merges = sorted(tokeniser.bpe_ranks, key=tokeniser.bpe_ranks.get)
    start, end = tokeniser.all_special_ids[0], tokeniser.all_special_ids[1]
    texts = {number: token for token, number in tokeniser.encoder.items()}
    converted = Tokenizer(
        models.BPE(
            vocab=tokeniser.encoder,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=texts[end],
        )
    )
    converted.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"""<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
    converted.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    converted.post_processor = processors.RobertaProcessing(
        (texts[end], end), (texts[start], start), trim_offsets=False, add_prefix_space=False
    )
    return converted
