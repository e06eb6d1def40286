"""The packaged sentence model without transformers gives what sentence-transformers gives."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from cusa.config.models import TextModel, TextTower
from cusa.teachers.encoders import pad_tokens, weights_sha256
from cusa.teachers.extraction import encode_texts
from cusa.teachers.minilm import MiniLM
from cusa.teachers.registry import load_text_encoder
from cusa.teachers.sentence_encoder import SentenceEncoder, as_sentence_encoder

CPU = torch.device("cpu")
NAME = "all-MiniLM-L6-v2"
TEXTS = [
    "a red circle",
    "Two dogs run on the beach, and one of them has a ball.",
    "",
    " \t",
    "h\u00e9llo \u00dcn\u00ef",
    "\u4e00\u53ea\u7ea2\u8272\u7684\u82f9\u679c",
    "\U0001f436\u200d\U0001f436",
    "a [SEP] and a [MASK]",
    "unbelievably " * 200,
    "x" * 300,
]


@pytest.fixture(scope="module")
def minilm():
    return load_text_encoder(TextModel(name=NAME))


@pytest.fixture(scope="module")
def by_the_library(minilm):
    return as_sentence_encoder(minilm)


def test_the_features_are_those_of_sentence_transformers(minilm, by_the_library):
    assert isinstance(minilm, MiniLM)
    found = encode_texts(minilm, TEXTS, 3, CPU)
    assert found.shape == (len(TEXTS), 384)
    assert np.abs(found - by_the_library.model.encode(TEXTS, batch_size=3)).max() < 1e-6
    assert weights_sha256(minilm) == weights_sha256(by_the_library)


@pytest.mark.parametrize("limit", [None, 2, 8, 100_000])
def test_the_tokens_are_those_of_transformers(minilm, by_the_library, limit):
    assert minilm.tokenise(TEXTS, limit) == by_the_library.tokenise(TEXTS, limit)
    assert minilm.token_limit(limit) == by_the_library.token_limit(limit)
    ours, theirs = minilm.vocabulary(limit), by_the_library.vocabulary(limit)
    assert (ours.unknown, ours.room) == (theirs.unknown, theirs.room)
    assert list(map(list, ours.split(TEXTS))) == list(map(list, theirs.split(TEXTS)))
    assert ours.knows(TEXTS) == theirs.knows(TEXTS)
    assert minilm.pad_token == by_the_library.pad_token


def test_padding_changes_nothing(minilm):
    alone, (ids,) = pad_tokens(minilm.tokenise(TEXTS[:1]), 0), minilm.tokenise(TEXTS[:1])
    padded = pad_tokens([ids, [1] * 40], 0)
    with torch.inference_mode():
        assert torch.allclose(minilm(alone)[0], minilm(padded)[0], atol=1e-6)


def test_half_precision_is_fp32_to_its_rounding(minilm):
    exact = encode_texts(minilm, TEXTS, 4, CPU)
    rounded = encode_texts(minilm, TEXTS, 4, CPU, precision="bf16")
    assert 0 < np.abs(rounded - exact).max() < 0.02


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(TextTower(name=NAME), id="a tower that is trained"),
        pytest.param(TextModel(name=NAME, prompt="a photo of "), id="a prompt"),
        pytest.param(TextModel(name=NAME, matryoshka_dimension=64), id="a cut"),
    ],
)
def test_settings_of_its_own_and_training_take_the_library(model):
    """Weights that were trained have the names of the library."""
    assert isinstance(load_text_encoder(model), SentenceEncoder)


def test_a_frozen_tower_starts_without_transformers():
    code = (
        "import sys\n"
        "from cusa.config.models import TextTower\n"
        "from cusa.teachers.registry import load_text_encoder\n"
        f"load_text_encoder(TextTower(name={NAME!r}, trainable=False)).tokenise(['a dog'])\n"
        "print([name for name in ('transformers', 'sentence_transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
