"""Captions that are longer than the positions that a text model was trained with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from open_clip_files import add_architectures, put_tokeniser_beside, write_weights

from cusa.config.losses import LossConfiguration
from cusa.config.models import StudentSettings
from cusa.config.section import validate
from cusa.errors import ConfigurationError
from cusa.student.positions import KEPT, stretched
from cusa.student.student import Student, build_student
from cusa.teachers.encoders import pad_tokens

LOSSES = validate(LossConfiguration, {"contrastive": {}})
SHORT, LONG = ["a red circle", "small"], ["a red circle and " * 40 + "small", "a red circle and " * 40 + "large"]


def features(student: Student, captions: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        return student.backbone.text_features(pad_tokens(*student.backbone.tokenise(captions)))


def test_a_stretched_table_keeps_its_start_and_interpolates_the_rest():
    """Row by row in float64, as numpy interpolates: the first and the last of the rest stay where they were."""
    table = torch.randn(77, 5, dtype=torch.float32)
    found = stretched(table, 248)
    assert torch.equal(found[:KEPT], table[:KEPT])
    places = np.linspace(0, 77 - KEPT - 1, 248 - KEPT)
    for column in range(5):
        expected = np.interp(places, np.arange(77 - KEPT), table[KEPT:, column].double().numpy())
        assert np.abs(found[KEPT:, column].numpy() - expected).max() < 1e-6
    assert torch.allclose(stretched(table, 77), table, atol=1e-6)
    assert stretched(table[:3], 10).shape == (10, 5)  # fewer rows than are kept


def test_a_clip_of_transformers_reads_more(tiny_clip, tmp_path):
    settings = StudentSettings(name=str(tiny_clip), max_tokens=200)
    plain = build_student(settings, LOSSES).eval()
    longer = build_student(settings.model_copy(update={"stretch_positions": True}), LOSSES).eval()
    assert (plain.backbone.max_tokens, longer.backbone.max_tokens) == (32, 200)
    assert torch.allclose(features(plain, SHORT), features(longer, SHORT), atol=1e-6)
    cut, whole = features(plain, LONG), features(longer, LONG)
    assert torch.allclose(cut[0], cut[1])  # what tells them apart is cut off
    assert not torch.allclose(whole[0], whole[1], atol=1e-4)
    whole_model = longer.backbone.model
    whole_model.save_pretrained(tmp_path / "saved")
    from transformers import CLIPModel

    again = CLIPModel.from_pretrained(tmp_path / "saved").eval()
    tokens = pad_tokens(*longer.backbone.tokenise(LONG))
    assert torch.allclose(again.get_text_features(**tokens).pooler_output, whole, atol=1e-6)


@pytest.mark.parametrize("name", ["tiny-LongCLIP", "tiny-MobileCLIP"])
def test_a_clip_of_open_clip_reads_more_and_so_does_its_folder(name, tmp_path):
    """One reads a text from its start on, the other in both directions."""
    add_architectures(tmp_path)
    file = str(write_weights(name, tmp_path / "weights.safetensors"))
    settings = StudentSettings(name=f"open_clip/{name}", pretrained=file, max_tokens=200, stretch_positions=True)
    student = build_student(settings, LOSSES).eval()
    whole = features(student, LONG)
    assert student.backbone.max_tokens == 200
    assert not torch.allclose(whole[0], whole[1], atol=1e-4)
    plain = build_student(settings.model_copy(update={"stretch_positions": False}), LOSSES).eval()
    assert torch.allclose(*features(plain, LONG), atol=1e-6)
    if name == "tiny-LongCLIP":  # what is read in both directions has read the padding as well
        assert torch.allclose(features(plain, SHORT), features(student, SHORT), atol=1e-5)
    student.backbone.save(tmp_path / "saved")
    again = build_student(StudentSettings(name=str(tmp_path / "saved"), max_tokens=200), LOSSES).eval()
    assert torch.allclose(features(again, LONG), whole, atol=1e-6)


def test_positions_that_cannot_be_stretched_are_a_sentence(tiny_siglip, tmp_path):
    add_architectures(tmp_path)
    file = write_weights("tiny-SigLIP2", tmp_path / "weights.safetensors")
    put_tokeniser_beside(file, tiny_siglip)
    long = {"max_tokens": 100, "stretch_positions": True}
    for settings in (
        StudentSettings(name=str(tiny_siglip), **long),
        StudentSettings(name="open_clip/tiny-SigLIP2", pretrained=str(file), **long),
    ):
        with pytest.raises(ConfigurationError, match="stretch_positions is true, but the text side of .* is none"):
            build_student(settings, LOSSES)


def test_a_pair_of_towers_is_not_stretched():
    towers = {"image": {"name": "a"}, "text": {"name": "b"}}
    with pytest.raises(ConfigurationError, match="stretch_positions is true, but the student is a pair of towers"):
        validate(StudentSettings, {"towers": towers, "stretch_positions": True})
    assert "stretch" not in StudentSettings(name="a").as_json()
