"""Event files as TensorBoard itself reads them, also after an interruption."""

from __future__ import annotations

import struct

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cusa.tracking.event_file import EventFile, masked_crc32c, remove_event_files


def read(folder) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def curve(folder, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def test_the_checksum_is_crc32c():
    """The check value of CRC-32C is that of the digits 1 to 9 (RFC 3720 and the catalogue of CRC algorithms)."""
    unmasked = (masked_crc32c(b"123456789") - 0xA282EAD8) & 0xFFFFFFFF
    assert ((unmasked << 15) | (unmasked >> 17)) & 0xFFFFFFFF == 0xE3069283


def test_tensorboard_reads_numbers_and_texts(tmp_path):
    file = EventFile(tmp_path, 0)
    file.add_text("configuration", "# künstlich", 0)
    for step in (1, 300, 70_000, 5_000_000_000):
        file.add_scalars(step, {"train/loss": 1 / step, "val/r_mean": -2.5}, wall_time=1e9 + step)
    file.close()
    assert curve(tmp_path, "train/loss") == [
        (step, struct.unpack("f", struct.pack("f", 1 / step))[0]) for step in (1, 300, 70_000, 5_000_000_000)
    ]
    (*_, last) = read(tmp_path).Scalars("val/r_mean")
    assert (last.value, last.wall_time) == (-2.5, 1e9 + 5_000_000_000)
    (text,) = read(tmp_path).Tensors("configuration")
    assert text.tensor_proto.string_val[0].decode() == "# künstlich"
    assert read(tmp_path).summary_metadata["configuration"].plugin_data.plugin_name == "text"


def test_points_are_there_before_the_file_is_closed(tmp_path):
    file = EventFile(tmp_path, 0)
    file.add_scalars(1, {"train/loss": 0.5}, wall_time=1.0)
    assert curve(tmp_path, "train/loss") == [(1, 0.5)]
    file.close()


@pytest.mark.parametrize("clock", [2e9, 2e9 - 3600], ids=["within a second", "on a machine with a clock behind"])
def test_what_an_interrupted_training_takes_again_is_shown_once(tmp_path, monkeypatch, clock):
    monkeypatch.setattr("time.time", lambda: 2e9)
    first = EventFile(tmp_path, 0)
    for step in (1, 2, 3, 4):
        first.add_scalars(step, {"train/loss": 1.0}, wall_time=float(step))
    first.close()
    monkeypatch.setattr("time.time", lambda: clock)
    second = EventFile(tmp_path, 3)  # steps 1 and 2 were saved
    for step in (3, 4, 5):
        second.add_scalars(step, {"train/loss": 2.0}, wall_time=10.0 + step)
    second.close()
    assert curve(tmp_path, "train/loss") == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0)]


def test_only_our_event_files_are_removed(tmp_path):
    EventFile(tmp_path, 0).close()
    theirs = tmp_path / "events.out.tfevents.123.theirs"
    theirs.touch()
    remove_event_files(tmp_path)
    assert list(tmp_path.iterdir()) == [theirs]
    remove_event_files(tmp_path / "not there")


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**31, 2**40], ids=str)
def test_steps_of_any_size_survive(tmp_path, number):
    file = EventFile(tmp_path, 0)
    file.add_scalars(number, {"a": 1.0}, wall_time=1.0)
    file.close()
    assert curve(tmp_path, "a") == [(number, 1.0)]
