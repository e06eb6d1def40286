"""The teachers' similarities: of distinct rows, and in float16, which moves the losses by less than 1e-4."""

from __future__ import annotations

import pytest
import torch

from cusa.config.losses import LossConfiguration
from cusa.config.section import validate
from cusa.losses import CUSALoss
from cusa.teacher_similarities import teacher_similarity

PAIRS = 64


def features(dimension: int, seed: int) -> torch.Tensor:
    """Features as teachers have them: a large part is common to all, so that similarities are far from 0."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(1, dimension, generator=generator)
    return 3 * (common + torch.randn(PAIRS, dimension, generator=generator))


@pytest.mark.parametrize("dimension", [20, 768, 37_632])
def test_float16_moves_similarities_and_losses_by_less_than_one_in_ten_thousand(dimension):
    teachers = {"teacher_image": features(dimension, 0), "teacher_text": features(768, 1)}
    exact = teacher_similarity("image", teachers["teacher_image"], None, None)
    rounded = teacher_similarity("image", teachers["teacher_image"], None, None, half=True)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 5e-4
    families = {"contrastive": {"reduction": "sum"}, "cross_softlabel": {"rate": 1.0}, "uni_softlabel": {"rate": 1.0}}
    loss = CUSALoss(validate(LossConfiguration, families))
    generator = torch.Generator().manual_seed(2)
    names = ("cross_image", "cross_text", "uni_image", "uni_text")
    heads = {name: torch.randn(PAIRS, 16, generator=generator) for name in names}
    found = []
    for loss.half_teachers in (False, True):
        found.append(torch.stack(loss(**heads, **teachers, image_ids=torch.arange(PAIRS)).terms()))
    assert found[0].min() > 0.1
    assert 0 < (found[1] - found[0]).abs().max() < 1e-4


def test_rows_that_pairs_share_are_compared_once(monkeypatch):
    distinct, rows = features(33, 3)[:5], torch.tensor([0, 1, 1, 4, 3, 2, 0])
    whole = teacher_similarity("image", distinct[rows], None, None)
    assert torch.allclose(teacher_similarity("image", distinct, rows, None), whole, atol=1e-6)
    monkeypatch.setattr("cusa.teacher_similarities.TEACHER_COLUMNS", 7)
    for half in (False, True):
        twice = teacher_similarity("image", distinct, rows, lambda part: torch.cat([part, part]), half)
        assert torch.allclose(twice, torch.cat([whole, whole], dim=1), atol=1e-3 if half else 1e-6)
