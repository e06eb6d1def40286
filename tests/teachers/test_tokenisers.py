"""Tokenisers without padding token, without a length, without their files, or of another model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from model_files import changed_json

from cusa.config.losses import LossConfiguration
from cusa.config.models import StudentSettings, TextModel
from cusa.config.section import validate
from cusa.errors import ConfigurationError
from cusa.student.student import build_student
from cusa.teachers.encoders import pad_tokens
from cusa.teachers.extraction import encode_texts
from cusa.teachers.registry import load_text_encoder

TEXTS = ["a red circle", "a small blue cross and a large triangle", "red"]
FILE = "tokenizer_config.json"


def student(folder: Path):
    return build_student(StudentSettings(name=str(folder)), validate(LossConfiguration, {"contrastive": {}})).eval()


def student_features(folder: Path) -> torch.Tensor:
    backbone = student(folder).backbone
    with torch.inference_mode():
        return backbone.text_features(pad_tokens(*backbone.tokenise(TEXTS)))


def sentence_features(folder: Path) -> np.ndarray:
    encoder = load_text_encoder(TextModel(name=str(folder)))
    return encode_texts(encoder, TEXTS, 8, torch.device("cpu"))


def test_without_a_padding_token_the_features_are_the_same(tiny_clip, tiny_sentences, tmp_path):
    """The mask hides what captions are padded with."""
    clip = changed_json(tiny_clip, tmp_path / "clip", FILE, pad_token=...)
    assert student(clip).backbone.tokenise(TEXTS)[1] == 3  # the end of text
    assert torch.allclose(student_features(clip), student_features(tiny_clip), atol=1e-6)
    sentences = changed_json(tiny_sentences, tmp_path / "sentences", FILE, pad_token=...)
    assert np.abs(sentence_features(sentences) - sentence_features(tiny_sentences)).max() < 1e-6


def test_siglip_without_a_padding_token_is_padded_all_the_same(tiny_siglip, tmp_path):
    folder = changed_json(tiny_siglip, tmp_path / "siglip", FILE, pad_token=...)
    tokens, _ = student(folder).backbone.tokenise(TEXTS)
    assert {len(row) for row in tokens} == {16}


@pytest.mark.parametrize("length", [10**30, ..., None])
def test_a_tokeniser_without_a_length_takes_that_of_the_model(tiny_clip, tiny_sentences, tmp_path, length):
    clip = changed_json(tiny_clip, tmp_path / "clip", FILE, model_max_length=length)
    assert len(student(clip).backbone.tokenise(["red " * 1000])[0][0]) == 32
    sentences = changed_json(tiny_sentences, tmp_path / "sentences", FILE, model_max_length=length)
    (sentences / "sentence_bert_config.json").write_text("{}")
    tokens = load_text_encoder(TextModel(name=str(sentences))).tokenise(["red " * 1000])
    assert len(tokens[0]) == 512  # the positions of its BERT


@pytest.mark.parametrize("left", [True, False])
def test_missing_files_of_the_tokeniser_are_a_sentence(tiny_clip, tiny_sentences, tmp_path, left):
    """With neither file, transformers makes a tokeniser of two special tokens, and all captions were equal."""
    for model, load in ((tiny_clip, student), (tiny_sentences, sentence_features)):
        folder = Path(shutil.copytree(model, tmp_path / model.name))
        (folder / "tokenizer.json").unlink()
        if not left:
            (folder / FILE).unlink()
        with pytest.raises(ConfigurationError, match=r"could not be loaded|files \(tokenizer.json.*are missing"):
            load(folder)


def test_a_tokeniser_of_another_model_is_a_sentence(tiny_clip, tiny_sentences, tmp_path):
    import json

    for model, load in ((tiny_clip, student_features), (tiny_sentences, sentence_features)):
        folder = Path(shutil.copytree(model, tmp_path / model.name))
        content = json.loads((folder / "tokenizer.json").read_text())
        content["model"]["vocab"]["red"] = 4000
        (folder / "tokenizer.json").write_text(json.dumps(content))
        with pytest.raises(ConfigurationError, match="gives the id 4000, but its text model knows 32 ids"):
            load(folder)
