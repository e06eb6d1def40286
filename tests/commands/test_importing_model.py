"""`cusa import-model`: a pre-trained model is searched with, without training."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import cusa
from cusa.cli import parser
from cusa.errors import ConfigurationError


def call(*arguments: object) -> None:
    parsed = parser().parse_args(list(map(str, arguments)))
    parsed.call(parsed)


def test_a_clip_finds_pictures_as_it_was_loaded(tmp_path, tiny_clip, shapes, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_clip, "clip")
    call("import-model", "clip", "--output", "models/clip")
    assert "next: cusa embed models/clip PICTURES --output galleries/pictures" in capsys.readouterr().out
    monkeypatch.chdir("models")  # the run names the CLIP by its whole path
    call("embed", "clip", shapes / "pics", "--output", "gallery")
    call("index", "gallery", "--output", "index")
    capsys.readouterr()
    call("search", "index", "A red CIRCLE, small")
    assert "1 " in capsys.readouterr().out

    from transformers import CLIPModel, CLIPProcessor

    model, processor = CLIPModel.from_pretrained(tiny_clip), CLIPProcessor.from_pretrained(tiny_clip)
    texts, picture = ["A red CIRCLE, small"], Image.open(next((shapes / "pics").iterdir()))
    with torch.inference_mode():
        inputs = processor(text=texts, images=[picture], return_tensors="pt", truncation=True, padding="max_length")
        output = model(**inputs)
    mine = cusa.load("clip", device="cpu")
    np.testing.assert_allclose(mine.encode_text(texts), output.text_embeds.numpy(), atol=1e-5)
    # transformers resizes with torch here, and cusa with Pillow, as CLIP's own code does.
    np.testing.assert_allclose(mine.encode_image([picture]), output.image_embeds.numpy(), atol=5e-3)


def test_nothing_is_overwritten_and_nothing_stays_of_a_model_that_cannot_be_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigurationError, match="there exists already; name another folder, nothing is overwritten"):
        call("import-model", "open_clip/ViT-B-32", "--output", "there")
    with pytest.raises(ConfigurationError, match="open_clip/ViT-B-3200"):
        call("import-model", "open_clip/ViT-B-3200", "--output", "clip")
    with pytest.raises(ConfigurationError, match="`student`.*pretrained is 'laion2b'"):
        call("import-model", "./clip", "--pretrained", "laion2b", "--output", "clip")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
