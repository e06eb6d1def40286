"""Embeds the items of a source into a gallery: threads decode ahead of the model, and finished parts stay.

A part is the rows that come from `part_rows` items of the source. A run that is killed continues with the parts that
are missing, and the result is bit for bit that of a run which was not killed: batches never cross the end of a part.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from cusa.common.files import require_space, require_writable, write_json
from cusa.common.images import check_image, decoded_rgb
from cusa.common.progress import progress
from cusa.config.dataset_section import MAX_PIXELS
from cusa.config.losses import HeadName
from cusa.errors import ConfigurationError, DataError
from cusa.gallery.parts import PartWriter, finished_parts, join
from cusa.gallery.plan import END, SHARES, Plan, versions_in_use
from cusa.gallery.sources.source import Entry, Source
from cusa.gallery.store import GalleryMeta
from cusa.model.interface import HEADS, RetrievalModel, checked_head
from cusa.model.prefetch import available_cores, prefetched

log = logging.getLogger(__name__)
PART_ROWS = 10_000
BATCH_SIZE = 64  # of a model that does not say how many items it takes at once


@dataclass(frozen=True)
class Embedding:
    """How a gallery is made. `part` of `of` is a share of the parts, for several GPUs or jobs; shares are joined."""

    head: HeadName = "cross"
    dtype: str = "float32"
    part_rows: int = PART_ROWS
    max_pixels: int = MAX_PIXELS
    threads: int | None = None
    keep_parts: bool = False
    keep_pictures: bool = True
    part: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if self.of < 1 or not 0 <= self.part < self.of:
            raise ConfigurationError(f"part {self.part} is not one of {self.of}, which are counted from 0.")
        if self.part_rows < 1:
            raise ConfigurationError(f"a part has {self.part_rows} rows; expected 1 at least.")
        if self.threads is not None and self.threads < 1:
            raise ConfigurationError(f"there are {self.threads} threads; expected 1 at least.")
        if self.max_pixels < 1:
            raise ConfigurationError(f"a picture has at most {self.max_pixels} pixels; expected 1 at least.")


class _Ready(NamedTuple):
    """An item that a thread has prepared: what the model takes, or the reason why it cannot be read."""

    part: int
    entry: Entry
    prepared: Any
    problem: str | None


def embed_gallery(
    model: RetrievalModel, source: Source, output: str | Path, how: Embedding | None = None
) -> GalleryMeta | None:
    """Embed the items of `source` into the folder `output`. Returns what meta.json says; None for a share of the parts.

    Items that cannot be read are listed in unreadable.parquet. Raises DataError if the source has no item, if
    none can be read, and if `output` holds something else or a gallery of another model or source.
    """
    how, output = how or Embedding(), Path(output).absolute()
    checked_head(how.head, getattr(model, "heads", HEADS))
    if source.total == 0:
        place = source.describe()["place"]
        raise DataError(f"{place} has no {_unit(source)[:-1]}, so there is nothing to embed.")
    if not output.is_file():
        require_writable(output)
        require_space(output, _bytes_needed(model, source, how), f"the gallery of {source.total or 'some'} items")
    with _alone(output, how):
        if (done := _plan(model, source, how).begin(output)) is not None:
            log.info("%s is complete: %s items of the same model and source", output, f"{done.rows:,}")
            return join(output)
        _embed_parts(model, source, output, how)
        return join(output, how.keep_parts) if how.of == 1 else None


@contextmanager
def _alone(output: Path, how: Embedding) -> Iterator[None]:
    """Let one process at a time embed a share into a folder. Raises DataError if another one is at work."""
    if output.is_file():
        yield  # the next check reports that it is a file
        return
    output.mkdir(parents=True, exist_ok=True)
    path = output / f".embed-{how.part}-of-{how.of}.lock"
    try:
        with FileLock(path, timeout=0):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    except Timeout:
        raise DataError(
            f"another `cusa embed` is writing {output}; wait until it has ended, or name another --output."
        ) from None


def _bytes_needed(model: RetrievalModel, source: Source, how: Embedding) -> int:
    """The disk space of the embeddings, twice if parts are joined, and of the pictures that are copied."""
    once = (source.total or 0) * model.dimension * np.dtype(how.dtype).itemsize
    copied = source.copied_bytes if how.keep_pictures else 0
    return copied + once * (1 if how.keep_parts else 2)


def _unit(source: Source) -> str:
    return "images" if source.modality == "image" else "texts"


def _plan(model: RetrievalModel, source: Source, how: Embedding) -> Plan:
    described = source.describe() | {"max_pixels": how.max_pixels, "keep_pictures": how.keep_pictures}
    described["precision"] = getattr(model, "precision", None)
    return Plan(
        model=str(model.folder),
        model_sha256=model.weights_sha256,
        modality=source.modality,
        head=how.head,
        dimension=model.dimension,
        dtype=how.dtype,  # type: ignore[arg-type]  # pydantic refuses another one
        part_rows=how.part_rows,
        source=described,
        versions=versions_in_use(),
    )


def _embed_parts(model: RetrievalModel, source: Source, output: Path, how: Embedding) -> None:
    """Write the parts of this share that are missing, and what the source had at its end."""
    finished = finished_parts(output)
    wanted_parts = _WantedParts(how, finished)
    total = None if source.total is None else wanted_parts.items(source.total)
    if finished:
        log.info("%s: %s parts are there already", output, f"{len(finished):,}")
    numbered = _Numbered(source, wanted_parts)
    encoder = _encoder(model, source, how)
    batch_size = int(getattr(model, "batch_size", BATCH_SIZE))
    threads = how.threads or available_cores()
    ready = prefetched(numbered, encoder.prepare, 2 * batch_size + 2 * threads, threads)
    batches = _batches(ready, batch_size)
    with encoder.batches_at_once() as (at_once, begin_thread):
        embedded = prefetched(batches, encoder.encode, at_once + 1, at_once, begin_thread)
        embedded = _reported(embedded, total, _unit(source))
        for part, group in groupby(embedded, key=lambda batch: batch.part):
            writer = PartWriter(output, part, model.dimension, how.dtype, how.keep_pictures)
            with writer.atomic():
                for batch in group:
                    writer.unreadable += batch.unreadable
                    writer.add(batch.entries, batch.embeddings)
    if source.total is not None and numbered.count != source.total:
        raise DataError(
            f"the source changed while it was embedded: it had {source.total:,} items, then {numbered.count:,}; "
            f"delete {output} and embed again."
        )
    end = {"items": numbered.count, "parts": -(-numbered.count // how.part_rows)}
    if how.of > 1:
        write_json(output / SHARES / f"{how.part}-of-{how.of}.json", end)
    write_json(output / END, end)


@dataclass(frozen=True)
class _WantedParts:
    """The items to embed now: those of this share's parts, without the parts that exist."""

    how: Embedding
    finished: set[int]

    def __call__(self, number: int) -> bool:
        part = number // self.how.part_rows
        return part % self.how.of == self.how.part and part not in self.finished

    def items(self, total: int) -> int:
        """The number of them, of `total` items."""
        rows, count = self.how.part_rows, 0
        for part in range(-(-total // rows)):
            if self(part * rows):
                count += min(rows, total - part * rows)
        return count


class _Numbered:
    """The entries that are wanted, with the number of their part; `count` is the number of all entries so far."""

    def __init__(self, source: Source, wanted: _WantedParts) -> None:
        self.source, self.wanted, self.count = source, wanted, 0

    def __iter__(self) -> Iterator[tuple[int, Entry]]:
        for entry in self.source.entries(self.wanted):
            number, self.count = self.count, self.count + 1
            if entry is not None and self.wanted(number):
                yield number // self.wanted.how.part_rows, entry


@dataclass(frozen=True)
class _Batch:
    """Items of one part: those that a thread has prepared, and the names and reasons of those that cannot be read."""

    part: int
    entries: list[Entry]
    prepared: list[Any]
    unreadable: list[tuple[str, str]]


@dataclass(frozen=True)
class _Embedded:
    """A batch with the embeddings of its entries, float32 [n, D]."""

    part: int
    entries: list[Entry]
    embeddings: np.ndarray
    unreadable: list[tuple[str, str]]


def _reported(embedded: Iterator[_Embedded], total: int | None, unit: str) -> Iterator[_Embedded]:
    """The batches; their items are counted on the screen."""

    def items() -> Iterator[_Embedded | None]:
        for batch in embedded:
            yield from (None for _ in range(len(batch.entries) + len(batch.unreadable) - 1))
            yield batch

    yield from (batch for batch in progress(items(), total, unit, "embedding") if batch is not None)


def _batches(ready: Iterator[_Ready], batch_size: int) -> Iterator[_Batch]:
    """Batches of items that follow one another in one part, so that they are the same in a run that continues."""
    for part, group in groupby(ready, key=lambda item: item.part):
        items: list[_Ready] = []
        for item in group:
            items.append(item)
            if len(items) == batch_size:
                yield _batch(part, items)
                items = []
        if items:
            yield _batch(part, items)


def _batch(part: int, items: list[_Ready]) -> _Batch:
    sound = [item for item in items if item.problem is None]
    problems = [(item.entry.item, item.problem) for item in items if item.problem is not None]
    return _Batch(part, [item.entry for item in sound], [item.prepared for item in sound], problems)


class _Encoder:
    """Prepares items in threads and embeds batches of them, by any RetrievalModel."""

    def __init__(self, model: RetrievalModel, how: Embedding, encode: Callable[..., np.ndarray]) -> None:
        self.model, self.how, self._encode = model, how, encode

    def batches_at_once(self) -> AbstractContextManager[tuple[int, Callable[[], None]]]:
        """A block in which threads encode batches: how many they are, and what each calls first."""
        return nullcontext((1, lambda: None))

    def prepare(self, numbered: tuple[int, Entry]) -> _Ready:
        """The model's input for an item. This runs in threads."""
        part, entry = numbered
        if entry.problem is not None:
            return _Ready(part, entry, None, entry.problem)
        try:
            return _Ready(part, entry, self.prepared(entry), None)
        except DataError as error:
            return _Ready(part, entry, None, self._reason(str(error)))

    def prepared(self, entry: Entry) -> Any:
        """The model's input for a sound item. Raises DataError if it cannot be read."""
        raise TypeError(f"{type(self).__name__} has to define prepared()")

    def encode(self, batch: _Batch) -> _Embedded:
        """The batch with its embeddings. Items that the model refuses move to those that cannot be read."""
        if not batch.entries:
            empty = np.empty((0, self.model.dimension), dtype=np.float32)
            return _Embedded(batch.part, [], empty, batch.unreadable)
        with suppress(DataError):
            embeddings = self._encode(batch.prepared, head=self.how.head)
            return _Embedded(batch.part, batch.entries, embeddings, batch.unreadable)
        # The model names one bad item or a few. Each item is tried alone, so that all bad ones are known.
        entries, unreadable, rows = [], list(batch.unreadable), []
        for entry, prepared in zip(batch.entries, batch.prepared, strict=True):
            try:
                rows.append(self._encode([prepared], head=self.how.head))
                entries.append(entry)
            except DataError as error:
                unreadable.append((entry.item, self._reason(str(error))))
        found = np.concatenate([np.empty((0, self.model.dimension), dtype=np.float32), *rows])
        return _Embedded(batch.part, entries, found, unreadable)

    def _reason(self, message: str) -> str:
        for alone in ("1 of 1 pictures cannot be read: item 0: ", "1 of 1 texts have no word after clean-up: 0: "):
            if message.startswith(alone):
                message = message.removeprefix(alone) if "pictures" in alone else "has no word after clean-up"
        return message.replace("dataset.max_pixels", "--max-pixels").replace("raise that key", "raise that").rstrip(".")


class _Texts(_Encoder):
    def prepared(self, entry: Entry) -> str:
        return entry.item


class _Pictures(_Encoder):
    """For models that take pictures as files or bytes."""

    def prepared(self, entry: Entry) -> Path | bytes:
        picture = entry.picture()
        if isinstance(picture, Path):
            if (found := check_image(picture, "header", self.how.max_pixels)).problem is not None:
                raise DataError(found.problem)
        else:
            with decoded_rgb(picture, self.how.max_pixels):
                pass
        return picture


class _PreparedPictures(_Encoder):
    """For models whose pictures are prepared in threads: `prepared` and `encode_prepared`, as those of torch have."""

    def batches_at_once(self) -> AbstractContextManager[tuple[int, Callable[[], None]]]:
        found: Any = getattr(self.model, "batches_at_once", None)
        return super().batches_at_once() if found is None else found()

    def prepared(self, entry: Entry) -> Any:
        model: Any = self.model
        if entry.in_shard:
            content = entry.picture()
            if hasattr(model, "prepared_from_shard"):
                return model.prepared_from_shard(content, entry.plain)
            return model.prepared(content, self.how.max_pixels)
        return model.prepared(entry.picture(), self.how.max_pixels)


def _encoder(model: RetrievalModel, source: Source, how: Embedding) -> _Encoder:
    if source.modality == "text":
        return _Texts(model, how, model.encode_text)
    if hasattr(model, "encode_prepared"):
        return _PreparedPictures(model, how, model.encode_prepared)
    return _Pictures(model, how, model.encode_image)
