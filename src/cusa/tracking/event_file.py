"""TensorBoard's event files, written without TensorBoard: importing its writer takes longer than a short training.

A file is a sequence of records, each a message `Event` of tensorflow/core/util/event.proto with its length and two
checksums (tensorflow/core/lib/io/record_writer.h):

    uint64 length, uint32 masked CRC-32C of these 8 bytes, the message, uint32 masked CRC-32C of the message

`tensorboard --logdir results/{dataset}/runs` shows them, also while they are written.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

FOLDER = "tensorboard"
PATTERN = "events.out.tfevents.*.cusa"
VERSION = b"brain.Event:2"
# Field numbers of event.proto, summary.proto, tensor.proto and tensor_shape.proto.
WALL_TIME, STEP, FILE_VERSION, SUMMARY, SESSION_LOG = 1, 2, 3, 5, 7
VALUE, TAG, SIMPLE_VALUE, TENSOR, METADATA = 1, 1, 2, 8, 9
SESSION_START = 1
STRING_TYPE = 7
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers


class EventFile:
    """One event file in a folder, which a training that is continued adds to the files before.

    It starts with the message that makes TensorBoard forget points from `first_step` on: they are of a training that
    was interrupted after its last save, or of an earlier training of the run. Nothing is buffered: TensorBoard sees
    each point at once, and processes that are forked have nothing to write a second time.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        self._file = (folder / _next_name(folder, int(now))).open("wb", buffering=0)
        self._write(_double(WALL_TIME, now) + _bytes(FILE_VERSION, VERSION))
        started = _bytes(SESSION_LOG, _integer(1, SESSION_START))
        self._write(_double(WALL_TIME, now) + _integer(STEP, first_step) + started)

    def add_scalars(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """Add numbers by tag at a step; `wall_time` is in seconds since 1970."""
        summary = b"".join(
            _bytes(VALUE, _bytes(TAG, tag.encode()) + _float(SIMPLE_VALUE, value)) for tag, value in values.items()
        )
        self._write(_double(WALL_TIME, wall_time) + _integer(STEP, step) + _bytes(SUMMARY, summary))

    def add_text(self, tag: str, text: str, step: int) -> None:
        """Add a text in Markdown."""
        plugin = _bytes(1, _bytes(1, b"text"))
        tensor = _integer(1, STRING_TYPE) + _bytes(2, _bytes(2, _integer(1, 1))) + _bytes(8, text.encode())
        value = _bytes(TAG, tag.encode()) + _bytes(METADATA, plugin) + _bytes(TENSOR, tensor)
        self._write(_double(WALL_TIME, time.time()) + _integer(STEP, step) + _bytes(SUMMARY, _bytes(VALUE, value)))

    def close(self) -> None:
        """Close the file; what was added is in it already."""
        self._file.close()

    def _write(self, message: bytes) -> None:
        length = struct.pack("<Q", len(message))
        checks = (struct.pack("<I", masked_crc32c(part)) for part in (length, message))
        self._file.write(length + next(checks) + message + next(checks))


def remove_event_files(folder: Path) -> None:
    """Remove the event files that trainings wrote to a folder, and no other file."""
    for path in folder.glob(PATTERN):
        path.unlink(missing_ok=True)


def _next_name(folder: Path, now: int) -> str:
    """The name of a new file, which comes after the names of the folder's files.

    TensorBoard reads files in the order of their names, that is of the seconds in them. A training may go on within
    the second in which it stopped, or on a machine whose clock is behind.
    """
    before = (int(path.name.split(".")[3]) for path in folder.glob(PATTERN))
    second = max(now, max(before, default=0) + 1)
    return f"events.out.tfevents.{second:010d}.{os.uname().nodename}.{os.getpid()}.cusa"


def masked_crc32c(data: bytes) -> int:
    """The CRC-32C (Castagnoli) of bytes, rotated and added to, as records have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _table() -> list[int]:
    entries = list(range(256))
    for _ in range(8):
        entries = [(entry >> 1) ^ (0x82F63B78 if entry & 1 else 0) for entry in entries]
    return entries


_TABLE = _table()


def _varint(value: int) -> bytes:
    """A number that is not negative, seven bits a byte, the lowest first."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _key(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _integer(field: int, value: int) -> bytes:
    return _key(field, VARINT) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _key(field, FIXED64) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _key(field, FIXED32) + struct.pack("<f", value)


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, LENGTH_DELIMITED) + _varint(len(content)) + content
