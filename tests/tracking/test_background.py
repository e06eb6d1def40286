"""Trackers in threads: nothing waits for them, and their errors end them, not the training."""

from __future__ import annotations

import logging
import threading
import time

from cusa.tracking import background
from cusa.tracking.background import BackgroundTracker


class Kept:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list = []

    def log(self, step, values):
        self.told.append((step, values))

    def finish(self, status, summary):
        self.told.append((status, summary))


def test_everything_arrives_in_order_before_the_end():
    kept = Kept()
    tracker = BackgroundTracker("kept", kept)
    for step in range(100):
        tracker.log(step, {"loss": 1.0})
    tracker.finish("finished", {"best": 2.0})
    assert kept.told == [*((step, {"loss": 1.0}) for step in range(100)), ("finished", {"best": 2.0})]


def test_an_error_ends_the_tracker_with_one_warning(caplog):
    class Failing(Kept):
        def log(self, step, values):
            raise ConnectionError("the server is away\nsince Monday")

    with caplog.at_level(logging.WARNING):
        tracker = BackgroundTracker("the tracker far", Failing())
        for step in range(3):
            tracker.log(step, {})
        tracker.finish("finished", {})
    assert [record.message for record in caplog.records] == [
        "the tracker far stopped (ConnectionError: the server is away since Monday); the training goes on without it"
    ]


def test_a_server_that_does_not_answer_does_not_hold_the_training(caplog, monkeypatch):
    monkeypatch.setattr(background, "SECONDS_TO_STOP", 0.05)
    answered = threading.Event()

    class Hanging(Kept):
        def log(self, step, values):
            answered.wait()

    tracker = BackgroundTracker("the tracker slow", Hanging())
    started = time.monotonic()
    tracker.log(1, {})
    tracker.log(2, {})
    tracker.finish("stopped", {})
    assert time.monotonic() - started < 5
    assert "the tracker slow did not end in time" in caplog.text
    answered.set()


def test_a_tracker_may_do_something_when_nothing_comes(monkeypatch):
    monkeypatch.setattr(background, "SECONDS_BETWEEN_LOOKS", 0.01)
    looked = threading.Event()
    kept = Kept()
    tracker = BackgroundTracker("kept", kept, idle=looked.set)
    assert looked.wait(5)
    tracker.log(1, {})
    tracker.finish("finished", {})
    assert kept.told == [(1, {}), ("finished", {})]
