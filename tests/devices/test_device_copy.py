"""Batches are copied in a stream of their own, in an order that is safe; streams are stood in for, there is no GPU."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from fake_devices import CUDA, fake_gpu
from torch import Tensor

from cusa.training.batches import TrainingBatch
from cusa.training.device_copy import DeviceCopies


def batch() -> TrainingBatch:
    ids = torch.ones(2, 3, dtype=torch.int64)
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    texts = {"input_ids": ids, "attention_mask": ids.clone()}
    return TrainingBatch(images, texts, torch.rand(2, 5), None, torch.arange(2), text_rows=torch.arange(2))


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on, what happens in which stream."""
    happened: list[str] = []

    class Stream:
        def __init__(self, device: torch.device | None = None, name: str = "copies") -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            happened.append(f"{self.name} waits for {other.name}")

    computing, current = Stream(name="computing"), []

    @contextmanager
    def stream(chosen: Stream):
        current.append(chosen)
        yield
        current.pop()

    def to(self: TrainingBatch, device: torch.device) -> TrainingBatch:
        happened.append(f"{current[-1].name} copies")
        return moved(self, device)

    moved = TrainingBatch.to
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    monkeypatch.setattr(TrainingBatch, "to", to)
    monkeypatch.setattr(
        Tensor, "record_stream", lambda tensor, used: happened.append(f"{used.name} uses {tuple(tensor.shape)}")
    )
    return happened


def test_the_computation_waits_for_the_copy_and_holds_its_memory(monkeypatch):
    with fake_gpu(), monkeypatch.context() as patch:
        order = recorded(patch)
        copied = DeviceCopies(CUDA).copy(batch())
        assert {tensor.device for tensor in copied.tensors()} == {CUDA}
    assert order[:2] == ["copies copies", "computing waits for copies"]
    uses = [f"computing uses {shape}" for shape in ("(2, 3, 4, 4)", "(2, 3)", "(2, 3)", "(2, 5)", "(2,)", "(2,)")]
    assert order[2:] == uses


def test_on_the_cpu_nothing_is_copied():
    given = batch()
    copied = DeviceCopies(torch.device("cpu")).copy(given)
    assert all(one is other for one, other in zip(copied.tensors(), given.tensors(), strict=True))


def test_the_whole_batch_is_put_into_page_locked_memory(monkeypatch):
    """A tensor that is not would make the host wait for the GPU at its copy."""
    pinned: list[int] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(id(tensor)) or tensor)
    given = batch()
    given.pin_memory()
    assert pinned == [id(tensor) for tensor in given.tensors()]
    assert len(pinned) == 6
