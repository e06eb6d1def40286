"""Tests of the index use one thread: several of them wait for each other where other tests run beside."""

from __future__ import annotations

import pytest

from cusa.index.options import IndexOptions


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr(IndexOptions, "processors", lambda options: 1)
