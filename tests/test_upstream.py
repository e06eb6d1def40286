"""The published YAML's `loss_config`, in the shape of their nine files."""

from __future__ import annotations

import copy

import pytest

from cusa.config import LossConfiguration, validate
from cusa.errors import ConfigurationError
from cusa.upstream import loss_config


def soft(prefix: str, tau: float, low: float, high: float) -> dict:
    found = {}
    for side in ("image", "text"):
        found |= {f"{prefix}{side}_tau": tau, f"{prefix}{side}_tau_min": low, f"{prefix}{side}_tau_max": high}
    return found


def published(cross: bool = True, uni: bool = True) -> dict:
    """The values of all eight published configurations."""
    common = {"use_loss": "kl", "contrastive_loss_mode": "mean", **soft("the_softlabel_", 1.0, 0.1, 1.0)}
    return {
        "contrastive": {
            "is_on": True,
            "is_block_tau": False,
            "tau": 0.05,
            "tau_min": 0.01,
            "tau_max": 0.10,
            "rate": 1.0,
            "contrastive_loss_mode": "mean",
        },
        "cross_softlabel": {
            "is_on": cross,
            "use_same_tau": True,
            "is_block_tau": False,
            **soft("", 0.45, 0.10, 0.99),
            "rate": 0.10,
            **common,
            "cross_softlabel_mode": "each",
            "use_same_softlabel_tau": True,
            "is_block_softlabel_tau": True,
        },
        "uni_softlabel": {
            "is_on": uni,
            "use_cross_softlabel_same_tau": False,
            "use_same_tau": False,
            "is_block_tau": False,
            **soft("", 0.45, 0.10, 1.00),
            "rate": 0.50,
            **common,
            "use_cross_softlabel_same_softlabel_tau": True,
            "use_same_softlabel_tau": False,
            "is_block_softlabel_tau": True,
        },
    }


def test_cusa_is_our_default_with_shared_teacher_temperatures():
    expected = {"contrastive": {}, "cross_softlabel": {}, "uni_softlabel": {"teacher_temperature": "cross"}}
    assert loss_config(published()) == validate(LossConfiguration, expected)


def test_only_contrastive():
    assert loss_config(published(cross=False, uni=False)) == validate(LossConfiguration, {"contrastive": {}})


def test_usa_alone_keeps_its_own_temperatures():
    found = loss_config(published(cross=False))
    assert found.cross_softlabel is None
    assert found.uni_softlabel.teacher_temperature.image.start == 1.0


def test_everything_else_their_test_file_exercises():
    mapping = copy.deepcopy(published())
    mapping["cross_softlabel"] |= {
        "use_same_tau": False,
        "is_block_softlabel_tau": False,
        "the_softlabel_text_tau": 0.3,
    }
    mapping["uni_softlabel"] |= {"use_cross_softlabel_same_softlabel_tau": False, "the_softlabel_text_tau": 0.02}
    found = loss_config(mapping)
    assert not found.cross_softlabel.temperature.tied
    assert found.cross_softlabel.teacher_temperature.learned
    assert found.uni_softlabel.teacher_temperature.text.start == 0.02  # below its minimum: clamped on the first step


def test_a_key_that_is_missing_is_named():
    mapping = published()
    del mapping["contrastive"]["tau_max"]
    with pytest.raises(ConfigurationError, match="'tau_max'"):
        loss_config(mapping)
