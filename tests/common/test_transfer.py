"""Copies that neither host nor GPU waits for; those of a GPU are tested with fake tensors in tests/devices."""

from __future__ import annotations

import torch

from cusa.common import transfer
from cusa.common.transfer import AHEAD, on_host, pinned

CPU = torch.device("cpu")


def test_nothing_is_copied_on_the_cpu():
    batches = [[torch.ones(2), torch.zeros(3)], []]
    assert list(on_host(iter(batches))) == batches
    assert pinned(batches[0][0], CPU) is batches[0][0]


def test_results_come_in_order_when_later_batches_were_started(monkeypatch):
    """As on a GPU: a batch is waited for when the next AHEAD ones have work for it."""
    events = []

    class Event:
        def __init__(self, batch: int) -> None:
            self.batch = batch

        def synchronize(self) -> None:
            events.append(f"wait for {self.batch}")

    def start(batch):
        events.append(f"start {int(batch[0])}")
        return batch, Event(int(batch[0]))

    monkeypatch.setattr(transfer, "_start", start)
    found = [int(number) for (number,) in on_host([torch.tensor(number)] for number in range(4))]
    assert found == [0, 1, 2, 3]
    assert events[: AHEAD + 2] == ["start 0", "start 1", "start 2", "wait for 0"]
    assert events[AHEAD + 2 :] == ["start 3", "wait for 1", "wait for 2", "wait for 3"]
