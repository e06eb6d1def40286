"""Precisions that a device has instructions for, and the warning about others."""

from __future__ import annotations

import logging

import pytest
import torch

from cusa.common import compute
from cusa.common.compute import autocast, has_instructions

CPU = torch.device("cpu")


@pytest.fixture
def processor(monkeypatch):
    """Sets whether this processor has instructions for bf16 and fp16."""

    def has(them: bool) -> None:
        for name in ("_is_mkldnn_bf16_supported", "_is_mkldnn_fp16_supported"):
            monkeypatch.setattr(torch.ops.mkldnn, name, lambda: them, raising=False)
        compute._warn_if_slow.cache_clear()

    yield has
    compute._warn_if_slow.cache_clear()


def test_fp32_needs_no_instructions_of_its_own(processor):
    processor(False)
    assert has_instructions("cpu", "fp32")
    assert has_instructions("cpu", "tf32")
    assert not has_instructions("cpu", "bf16")
    processor(True)
    assert has_instructions("cpu", "bf16")
    assert has_instructions("cpu", "fp16")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_without_instructions_is_warned_of_once(processor, caplog, precision):
    processor(False)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with autocast(CPU, precision):
                assert torch.is_autocast_enabled("cpu")
    assert len(caplog.records) == 1
    assert f"this processor has no instructions for {precision}" in caplog.text


def test_a_precision_with_instructions_is_not(processor, caplog):
    processor(True)
    with caplog.at_level(logging.WARNING), autocast(CPU, "bf16"):
        pass
    processor(False)
    with caplog.at_level(logging.WARNING), autocast(CPU, "fp32"):
        assert not torch.is_autocast_enabled("cpu")
    assert not caplog.records
