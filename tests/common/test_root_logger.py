"""Records that users need not read stay off the root logger, only where it is asked for."""

from __future__ import annotations

import logging

import pytest

from cusa.common.root_logger import root_logger_at


def test_lower_records_are_kept_back_in_the_block_alone(caplog):
    before = logging.getLogger().level
    with root_logger_at(logging.ERROR):
        logging.warning("advice")
        logging.error("an error")
    assert caplog.messages == ["an error"]
    assert logging.getLogger().level == before


def test_the_level_is_restored_after_an_error():
    before = logging.getLogger().level
    with pytest.raises(ValueError, match="wrong"), root_logger_at(logging.CRITICAL):
        raise ValueError("wrong")
    assert logging.getLogger().level == before
