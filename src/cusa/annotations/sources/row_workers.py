"""Processes that read texts of rows.

They are started as separate programs. multiprocessing would run the program that calls `convert` again in each worker.
A worker ends when its input ends, so also when this process is killed. If a worker cannot read a text, for instance
because it was killed, this process reads it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import IO

import pyarrow as pa

from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.row_source import RowReader, RowSource, RowText, SoundRows, read_text
from cusa.config.captions import CaptionCleaning
from cusa.config.dataset import DatasetSection, load_dataset

BYTES_FOR_EACH = 16 << 20  # of files, for which the start of a process pays
MOST = 4  # processes; one process has no more to do than to hand out texts and to write what comes back
ODD = -1
HEADER = struct.Struct("<qq")


class _InProcessReader:
    """Reads texts in this process."""

    ahead = 1

    def __init__(self, source: RowSource, cleaning: CaptionCleaning) -> None:
        self.source, self.cleaning = source, cleaning

    def read(self, path: Path, text: RowText) -> Callable[[], SoundRows | None]:
        return lambda: read_text(self.source, self.cleaning, path, text)


class _WorkerReader:
    """Reads texts in worker processes. Each thread of `pool` gives one text to a free process, and waits for it."""

    def __init__(
        self, in_process: _InProcessReader, processes: list[subprocess.Popen[bytes]], pool: ThreadPoolExecutor
    ) -> None:
        self.in_process, self.pool, self.ahead = in_process, pool, len(processes) + 2
        self.free: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for process in processes:
            self.free.put(process)

    def read(self, path: Path, text: RowText) -> Callable[[], SoundRows | None]:
        return self.pool.submit(self._read, path, text).result

    def _read(self, path: Path, text: RowText) -> SoundRows | None:
        process = self.free.get()
        try:
            return _read_by_worker(process, path, text)
        except (OSError, EOFError, pa.ArrowInvalid):  # it is gone
            return self.in_process.read(path, text)()
        finally:
            self.free.put(process)


@contextmanager
def row_reader(
    source: RowSource, dataset: DatasetSection, cleaning: CaptionCleaning, threads: int
) -> Iterator[RowReader]:
    """A reader for the rows of a source: this process, or at most `threads` processes if the files are large."""
    in_process = _InProcessReader(source, cleaning)
    size = sum(path.stat().st_size for _, path in source.row_files() if path.is_file())
    count = min(threads, MOST, size // BYTES_FOR_EACH)
    if count < 2:
        yield in_process
        return
    conversion = {"dataset": json.loads(dataset.as_json()), "cleaning": json.loads(cleaning.as_json())}
    command = [sys.executable, "-P", "-m", "cusa.annotations.sources.row_workers", json.dumps(conversion)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            )
            for _ in range(count)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(count))
        try:
            yield _WorkerReader(in_process, processes, pool)
        finally:
            pool.shutdown(cancel_futures=True)
            for process in processes:
                _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    """Let a worker end."""
    try:
        _pipe(process.stdin).close()
    except BrokenPipeError:  # it has ended already, and a text for it was left
        return


def _read_by_worker(process: subprocess.Popen[bytes], path: Path, text: RowText) -> SoundRows | None:
    """The rows of a text, read by a worker. Raises OSError or EOFError if the worker has ended."""
    content = text.text.encode("utf-8", "surrogatepass")
    to_worker, from_worker = _pipe(process.stdin), _pipe(process.stdout)
    name = os.fsencode(path)
    to_worker.write(HEADER.pack(len(name), int(text.are_lines)) + name + HEADER.pack(len(content), 0))
    to_worker.write(content)
    to_worker.flush()
    count, size = HEADER.unpack(_exactly(from_worker, HEADER.size))
    if count == ODD:
        return None
    with pa.ipc.open_stream(pa.py_buffer(_exactly(from_worker, size))) as stream:
        return SoundRows(count, stream.read_next_batch())


def _pipe(file: IO[bytes] | None) -> IO[bytes]:
    if file is None:
        raise EOFError("the process has no pipe")
    return file


def _exactly(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise EOFError(f"{size} bytes were expected, and {len(content)} came")
    return content


def main() -> None:
    """Read texts from the standard input, and write their records to the standard output, until the input ends."""
    gc.disable()  # rows of JSON have no cycles, and there are many of them to look through
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the process that asks, and so this one
    conversion = json.loads(sys.argv[1])
    dataset = load_dataset(conversion["dataset"])
    cleaning = CaptionCleaning.model_validate(conversion["cleaning"])
    source = open_source(dataset, Path())
    if not isinstance(source, RowSource):
        raise TypeError(f"{dataset.format} is not a format of rows")
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    while header := asked.read(HEADER.size):
        length, are_lines = HEADER.unpack(header)
        path = Path(os.fsdecode(_exactly(asked, length)))
        size, _ = HEADER.unpack(_exactly(asked, HEADER.size))
        text = RowText(_exactly(asked, size).decode("utf-8", "surrogatepass"), bool(are_lines))
        found = read_text(source, cleaning, path, text)
        if found is None:
            answers.write(HEADER.pack(ODD, 0))
        else:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, found.records.schema) as writer:
                writer.write_batch(found.records)
            content = sink.getvalue()
            answers.write(HEADER.pack(found.rows, content.size))
            answers.write(memoryview(content))
        answers.flush()


if __name__ == "__main__":
    main()
